"""The rewards that look at masks: None and 0 alike for all, values by hand, and Boundary IoU as published."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from rewards.boundary_iou import boundary_iou
from rewards.mask_dice import mask_dice
from rewards.mask_iou import mask_iou
from segmentation import masks
from segmentation.masks import RLE
from segmentation.sample import Found, Instance, Invalid, NoTarget, Sample, Target

SIZE = 20  # its diagonal is 28.3 pixels, so that a boundary is 1 wide
Reward = Callable[..., list[float | None]]
every_reward = pytest.mark.parametrize("reward", [mask_iou, mask_dice, boundary_iou], ids=lambda r: r.__name__)


def filled(*box: float, size: tuple[int, int] = (SIZE, SIZE)) -> RLE:
    return masks.from_box(box, *size)


def sample(*truths: RLE, ignore: RLE | None = None, size: tuple[int, int] = (SIZE, SIZE)) -> Sample:
    targets = tuple(Target(masks.box(rle) or (0.0, 0.0, 1.0, 1.0), rle) for rle in truths)
    return Sample("s", Image.new("RGB", (1, 1)), *size, "it", targets, ignore)


def found(*painted: RLE) -> Found:
    return Found(tuple(Instance(masks.box(rle), rle) for rle in painted))


def paid(reward: Reward, asked: Sample, *painted: RLE) -> float | None:
    return reward([found(*painted)], [asked], [masks.union(painted, asked.height, asked.width)])[0]


@every_reward
def test_what_applies_and_what_is_nothing(reward):
    targeted, empty = sample(filled(0, 0, 10, 10)), sample()
    boxes = Sample("b", targeted.image, SIZE, SIZE, "it", (Target((0.0, 0.0, 4.0, 4.0)),))
    right = filled(0, 0, 10, 10)
    answers, painted = [found(right), NoTarget(), Invalid("x")], [right, masks.empty(SIZE, SIZE), None]
    assert reward(answers, [targeted] * 3, painted) == [1.0, 0.0, 0.0]
    assert reward(answers, [empty] * 3, painted) == [None] * 3
    assert reward(answers, [boxes] * 3, painted) == [None] * 3
    assert reward([*answers[::-1], answers[0]], [targeted, empty] * 2, [*painted[::-1], right]) == [
        0.0,
        None,
        1.0,
        None,
    ]
    assert reward([], [], []) == []


@every_reward
def test_what_is_not_asked_for_is_let_pass_and_unequal_lengths_are_not(reward):
    assert reward([NoTarget()], [sample()], [None], completions=["..."]) == [None]
    with pytest.raises(ValueError, match=r"zip\(\)"):
        reward([NoTarget(), NoTarget()], [sample()], [None, None])


@every_reward
def test_a_found_without_a_mask_is_a_crash_only_where_a_mask_is_meant(reward):
    said = Found((Instance((0.0, 0.0, 4.0, 4.0)),))
    with pytest.raises(ValueError, match=f"{reward.__name__}: the answer to sample s has boxes and no mask; configure"):
        reward([said], [sample(filled(0, 0, 4, 4))], [None])
    assert reward([said], [sample()], [None]) == [None]


@every_reward
def test_a_mask_of_another_size_is_a_crash(reward):
    with pytest.raises(ValueError, match="sample s: the predicted mask is"):
        reward([found(filled(0, 0, 4, 4))], [sample(filled(0, 0, 4, 4))], [filled(0, 0, 4, 4, size=(SIZE, SIZE + 1))])


@every_reward
def test_nothing_painted_or_meant_or_shared_earns_nothing(reward):
    nothing, some = masks.empty(SIZE, SIZE), filled(3, 3, 9, 9)
    assert paid(reward, sample(some), nothing) == 0.0
    assert paid(reward, sample(nothing), some) == 0.0
    assert paid(reward, sample(nothing), nothing) == 0.0
    assert paid(reward, sample(some), filled(9, 3, 15, 9)) == 0.0  # side by side
    assert paid(reward, sample(some, ignore=filled(0, 0, 12, 12)), some) == 0.0


@every_reward
def test_unions_are_compared_not_instances(reward):
    asked = sample(filled(0, 0, 6, 10), filled(4, 0, 10, 10))
    assert paid(reward, asked, filled(0, 0, 10, 5), filled(0, 3, 10, 10)) == 1.0


@every_reward
def test_ignored_pixels_neither_pay_nor_cost(reward):
    truth, ignore = filled(0, 0, 10, 10), filled(10, 0, 20, 20)
    assert paid(reward, sample(truth, ignore=ignore), filled(0, 0, 20, 10)) == 1.0
    assert 0 < (paid(reward, sample(truth), filled(0, 0, 20, 10)) or 0) < 1
    half = paid(reward, sample(truth), filled(0, 0, 10, 5))
    assert paid(reward, sample(truth, ignore=ignore), filled(0, 0, 10, 5), filled(12, 3, 20, 17)) == half


@pytest.mark.parametrize(
    ("truth", "painted", "iou", "dice", "boundary"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 5), 50 / 100, 100 / 150, 18 / (36 + 26 - 18)),  # three sides of the half shared
        ((2, 2, 12, 12), (3, 2, 13, 12), 90 / 110, 180 / 200, 18 / 54),  # one pixel aside: two sides shared
        ((2, 2, 12, 12), (3, 3, 11, 11), 64 / 100, 128 / 164, 0.0),  # one ring within the other
        ((0, 0, 20, 20), (0, 0, 10, 20), 1 / 2, 2 / 3, 38 / (76 + 56 - 38)),  # the image's border is an outline
        ((5, 5, 7, 7), (5, 5, 7, 6), 2 / 4, 4 / 6, 2 / 4),  # so thin that all is boundary
        ((5, 5, 6, 6), (5, 5, 6, 6), 1.0, 1.0, 1.0),  # one pixel
        ((0, 0, 1, 1), (0, 0, 1, 2), 1 / 2, 2 / 3, 1 / 2),  # in the corner
        ((19, 19, 20, 20), (18, 19, 20, 20), 1 / 2, 2 / 3, 1 / 2),
        ((5, 5, 6, 6), (6, 6, 7, 7), 0.0, 0.0, 0.0),  # beside it
        ((5, 5, 6, 6), (0, 0, 20, 20), 1 / 400, 2 / 401, 0.0),  # in the interior of everything
    ],
)
def test_values_by_hand(truth, painted, iou, dice, boundary):
    asked, answer = sample(filled(*truth)), filled(*painted)
    assert paid(mask_iou, asked, answer) == pytest.approx(iou)
    assert paid(mask_dice, asked, answer) == pytest.approx(dice)
    assert paid(boundary_iou, asked, answer) == pytest.approx(boundary)
    assert paid(boundary_iou, sample(answer), filled(*truth)) == pytest.approx(boundary)


@pytest.mark.parametrize(
    ("height", "width", "distance"), [(1, 1, 1), (20, 20, 1), (50, 60, 2), (100, 100, 3), (480, 640, 16), (30, 720, 14)]
)
def test_a_boundary_is_as_wide_as_two_per_cent_of_the_diagonal(height, width, distance):
    whole, half = filled(0, 0, width, height, size=(height, width)), filled(0, 0, width, 1, size=(height, width))
    inside = max(height - 2 * distance, 0) * max(width - 2 * distance, 0)
    row = width  # one row is all boundary, and lies in that of the whole
    assert paid(boundary_iou, sample(whole, size=(height, width)), half) == row / (height * width - inside)


def published(first: np.ndarray, second: np.ndarray) -> float:
    """Boundary IoU as in the paper's code: a 3x3 erosion `d` times over, on the whole image, zeros beyond it."""
    distance = max(round(0.02 * math.sqrt(first.shape[0] ** 2 + first.shape[1] ** 2)), 1)
    one, other = (
        mask & ~np.array(binary_erosion(mask, np.ones((3, 3)), iterations=distance, border_value=0), dtype=bool)
        for mask in (first, second)
    )
    return (one & other).sum() / max((one | other).sum(), 1)


@st.composite
def scenes(draw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three masks of one size: patches and specks, many of them over the border."""
    size = draw(st.tuples(st.integers(1, 130), st.integers(1, 130)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def mask() -> np.ndarray:
        made = rng.random(size) < rng.choice([0.0, 0.001, 0.02])
        if rng.random() < 0.7:
            made = binary_dilation(made, np.ones((3, 3)), iterations=int(rng.integers(1, 12)))
        y, x = rng.integers(-5, size[0] + 5), rng.integers(-5, size[1] + 5)
        made[max(y, 0) : y + rng.integers(1, 60), max(x, 0) : x + rng.integers(1, 60)] = True
        return made

    return mask(), mask(), mask()


@given(scenes())
def test_boundary_iou_is_the_published_one(drawn):
    truth, painted, ignore = drawn
    size = truth.shape
    asked = sample(masks.encode(truth), size=size)
    assert paid(boundary_iou, asked, masks.encode(painted)) == published(truth, painted)
    without = sample(masks.encode(truth), ignore=masks.encode(ignore), size=size)
    assert paid(boundary_iou, without, masks.encode(painted)) == published(truth & ~ignore, painted & ~ignore)


@every_reward
@given(drawn=scenes())
def test_properties(reward, drawn):
    truth, painted, ignore = drawn
    size = truth.shape

    def value(truth: np.ndarray, painted: np.ndarray, ignore: np.ndarray) -> float:
        value = paid(reward, sample(masks.encode(truth), ignore=masks.encode(ignore), size=size), masks.encode(painted))
        assert value is not None and 0 <= value <= 1
        return value

    assert value(truth, painted, ignore) == value(painted, truth, ignore)
    assert value(truth, painted | ignore, ignore) == value(
        truth, painted & ~ignore, ignore
    )  # whatever is painted there
    assert value(truth, truth, ignore) == float((truth & ~ignore).any())
    assert value(truth[::-1], painted[::-1], ignore[::-1]) == value(truth, painted, ignore)


@given(scenes())
def test_dice_follows_from_iou(drawn):
    truth, painted, _ = (masks.encode(mask) for mask in drawn)
    asked = sample(truth, size=tuple(truth["size"]))  # type: ignore[arg-type]
    iou, dice = paid(mask_iou, asked, painted), paid(mask_dice, asked, painted)
    assert iou is not None and dice == pytest.approx(2 * iou / (1 + iou))

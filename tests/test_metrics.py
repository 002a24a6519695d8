"""The evaluator against a dense, slow implementation of the same published rules, and against cases worked by hand."""

import json
from itertools import permutations

import numpy as np
import pytest
from PIL import Image

from segmentation import masks
from segmentation.metrics import Evaluator, Ignore, box_score, overlap
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample, Target, prediction_mask

HEIGHT, WIDTH = 24, 31
IMAGE = Image.new("RGB", (WIDTH, HEIGHT))
IGNORES: tuple[Ignore, ...] = ("drop", "background", "target")

Answer = tuple[Sample, Prediction]


def rectangle(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def sample(*targets: tuple[int, int, int, int], id: str = "0", ignore: np.ndarray | None = None) -> Sample:
    """A sample whose targets are filled boxes."""
    made = tuple(Target((*map(float, box),), masks.encode(rectangle(*box))) for box in targets)  # type: ignore[arg-type]
    return Sample(id, IMAGE, HEIGHT, WIDTH, "it", made, ignore=None if ignore is None else masks.encode(ignore))


def found(*boxes: tuple[int, int, int, int]) -> Found:
    made = (Instance((*map(float, box),), masks.encode(rectangle(*box))) for box in boxes)  # type: ignore[arg-type]
    return Found(tuple(made))


def evaluate(*answers: Answer, **options) -> Evaluator:
    evaluator = Evaluator(**options)
    for asked, answer in answers:
        evaluator.add(asked, answer, prediction_mask(answer, HEIGHT, WIDTH))
    return evaluator


def random_box(rng: np.random.Generator) -> tuple[float, float, float, float]:
    x1, y1 = rng.uniform(0, WIDTH - 6), rng.uniform(0, HEIGHT - 6)
    return float(x1), float(y1), float(x1 + rng.uniform(1, 14)), float(y1 + rng.uniform(1, 14))


def random_mask(rng: np.random.Generator) -> np.ndarray:
    """A few rectangles with holes; now and then nothing at all."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for _ in range(rng.integers(0, 4)):
        x1, y1, x2, y2 = map(int, random_box(rng))
        mask[y1:y2, x1:x2] = True
    return mask & (rng.random(mask.shape) < 0.9)


def random_answers(count: int, seed: int) -> list[Answer]:
    """Samples with none to three overlapping targets, half with ignored pixels; answers of every state, some exact."""
    rng = np.random.default_rng(seed)
    answers = []
    for index in range(count):
        targets = tuple(Target(random_box(rng), masks.encode(random_mask(rng))) for _ in range(rng.integers(0, 4)))
        ignore = masks.encode(random_mask(rng)) if rng.random() < 0.5 else None
        asked = Sample(str(index), IMAGE, HEIGHT, WIDTH, "it", targets, ignore=ignore)
        kind = rng.random()
        if kind < 0.15:
            answer: Prediction = Invalid("no box")
        elif kind < 0.35:
            answer = NoTarget()
        elif kind < 0.6 and targets:
            answer = Found(tuple(Instance(target.box, target.mask) for target in targets[: rng.integers(1, 4)]))
        else:
            made = (Instance(random_box(rng), masks.encode(random_mask(rng))) for _ in range(rng.integers(1, 4)))
            answer = Found(tuple(made))
        answers.append((asked, answer))
    return answers


def dense_iou(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    width = max(min(first[2], second[2]) - max(first[0], second[0]), 0)
    height = max(min(first[3], second[3]) - max(first[1], second[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def dense_box_score(asked: Sample, answer: Prediction) -> float:
    if not isinstance(answer, Found):
        return 0.0
    sides = [[item.box for item in answer.instances], [item.box for item in asked.targets]]
    few, many = sorted(sides, key=len)
    ways = permutations(many, len(few))
    return max(sum(map(dense_iou, few, way)) for way in ways) / len(many)


def dense_result(answers: list[Answer], ignore: Ignore) -> dict[str, float]:
    """LISA's rule, pixel by pixel: `I / U` of boolean arrays, 1 where nothing is meant and nothing painted."""
    ious, intersections, unions, targeted, boxes = [], 0, 0, [], []
    for asked, answer in answers:
        truth, painted = np.zeros((HEIGHT, WIDTH), bool), np.zeros((HEIGHT, WIDTH), bool)
        for target in asked.targets:
            assert target.mask
            truth |= masks.decode(target.mask)
        if isinstance(answer, Found):
            for instance in answer.instances:
                assert instance.mask
                painted |= masks.decode(instance.mask)
        if asked.ignore is not None:
            ignored = masks.decode(asked.ignore)
            truth = truth | ignored if ignore == "target" else truth & ~ignored
            painted = painted & ~ignored if ignore == "drop" else painted
        intersection, union = int((truth & painted).sum()), int((truth | painted).sum())
        iou = intersection / union if union else float(not isinstance(answer, Invalid))
        ious.append(iou)
        intersections, unions = intersections + intersection, unions + union
        if asked.targets:
            targeted.append(iou)
            boxes.append(dense_box_score(asked, answer))
    nothing = [isinstance(answer, NoTarget) for asked, answer in answers if not asked.targets]
    something = [isinstance(answer, Found) for asked, answer in answers if asked.targets]
    return {
        "gIoU": np.mean(ious).item(),
        "cIoU": intersections / unions,
        **{f"Pr@0.{t}": np.mean([iou >= t / 10 for iou in targeted]).item() for t in range(5, 10)},
        "box_iou": np.mean(boxes).item(),
        "Acc@0.5": np.mean([score > 0.5 for score in boxes]).item(),
        "N_acc": np.mean(nothing).item(),
        "T_acc": np.mean(something).item(),
    }


@pytest.mark.parametrize("ignore", IGNORES)
def test_agrees_with_a_dense_implementation(ignore: Ignore):
    answers = random_answers(400, seed=1)
    result = evaluate(*answers, ignore=ignore).result()
    for name, value in dense_result(answers, ignore).items():
        assert result[name] == pytest.approx(value, abs=1e-9), name


def test_the_three_ignore_rules_differ():
    answers = random_answers(400, seed=1)
    assert len({evaluate(*answers, ignore=ignore).result()["gIoU"] for ignore in IGNORES}) == 3


def test_ignored_pixels_by_hand():
    # Truth: columns 0-9 of 24 rows. Ignored: columns 10-19. Painted: columns 0-14.
    asked = sample((0, 0, 10, HEIGHT), ignore=rectangle(10, 0, 20, HEIGHT))
    answer = found((0, 0, 15, HEIGHT))
    ious = [evaluate((asked, answer), ignore=ignore).rows[0].iou for ignore in IGNORES]
    assert ious == [10 / 10, 10 / 15, 15 / 20]


@pytest.mark.parametrize(
    ("answer", "iou", "intersection", "union"),
    [
        (found((0, 0, 4, 2)), 8 / 8, 8, 8),
        (found((0, 0, 8, 2)), 8 / 16, 8, 16),
        (found((0, 0, 4, 1), (2, 0, 4, 2)), 6 / 8, 6, 8),  # overlapping instances are painted once
        (NoTarget(), 0.0, 0, 8),
        (Invalid("no box"), 0.0, 0, 8),
    ],
)
def test_one_answer_about_a_target(answer: Prediction, iou: float, intersection: int, union: int):
    (row,) = evaluate((sample((0, 0, 4, 2)), answer)).rows
    assert (row.iou, row.intersection, row.union) == (iou, intersection, union)


@pytest.mark.parametrize(
    ("answer", "iou", "union", "n_acc"),
    [
        (NoTarget(), 1.0, 0, 1.0),
        (Invalid("empty text"), 0.0, 0, 0.0),  # paints nothing either, and is no answer
        (found((0, 0, 4, 2)), 0.0, 8, 0.0),
        (Found((Instance((0.0, 0.0, 1.0, 1.0), masks.empty(HEIGHT, WIDTH)),)), 1.0, 0, 0.0),  # LISA sees the mask only
    ],
)
def test_one_answer_where_nothing_is_meant(answer: Prediction, iou: float, union: int, n_acc: float):
    evaluator = evaluate((sample(), answer))
    assert (evaluator.rows[0].iou, evaluator.rows[0].union) == (iou, union)
    assert evaluator.rows[0].box_iou is None
    assert evaluator.result()["N_acc"] == n_acc


def test_accuracies_count_the_three_states_apart():
    answers: list[Prediction] = [NoTarget(), Invalid("x"), found((0, 0, 4, 4)), found((0, 0, 4, 4)), NoTarget()]
    with_targets = [(sample((0, 0, 4, 4), id=f"t{i}"), answer) for i, answer in enumerate(answers)]
    without = [(sample(id=f"n{i}"), answer) for i, answer in enumerate(answers)]
    result = evaluate(*with_targets, *without).result()
    assert (result["N_acc"], result["T_acc"]) == (2 / 5, 2 / 5)
    assert (result["n_found"], result["n_no_target"], result["n_invalid"]) == (4, 4, 2)
    assert result["invalid_rate"] == 0.2
    assert result["gIoU"] == (2 + 2) / 10  # two exact masks, two right no-targets
    assert result["Acc@0.5"] == result["Pr@0.9"] == 2 / 5


def test_half_a_box_is_not_accurate_but_half_a_mask_is_precise():
    result = evaluate((sample((0, 0, 4, 4)), found((0, 0, 8, 4)))).result()
    assert result["box_iou"] == 0.5
    assert result["Acc@0.5"] == 0.0  # REC: above one half
    assert result["Pr@0.5"] == 1.0  # RES: one half or above


def test_box_score_of_sets():
    two = sample((0, 0, 4, 4), (10, 10, 14, 14))
    assert box_score(two, found((10, 10, 14, 14), (0, 0, 4, 4))) == 1.0
    assert box_score(two, found((0, 0, 4, 4))) == 0.5
    assert box_score(two, found((0, 0, 4, 4), (0, 0, 4, 4), (0, 0, 4, 4), (10, 10, 14, 14))) == 0.5
    assert box_score(two, NoTarget()) == box_score(two, Invalid("x")) == 0.0
    assert box_score(sample(), NoTarget()) is None


def test_small_masks_count_as_no_target_only_when_asked():
    asked, answer = sample(), found((0, 0, 7, 7))
    assert evaluate((asked, answer)).result()["N_acc"] == 0.0
    assert evaluate((asked, answer), empty_pixels=49).result()["N_acc"] == 0.0
    fifty = evaluate((asked, answer), empty_pixels=50)
    assert (fifty.result()["N_acc"], fifty.rows[0].iou, fifty.rows[0].state) == (1.0, 1.0, "no_target")
    assert fifty.result()["empty_pixels"] == 50


def test_order_changes_no_digit():
    answers = random_answers(300, seed=3)
    forwards, backwards = evaluate(*answers).result(), evaluate(*answers[::-1]).result()
    assert json.dumps(forwards) == json.dumps(backwards)


def test_without_a_decoder_boxes_are_scored_and_masks_are_not():
    boxes_only = Found((Instance((0.0, 0.0, 4.0, 4.0)),))
    result = evaluate((sample((0, 0, 4, 4), id="a"), boxes_only), (sample(id="b"), NoTarget())).result()
    assert result["Acc@0.5"] == 1.0
    assert result["gIoU"] is result["cIoU"] is result["Pr@0.5"] is None


def test_box_only_data_has_no_mask_figures():
    asked = Sample("0", IMAGE, HEIGHT, WIDTH, "it", (Target((0.0, 0.0, 4.0, 4.0)),))
    result = evaluate((asked, found((0, 0, 4, 4)))).result()
    assert (result["gIoU"], result["box_iou"]) == (None, 1.0)
    assert overlap(asked, masks.empty(HEIGHT, WIDTH)) is None


def test_every_sample_is_accounted_for():
    evaluator = Evaluator(n_expected=3)
    evaluator.add(sample((0, 0, 4, 4), id="a"), Invalid("x"), None, tokens=7)
    evaluator.add(sample(id="b"), NoTarget(), masks.empty(HEIGHT, WIDTH), tokens=2)
    result = evaluator.result()
    assert (result["n_expected"], result["n_scored"], result["n_invalid"]) == (3, 2, 1)
    assert result["mean_tokens"] == 4.5
    evaluator.expect(2)
    assert evaluator.result()["n_expected"] == 2
    with pytest.raises(ValueError, match="sample a is scored twice"):
        evaluator.add(sample(id="a"), NoTarget(), None)


def test_no_sample_gives_no_figure():
    result = Evaluator().result()
    assert result["n_scored"] == 0
    assert result["gIoU"] is result["cIoU"] is result["N_acc"] is result["T_acc"] is result["invalid_rate"] is None


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="'liza' is unknown; the protocols are lisa"):
        Evaluator(protocol="liza")
    with pytest.raises(ValueError, match="drop, background, target"):
        Evaluator(ignore="skip")  # type: ignore[arg-type]


def test_a_mask_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"sample 0: the predicted mask is \[5, 5\]"):
        Evaluator().add(sample((0, 0, 4, 4)), found((0, 0, 4, 4)), masks.empty(5, 5))
    bad = Sample("0", IMAGE, HEIGHT, WIDTH, "it", ignore=masks.empty(5, 5))
    with pytest.raises(ValueError, match="the ignore mask"):
        Evaluator().add(bad, NoTarget(), None)

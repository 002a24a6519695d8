"""What each reward pays, to the table in rewards/README.md, and that no blanket policy out-earns one that looks."""

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from rewards.box_iou import box_iou
from rewards.format import format as format_reward
from rewards.mask_iou import mask_iou
from rewards.no_target import no_target
from segmentation import masks
from segmentation.data.scenes import Scenes
from segmentation.metrics import Evaluator
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample, Target, prediction_mask

SIZE = 20
REWARDS = {"format": format_reward, "box_iou": box_iou, "mask_iou": mask_iou, "no_target": no_target}


def box(x1: float, y1: float, x2: float, y2: float) -> Instance:
    return Instance((x1, y1, x2, y2), masks.from_box((x1, y1, x2, y2), SIZE, SIZE))


def sample(*instances: Instance) -> Sample:
    targets = tuple(Target(instance.box, instance.mask) for instance in instances if instance.box)
    return Sample("s", Image.new("RGB", (SIZE, SIZE)), SIZE, SIZE, "it", targets)


def pay(predictions: Sequence[Prediction], samples: Sequence[Sample]) -> dict[str, list[float | None]]:
    painted = [prediction_mask(p, s.height, s.width) for p, s in zip(predictions, samples, strict=True)]
    return {name: reward(predictions, samples, painted) for name, reward in REWARDS.items()}


@pytest.mark.parametrize(
    ("targeted", "prediction", "expected"),
    [
        (True, Found((box(0, 0, 10, 5),)), {"format": 1.0, "box_iou": 0.5, "mask_iou": 0.5, "no_target": None}),
        (True, NoTarget(), {"format": 1.0, "box_iou": 0.0, "mask_iou": 0.0, "no_target": None}),
        (True, Invalid("x"), {"format": 0.0, "box_iou": 0.0, "mask_iou": 0.0, "no_target": None}),
        (False, Found((box(0, 0, 10, 5),)), {"format": 1.0, "box_iou": None, "mask_iou": None, "no_target": 0.0}),
        (False, NoTarget(), {"format": 1.0, "box_iou": None, "mask_iou": None, "no_target": 1.0}),
        (False, Invalid("x"), {"format": 0.0, "box_iou": None, "mask_iou": None, "no_target": 0.0}),
    ],
)
def test_each_state_is_paid_as_the_table_says(targeted: bool, prediction: Prediction, expected: dict):
    asked = sample(box(0, 0, 10, 10)) if targeted else sample()
    assert {name: values[0] for name, values in pay([prediction], [asked]).items()} == expected


def test_function_names_are_the_keys():
    assert {name: reward.__name__ for name, reward in REWARDS.items()} == {name: name for name in REWARDS}


def test_batches_keep_their_order_and_unknown_columns_are_welcome():
    predictions = [Found((box(0, 0, 10, 10),)), NoTarget(), Invalid("x"), NoTarget()]
    samples = [sample(box(0, 0, 10, 10)), sample(), sample(), sample(box(0, 0, 10, 10))]
    painted = [prediction_mask(prediction, SIZE, SIZE) for prediction in predictions]
    assert box_iou(predictions, samples, painted, completions=["..."] * 4) == [1.0, None, None, 0.0]
    assert no_target(predictions, samples, painted, completions=["..."] * 4) == [None, 1.0, 0.0, None]


@pytest.mark.parametrize("reward", [box_iou, mask_iou, no_target])
def test_a_batch_of_unequal_lengths_is_a_bug(reward):
    with pytest.raises(ValueError, match=r"zip\(\)"):
        reward([NoTarget(), NoTarget()], [sample()], [None, None])


def test_several_boxes_are_matched_and_superfluous_ones_cost():
    asked = sample(box(0, 0, 4, 4), box(10, 10, 14, 14))
    right, wrong = (box(10, 10, 14, 14), box(0, 0, 4, 4)), box(15, 15, 19, 19)
    answers = [Found(right), Found(right[:1]), Found((*right, wrong)), Found((right[0], right[0]))]
    assert pay(answers, [asked] * 4)["box_iou"] == pytest.approx([1.0, 1 / 2, 2 / 3, 1 / 2])


def test_overlapping_instances_are_painted_once():
    (value,) = pay([Found((box(0, 0, 6, 10), box(4, 0, 10, 10)))], [sample(box(0, 0, 10, 10))])["mask_iou"]
    assert value == 1.0


def test_ignored_pixels_neither_pay_nor_cost():
    asked = sample(box(0, 0, 10, 10))
    with_ignore = Sample(
        "s", asked.image, SIZE, SIZE, "it", asked.targets, ignore=masks.from_box((10, 0, 20, 20), SIZE, SIZE)
    )
    answer = Found((box(0, 0, 20, 10),))
    assert pay([answer, answer], [asked, with_ignore])["mask_iou"] == [0.5, 1.0]


def test_rewards_are_what_the_metric_says():
    rng = np.random.default_rng(0)
    for asked in Scenes("val", length=60):
        corners = np.sort(rng.integers(0, 60, size=(rng.integers(1, 4), 2, 2)), axis=1).reshape(-1, 4)
        corners[:, 2:] += 4
        instances = (Instance((*map(float, c),), masks.from_box(c, 64, 64)) for c in corners)  # type: ignore[arg-type]
        answer = Found(tuple(instances))
        row = Evaluator().add(asked, answer, prediction_mask(answer, 64, 64))
        paid = pay([answer], [asked])
        assert paid["box_iou"] == [row.box_iou]
        assert paid["mask_iou"] == ([row.iou] if asked.targets else [None])


def test_the_truth_earns_everything_and_blanket_answers_less():
    samples = list(Scenes("val", length=120))
    shares = {bool(asked.targets) for asked in samples}
    assert shares == {True, False}
    whole = Found((Instance((0.0, 0.0, 64.0, 64.0), masks.from_box((0, 0, 64, 64), 64, 64)),))

    def truth(asked: Sample) -> Prediction:
        return Found(tuple(Instance(t.box, t.mask) for t in asked.targets)) if asked.targets else NoTarget()

    def earned(policy) -> float:
        paid = pay([policy(asked) for asked in samples], samples)
        return sum(value for values in paid.values() for value in values if value is not None)

    best = earned(truth)
    everything = sum(4 - 1 if asked.targets else 2 for asked in samples)
    assert best == pytest.approx(everything)
    for blanket in (NoTarget(), whole, Invalid("x")):
        assert earned(lambda asked, blanket=blanket: blanket) < 0.55 * best


def test_box_only_samples_have_no_mask_reward():
    asked = Sample("s", Image.new("RGB", (SIZE, SIZE)), SIZE, SIZE, "it", (Target((0.0, 0.0, 4.0, 4.0)),))
    paid = pay([Found((Instance((0.0, 0.0, 4.0, 4.0)),)), NoTarget()], [asked, asked])
    assert paid["mask_iou"] == [None, None]
    assert paid["box_iou"] == [1.0, 0.0]


def test_a_missing_decoder_is_a_crash():
    with pytest.raises(ValueError, match="sample s has boxes and no mask; configure a decoder"):
        mask_iou([Found((Instance((0.0, 0.0, 4.0, 4.0)),))], [sample(box(0, 0, 4, 4))], [None])


def test_a_painted_mask_of_nothing_earns_nothing():
    nothing = masks.empty(SIZE, SIZE)
    target = Target((0.0, 0.0, 1.0, 1.0), nothing)  # an annotation of no pixel
    asked = Sample("s", Image.new("RGB", (SIZE, SIZE)), SIZE, SIZE, "it", (target,))
    assert mask_iou([Found((Instance((0.0, 0.0, 1.0, 1.0), nothing),))], [asked], [nothing]) == [0.0]

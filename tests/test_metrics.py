"""The evaluator against cases worked by hand, under LISA's rule; `test_protocols.py` has the formulas of all."""

import json

import pytest

from segmentation import masks
from segmentation.metrics import Evaluator, Ignore, box_score, overlap
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample, Target, prediction_mask
from tests.answers import HEIGHT, IMAGE, WIDTH, Answer, found, random_answers, rectangle, sample

IGNORES: tuple[Ignore, ...] = ("drop", "background", "target")


def evaluate(*answers: Answer, **options) -> Evaluator:
    evaluator = Evaluator(**options)
    for asked, answer in answers:
        evaluator.add(asked, answer, prediction_mask(answer, HEIGHT, WIDTH))
    return evaluator


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

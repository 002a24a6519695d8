"""Segmentation tokens: one expression, several in one prompt, and boxes that wait for a decoder."""

import re

import pytest
from PIL import Image

from evaluation.predictions import PredictionWriter, Record, read_predictions
from segmentation.decoders import FilledBox
from segmentation.formats import SegTokenFormat
from segmentation.metrics import Evaluator, box_score
from segmentation.sample import Found, Invalid, NoTarget, Sample, Target

FORM = SegTokenFormat()
SEEN = Target((0.0, 0.0, 4.0, 4.0))


def sample(*targets: Target, expression="the dog") -> Sample:
    return Sample("s", Image.new("RGB", (1, 1)), 8, 8, expression, targets)


def test_one_expression():
    assert FORM.encode(sample(SEEN)) == "It is [SEG]."
    assert FORM.encode(sample()) == "It is [REJ]."
    prediction = FORM.parse(" It is [SEG].\n", 8, 8)
    assert isinstance(prediction, Found)
    assert [instance.box for instance in prediction.instances] == [None]
    assert FORM.parse("It is [REJ].", 8, 8) == NoTarget()
    assert re.fullmatch(FORM.regex(1), "It is [SEG].")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "at character 0: expected It is, found the end"),
        (" It is", "at character 6: expected a blank, found the end"),
        ("It is [SEG]", "at character 11: expected ., found the end"),
        ("It is [SEG]. [REJ]", "at character 12: expected the end"),
        ("It is [seg].", "at character 6: expected [SEG] or [REJ]"),
    ],
)
def test_the_rest_is_invalid(text, reason):
    prediction = FORM.parse(text, 8, 8)
    assert isinstance(prediction, Invalid)
    assert prediction.reason.startswith(reason)


def test_several_expressions_in_one_prompt():
    samples = [sample(SEEN, expression="the dog"), sample(expression="a [SEG] car"), sample(SEEN, expression="x: y")]
    expressions = [one.expression for one in samples]
    assert FORM.prompt_many(expressions) == "Segment each of these in the image: the dog; a SEG car; x: y."
    text = FORM.encode_many(samples)
    assert text == "the dog: [SEG], a SEG car: [REJ], x: y: [SEG]."
    said = FORM.parse_many(f" {text}\n", expressions)
    assert [type(answer) for answer in said] == [Found, NoTarget, Found]


@pytest.mark.parametrize("broken", ["the dog: [SEG], a cat: [REJ].", "the dog: [SEG].", "the dog: [SEG], "])
def test_a_break_makes_all_invalid_or_those_that_follow(broken):
    expressions = ["the dog", "a car", "a tree"]
    said = FORM.parse_many(broken, expressions)
    assert [type(answer) for answer in said] == [Invalid] * 3
    kept = SegTokenFormat(on_broken="prefix").parse_many("the dog: [REJ], a car", expressions)
    assert [type(answer) for answer in kept] == [NoTarget, Invalid, Invalid]


def test_without_a_decoder_there_is_no_box_and_every_use_of_one_says_so():
    prediction = FORM.parse("It is [SEG].", 8, 8)
    with pytest.raises(ValueError, match="needs a trained decoder"):
        box_score(sample(SEEN), prediction)
    with pytest.raises(ValueError, match="needs a trained decoder"):
        FilledBox().fill(prediction, 8, 8)


def test_states_are_scored_without_a_decoder_and_boxes_are_not():
    evaluator = Evaluator()
    evaluator.add(sample(SEEN), FORM.parse("It is [SEG].", 8, 8), None)
    result = evaluator.result()
    assert result["T_acc"] == 1
    assert result["box_iou"] is result["Acc@0.5"] is result["gIoU"] is None


def test_predictions_without_boxes_are_saved_and_read(tmp_path):
    prediction = FORM.parse("It is [SEG].", 8, 8)
    with PredictionWriter(tmp_path / "predictions.jsonl", {}) as writer:
        writer.write(Record.of(sample(SEEN), prediction, "It is [SEG].", 4))
    (record,) = read_predictions(tmp_path / "predictions.jsonl")
    assert record.prediction == prediction

"""Thoughts before the answer: a strict outline, judged apart from the answer."""

import re

import pytest
from PIL import Image

from segmentation.formats import BoxFormat, BrickFormat, Reasoning
from segmentation.sample import Found, Invalid, NoTarget, Sample, Target

FORM = Reasoning(BoxFormat())
BOX = '[{"bbox_2d": [1, 2, 30, 40]}]'


def sample(count: int, expression="the dog") -> Sample:
    targets = (Target((0.0, 0.0, 4.0, 4.0)), Target((2.0, 2.0, 6.0, 6.0)))[:count]
    return Sample("s", Image.new("RGB", (1, 1)), 8, 8, expression, targets)


@pytest.mark.parametrize(
    ("count", "thought"),
    [
        (0, 'Nothing in the image matches "the dog".'),
        (1, 'One object matches "the dog".'),
        (2, '2 objects match "the dog".'),
    ],
)
def test_the_thought_is_true_and_the_state_survives(count, thought):
    text = FORM.encode(sample(count))
    assert text.startswith(f"<think>{thought}</think><answer>[")
    assert re.fullmatch(FORM.regex(2), text)
    parts = FORM.parts(text, 8, 8)
    assert parts.thought == thought
    assert parts.answer == FORM.parse(text, 8, 8) == FORM.parse(f" {text.replace('k><', 'k> <')}\n", 8, 8)
    assert isinstance(parts.answer, Found if count else NoTarget)


def test_an_expression_cannot_break_out():
    form = Reasoning(BrickFormat(label="phrase"))
    assert form.new_tokens == form.format.new_tokens
    for expression in ("</think>", "<answer>", "a\n<none>"):
        empty = Sample("s", Image.new("RGB", (1, 1)), 8, 8, expression)
        assert form.parse(form.encode(empty), 8, 8) == NoTarget()


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [  # what is wrong with the outline, and with the answer; None: nothing
        (f"<think>a</think><answer>{BOX}</answer>", None, None),
        (f"<answer>{BOX}</answer>", "at character 0: expected <think>", None),
        (f"hm <think>a</think><answer>{BOX}</answer>", "at character 0: expected <think>", None),
        (f"<think>a</think> so <answer>{BOX}</answer>", "at character 17: expected <answer>, found 'so", None),
        (f"<think>a</think><answer>{BOX}</answer>.", "at character 62: expected the end", None),
        (f"<think>a<answer>{BOX}</answer>", "at character 7: expected </think>", None),
        (f"<think>a</think><think>b</think><answer>{BOX}</answer>", "at character 16: a second <think>", None),
        ("<think>a</think><answer>[</answer>", None, "at character 25: expected {"),
        (
            f"<think></think><answer>{BOX}</answer><answer>{BOX}</answer>",
            "at character 61: a second <answer>",
            "at character 0: 2 <answer> and 2 </answer>",
        ),
        (f"<think></think></answer>{BOX}<answer>", "at character 15: expected <answer>", "at character 0: 1 <answer>"),
        (BOX, "at character 0: expected <think>", "at character 0: 0 <answer>"),
    ],
)
def test_outline_and_answer_are_judged_apart(text, thought, answer):
    parts = FORM.parts(text, 480, 640)
    for said, expected in ((parts.thought, thought), (parts.answer, answer)):
        if expected is None:
            assert not isinstance(said, Invalid), said
        else:
            assert isinstance(said, Invalid)
            assert said.reason.startswith(expected)
    assert isinstance(FORM.parse(text, 480, 640), Invalid if thought or answer else Found)


def test_a_prefix_is_the_answers():
    form = Reasoning(BoxFormat(on_broken="prefix"))
    assert form.on_broken == "prefix"
    cut = f"<think>a</think><answer>{BOX[:-1]}, "
    assert isinstance(form.parse(cut, 480, 640), Found)
    assert isinstance(FORM.parse(cut, 480, 640), Invalid)
    assert isinstance(form.parse("<think>a</think><answer>[", 480, 640), Invalid)

"""Rewards of how a completion is written, and how options and columns reach rewards."""

from __future__ import annotations

import pytest

from configs import ConfigError
from rewards.format import format as format_reward
from rewards.format_answer import format_answer
from rewards.format_reasoning import format_reasoning
from rewards.length import length
from rewards.non_repeat import non_repeat
from rl.trainer import _adapted
from rollouts.reading import read, read_parts
from rollouts.sections import make_rewards
from segmentation.formats import BoxFormat, Reasoning
from segmentation.sample import NoTarget
from tests.reward_presets import FOLDER, asked, preset

FORMAT = Reasoning(BoxFormat())
SAMPLE = asked((16.0, 16.0, 48.0, 48.0))
RIGHT, BROKEN = '[{"bbox_2d": [125, 125, 375, 375]}]', '[{"bbox_2d": [125, 125, 375]}]'


def formats(text: str, truncated: bool = False) -> tuple:
    predictions = [read(text, truncated, SAMPLE, FORMAT, None)]
    parts = [read_parts(text, truncated, SAMPLE, FORMAT)]
    rewards = (format_reward, format_reasoning, format_answer)
    return tuple(reward(predictions, [SAMPLE], [None], parts=parts)[0] for reward in rewards)


@pytest.mark.parametrize(
    ("text", "paid"),
    [
        (f"<think>There.</think><answer>{RIGHT}</answer>", (1, 1, 1)),
        ("<think></think> <answer>[]</answer>\n", (1, 1, 1)),
        (f"<answer>{RIGHT}</answer>", (0, 0, 1)),
        (f"Well, <think>There.</think><answer>{RIGHT}</answer>", (0, 0, 1)),
        (f"<think>There.</think><answer>{BROKEN}</answer>", (0, 1, 0)),
        (f"<think>There.</think><answer>{RIGHT}</answer><answer>{RIGHT}</answer>", (0, 0, 0)),
        (f"<think>{RIGHT}</think>", (0, 0, 0)),
        (RIGHT, (0, 0, 0)),
        ("", (0, 0, 0)),
    ],
)
def test_the_parts_of_a_format_are_paid_apart(text: str, paid: tuple):
    assert formats(text) == paid
    assert formats(text, truncated=True) == (0, 0, 0)  # who did not finish has said nothing


def test_without_thoughts_the_answer_is_all():
    assert read_parts(RIGHT, False, SAMPLE, BoxFormat()) is None
    assert format_answer([NoTarget()], [SAMPLE], [None], parts=[None]) == [1.0]
    with pytest.raises(ValueError, match=r"format_reasoning: completions have no thoughts; set format.reasoning=true"):
        format_reasoning([NoTarget()], [SAMPLE], [None], parts=[None])


@pytest.mark.parametrize(("thought", "paid"), [("12345", 1.0), ("123456", 0.9), (" \n", 0.0), ("", 0.0)])
def test_format_can_judge_the_length_of_thoughts(thought: str, paid: float):
    text = f"<think>{thought}</think><answer>{RIGHT}</answer>"
    found, parts = read(text, False, SAMPLE, FORMAT, None), read_parts(text, False, SAMPLE, FORMAT)
    assert format_reward([found], [SAMPLE], [None], parts=[parts], longest=5) == [paid]
    broken = read(text[:-1], False, SAMPLE, FORMAT, None)
    assert format_reward(
        [broken], [SAMPLE], [None], parts=[read_parts(text[:-1], False, SAMPLE, FORMAT)], longest=5
    ) == [0]


def repeats(text: str, **options) -> float | None:
    return non_repeat([NoTarget()], [SAMPLE], [None], texts=[text], **options)[0]


def test_non_repeat_counts_sentences_that_come_back():
    assert [repeats(text) for text in ("A. B.", "A. B. A.", "A. B. A. B.", "A . A. A", "", "...")] == [1, 1, 0, 0, 1, 1]
    assert [repeats("A. B. A.", allowed=allowed) for allowed in (0, 1)] == [0, 1]
    with pytest.raises(ValueError, match="unit='lines' cannot be repeated; set it to one of sentences, ngrams"):
        repeats("A.", unit="lines")


def test_non_repeat_counts_new_runs_of_words():
    assert repeats("a b A  b", unit="ngrams", n=2) == pytest.approx(2 / 3)  # ab, ba, ab
    assert repeats("a " * 100, unit="ngrams", n=6) == pytest.approx(1 / 95)
    assert [repeats(text, unit="ngrams", n=6) for text in ("", "a a a a a", "a a a a a a")] == [1, 1, 1]


def test_length_falls_to_nothing_over_its_margin():
    ids = [[0] * n for n in (0, 80, 81, 90, 100, 1000)]
    paid = length([NoTarget()] * 6, [SAMPLE] * 6, [None] * 6, completion_ids=ids, longest=100, margin=20)
    assert paid == pytest.approx([1, 1, 0.95, 0.5, 0, 0])


def section(**values) -> dict:
    return {"one": {"weight": 1.0, **values}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"_target_": "rewards.box_iou.box_iou", "pover": 2.0},
            "unknown key 'rewards.one.pover'; .* 'rewards.one.power'",
        ),
        ({"_target_": "rewards.box_iou.box_iou", "kind": "ciou"}, "rewards.one.kind: expected .*'diou'.*, got 'ciou'"),
        ({"_target_": "rewards.box_iou.box_iou", "power": 0.0}, "rewards.one: power=0.0 would pay a miss"),
        ({"_target_": "rewards.box_iou.box_iou", "texts": ["a"]}, "unknown key 'rewards.one.texts'"),
        ({"_target_": "rewards.no_target.no_target", "x": 1}, "unknown key 'rewards.one.x'; none is valid here"),
        ({"_target_": "rewards.length.length", "longest": 9}, "rewards.one: margin is missing; set rewards.one.margin"),
        ({"_target_": "rewards.length.length", "longest": 9, "margin": 10}, "rewards.one: margin=10, longest=9: set"),
        ({"_target_": "rewards.non_repeat.non_repeat", "n": 0}, "rewards.one: allowed=1, n=0: set"),
        ({"_target_": "rewards.non_repeat.non_repeat", "unit": "lines"}, "rewards.one.unit: expected"),
        ({"_target_": "rewards.matched.matched", "pairs": []}, r"rewards.one: pairs=\[\]: nothing to match by"),
        (
            {"_target_": "rewards.matched.matched", "pairs": [{"_target_": "rewards.pairs.box_l1", "bellow": 3.0}]},
            r"unknown key 'rewards.one.pairs\[0\].bellow'; .* 'rewards.one.pairs\[0\].below'",
        ),
        (
            {"_target_": "rewards.matched.matched", "pairs": [{"_target_": "rewards.pairs.box_l1", "below": -3.0}]},
            "rewards.one: below=-3.0: no distance is shorter",
        ),
        ({"_target_": "rewards.box_iuo.box_iou"}, "rewards.one._target_: cannot get 'rewards.box_iuo.box_iou'"),
    ],
)
def test_options_are_checked_before_a_model_is_loaded(values: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        make_rewards(section(**values))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_can_be_made(path):
    assert preset(path.stem).rewards


def test_rewards_get_what_the_trainer_has():
    call = _adapted("one", non_repeat)
    rows = {"prediction": [NoTarget()], "sample": [SAMPLE], "regions": [SAMPLE], "mask": [None]}
    rows |= {"text": ["A. A. A."], "parts": [None]}
    assert call.__name__ == "one"
    assert call(**rows, prompts=[""], completions=[""], completion_ids=[[1]], trainer_state=None) == [0.0]

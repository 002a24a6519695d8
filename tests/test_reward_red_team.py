"""No completion that does not say where the target is comes near the one that does; the known holes are listed.

pytest tests/test_reward_red_team.py -s -k table    # prints the table of rewards/README.md
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from rewards import __file__ as rewards_file
from segmentation.boxes import Box
from segmentation.formats import BoxFormat, BrickFormat, DescriptorFormat, Format, Reasoning, SegTokenFormat
from segmentation.sample import Sample
from tests.reward_presets import FORMATS, SIZE, Preset, asked, preset

SMALL: Box = (16.0, 16.0, 48.0, 48.0)
OTHER: Box = (80.0, 64.0, 112.0, 112.0)
LARGE: Box = (16.0, 32.0, 112.0, 96.0)  # 3/8 of the picture
MEANT = {"one": (SMALL,), "two": (SMALL, OTHER), "large": (LARGE,), "none": ()}
WRONG: tuple[Box, ...] = ((64.0, 0.0, 96.0, 16.0), (16.0, 112.0, 32.0, 128.0))

# What earns more than half, in percent of the honest answer; rewards/README.md says why.
HOLES: dict[str, dict[str, int]] = {
    "seg_zero": {"far outside": 60},
    "vision_reasoner": {
        "whole image": 57,
        "64 boxes everywhere": 57,
        "another place": 57,
        "right and wrong": 79,
        "every object twice": 79,
        "every object ten times": 61,
        "right and ten scraps": 64,
        "in four pieces": 57,
        "a dot inside": 57,
        "right in thoughts, wrong answer": 57,
        "far outside": 71,
        "no target": 57,
        "a target": 57,
    },
    "vlm_r1": {
        "whole image": 69,
        "right and wrong": 75,
        "every object twice": 75,
        "every object ten times": 55,
        "right and ten scraps": 58,
        "in four pieces": 53,
        "far outside": 69,
    },
    "coprs": {"whole image": 59},
    "seg_r1": {
        "whole image": 66,
        "another place": 58,
        "right and wrong": 62,
        "every object twice": 62,
        "right and ten scraps": 51,
        "in four pieces": 53,
        "a dot inside": 58,
        "right in thoughts, wrong answer": 58,
        "far outside": 66,
        "100k of talk, wrong answer": 58,
    },
    "visual_rft": {"right and wrong": 67, "every object twice": 67},
}


def tiles(box: Box, a_side: int) -> list[Box]:
    x1, y1, x2, y2 = box
    w, h = (x2 - x1) / a_side, (y2 - y1) / a_side
    places = [(x1 + column * w, y1 + row * h) for column in range(a_side) for row in range(a_side)]
    return [(x, y, x + w, y + h) for x, y in places]


def scraps(box: Box, how_many: int) -> list[Box]:
    """Boxes of 2 x 2 pixels inside the box."""
    x, y = box[:2]
    return [(x + 2 * i, y, x + 2 * i + 2, y + 2) for i in range(how_many)]


def written(format: Format, *boxes: Box) -> str:
    return format.encode(asked(*boxes))


def answer_of(format: Format, sample: Sample) -> str:
    """The answer alone, without thoughts."""
    return (format.format if isinstance(format, Reasoning) else format).encode(sample)


def within(format: Format, thought: str, answer: str) -> str:
    return f"<think>{thought}</think><answer>{answer}</answer>" if isinstance(format, Reasoning) else answer


def adversaries(format: Format, sample: Sample) -> Iterator[tuple[str, str, bool]]:
    """Their names, their texts, and whether the text was cut off."""
    boxes = [target.box for target in sample.targets] or [SMALL]
    honest, answer, wrong = format.encode(sample), answer_of(format, sample), answer_of(format, asked(WRONG[0]))
    yield "whole image", written(format, (0.0, 0.0, SIZE, SIZE)), False
    yield "64 boxes everywhere", written(format, *tiles((0.0, 0.0, SIZE, SIZE), 8)), False
    yield "another place", within(format, "It is here", wrong), False
    yield "right and wrong", written(format, *boxes, *WRONG[: len(boxes)]), False
    yield "every object twice", written(format, *boxes * 2), False
    yield "every object ten times", written(format, *boxes * 10), False
    yield "right and ten scraps", written(format, *boxes, *scraps(boxes[0], 10)), False
    yield "in four pieces", written(format, *[tile for box in boxes for tile in tiles(box, 2)]), False
    yield "a dot inside", written(format, *[scrap for box in boxes for scrap in scraps(box, 1)]), False
    yield "the prompt again", format.prompt(sample.expression), False
    yield "A or B", within(format, "One of them", f"{answer} or {wrong}"), False
    yield "two answers", f"{honest}{within(format, 'Or else', wrong)} {wrong}", False
    yield "right in thoughts only", f"<think>{answer}</think><answer></answer>", False
    yield "right in thoughts, wrong answer", within(format, f"Not {answer}, but".replace("<", "("), wrong), False
    yield "thoughts, no answer", f"<think>{answer}</think>", False
    yield "placeholders", within(format, "your reasoning text", "your answer here"), False
    yield "template", within(format, "...", re.sub("[0-9]+", "x", answer) if sample.targets else "<...>"), False
    yield "empty", "", False
    yield "empty tags", "<think></think><answer></answer>", False
    yield "blanks", " \n\t" * 20, False
    yield "half", honest[: len(honest) // 2], True
    yield "not ended", honest, True
    for name, number in {"nan": "NaN", "huge": "9" * 400, "exponent": "1e999", "infinite": "Infinity"}.items():
        yield f"{name} number", _with_number(format, number), False
    yield "far outside", _with_box(format, "[-99999, -99999, 99999, 99999]"), False
    yield "negative side", _with_box(format, "[300, 300, -300, -300]"), False
    yield "unicode digits", _with_number(format, "\u0663\u0667"), False
    yield "100k of talk", within(format, "and so on. " * 9091, "and so on. " * 9091), False
    yield "100k of talk, wrong answer", within(format, "and so on. " * 9091, wrong), False
    yield "100k of brackets", within(format, "", '[{"bbox_2d":' * 8334), False
    yield "nested thoughts", f"<think><think>{honest}</think></think><answer>{answer}</answer>", False
    yield "nested answers", f"<think></think><answer><answer>{answer}</answer></answer>", False
    yield "nested objects", within(format, "", f"[{answer}]" if "[" in answer else f"<seg>{answer}</seg>"), False
    if isinstance(format, BrickFormat):
        yield "a giant run", re.sub("<seg>.*?</seg>", "<seg><fg4096></seg>", written(format, *boxes)), False
        yield "a run too long", re.sub("<seg>.*?</seg>", f"<seg>{'<fg64>' * 64}</seg>", written(format, SMALL)), False
    yield (
        ("no target", format.encode(asked()), False) if sample.targets else ("a target", written(format, SMALL), False)
    )


def _with_number(format: Format, number: str) -> str:
    return within(format, "", re.sub("[0-9]+(?=[,\\] ])", number, answer_of(format, asked(SMALL)), count=1))


def _with_box(format: Format, box: str) -> str:
    answer = answer_of(format, asked(SMALL))
    if isinstance(format, BrickFormat):
        return within(format, "", re.sub(r"\[\[.*?\]\]", f"[{box.replace(',', '')}]", answer))
    return within(format, "", re.sub(r"(?<=\"bbox_2d\": )\[.*?\]", box, answer))


CASES = {**{name: (name, None) for name in FORMATS}, "default, bricks": ("default", BrickFormat())}


@cache
def percent(case: str) -> dict[str, dict[str, float]]:
    """What adversaries earn of each kind of sample, in percent of the honest answer."""
    name, format = CASES[case]
    paid = preset(name, format)
    table: dict[str, dict[str, float]] = {}
    for kind, boxes in MEANT.items():
        sample = asked(*boxes)
        honest = paid.total(paid.format.encode(sample), sample)
        assert honest == pytest.approx(_all(paid, bool(boxes)), abs=1e-3), "the honest answer earns everything"
        for adversary, text, truncated in adversaries(paid.format, sample):
            table.setdefault(adversary, {})[kind] = 100 * paid.total(text, sample, truncated) / honest
    return table


def _all(paid: Preset, targets: bool) -> float:
    """The sum of the weights that apply."""
    rows = zip(paid.rewards, paid.weights, paid.paid, strict=True)
    always = {"format", "format_answer", "format_reasoning", "non_repeat"}
    return sum(w for name, w, to in rows if to != "mask" and (name in always or (name == "no_target") != targets))


@pytest.mark.parametrize("case", CASES)
def test_the_honest_answer_wins_and_no_other_reaches_half_but_the_known(case: str):
    worst = {adversary: max(kinds.values()) for adversary, kinds in percent(case).items()}
    assert max(worst.values()) < 100
    assert {adversary: round(share) for adversary, share in worst.items() if round(share) > 50} == HOLES.get(case, {})


@pytest.mark.parametrize("boxes", [(SMALL, OTHER), (LARGE, WRONG[1]), (*WRONG, LARGE)])
def test_where_all_objects_are_one_region_the_right_text_earns_everything(boxes: tuple[Box, ...]):
    paid, sample = preset("default", DescriptorFormat(resize="nearest")), asked(*boxes)
    honest = paid.total(paid.format.encode(sample), sample)
    assert honest == pytest.approx(_all(paid, True), abs=1e-3)
    for box in boxes:
        assert paid.total(paid.format.encode(asked(box)), sample) < 0.9 * honest
    labels = iter("abc")
    split = re.sub(r"the red cup", lambda _: next(labels, "c"), paid.format.encode(sample))
    assert "a *" in split and paid.total(split, sample) == honest
    assert SegTokenFormat().regions(sample) == paid.format.regions(sample)
    for each in (BoxFormat(), BrickFormat(), Reasoning(BoxFormat())):
        assert each.regions(sample) is sample


def test_a_hundred_thousand_characters_cost_no_time():
    paid = preset("vision_reasoner")
    sample = asked(SMALL)
    texts = [text for _, text, _ in adversaries(paid.format, sample) if len(text) > 90_000]
    assert len(texts) == 3
    started = time.perf_counter()
    for text in texts:
        paid.total(text, sample)
    assert time.perf_counter() - started < 2  # milliseconds on an idle core; quadratic work would be minutes


def markdown() -> str:
    """The table of rewards/README.md: one row an adversary, the worst kind of sample in each cell."""
    rows = [["", *CASES], ["---"] * (len(CASES) + 1)]
    for adversary in dict.fromkeys(adversary for case in CASES for adversary in percent(case)):
        cells = [percent(case).get(adversary) for case in CASES]
        rows.append([adversary, *("" if cell is None else f"{max(cell.values()):.0f}" for cell in cells)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def test_the_table_is_the_one_in_the_readme():
    table = markdown()
    print("\n" + table)
    assert table in (Path(rewards_file).parent / "README.md").read_text()

"""Each preset of a peer pays what was published, by hand; where its code misbehaves, what is right (rewards/README.md).

The picture is 840 x 840 and so is the frame of coordinates: a pixel here is a pixel of Seg-Zero's thresholds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from segmentation.boxes import Relative
from segmentation.formats import BoxFormat, Format, Reasoning
from segmentation.sample import Sample
from tests.reward_presets import asked, preset

SIDE = 840
A, B = (100, 100, 300, 300), (500, 500, 700, 700)
Box = tuple[int, int, int, int]
Point = tuple[int, int]


def thinking(point: bool = False, units: int = SIDE) -> Format:
    return Reasoning(BoxFormat(convention=Relative(units), point=point))


def on(*boxes: Box, size: int = SIDE) -> Sample:
    return asked(*((float(a), float(b), float(c), float(d)) for a, b, c, d in boxes), size=size)


def says(*boxes: Box, points: Sequence[Point] = (), thought: str = "There.") -> str:
    objects = [{"bbox_2d": box} | ({"point_2d": points[i]} if points else {}) for i, box in enumerate(boxes)]
    return f"<think>{thought}</think><answer>{json.dumps(objects)}</answer>"


def earns(name: str, text: str, sample: Sample, **options) -> float:
    point = name in ("seg_zero", "vision_reasoner")
    return preset(name, thinking(point, **options)).total(text, sample)


MIDDLE_A, MIDDLE_B = (199, 199), (599, 599)  # the pixels deepest in A and in B
SHORT: Box = (100, 100, 300, 240)  # IoU 0.7 with A, its edges off by 60 / 4 = 15
CLOSE: Box = (100, 100, 300, 261)  # 39 / 4 = 9.75
SHORTER: Box = (100, 100, 300, 180)  # IoU 0.4
HALF: Box = (100, 100, 300, 200)


@pytest.mark.parametrize(
    ("text", "targets", "expected"),
    [
        (says(A, points=[MIDDLE_A]), [A], 5.0),
        (says(SHORT, points=[(200, 150)]), [A], 4.0),  # all but L1
        (says(CLOSE, points=[(200, 150)]), [A], 5.0),
        (says((100, 100, 300, 260), points=[MIDDLE_A]), [A], 4.0),  # 40 / 4 is not less than 10
        (says(SHORTER, points=[(200, 250)]), [A], 2.0),  # the point is near, but not in the box that was said
        (says(A, points=[(290, 290)]), [A], 4.0),  # 91 pixels off along each side: 129
        ("<think>" + says(A, points=[MIDDLE_A]), [A], 1.0),  # a second <think>; as written, 5
        (says(A, points=[MIDDLE_A]).partition("</think>")[2], [A], 1.0),  # the answer's form alone; as written, 4
        (says(A), [A], 1.0),  # no point: the outline alone; as written, 3
        (says(A, B, points=[MIDDLE_A, MIDDLE_B]), [A, B], 5.0),
        (says(A, points=[MIDDLE_A]), [A, B], 2 + 3 / 2),  # as written, 5: the first object is all it knows
        (says(A, B, points=[MIDDLE_A, MIDDLE_B]), [A], 2 + 3 / 2 / 4),  # as written, 5
        (says(), [], 5.0),  # as written, 1
        (says(), [A], 2.0),
        (says(A, points=[MIDDLE_A]), [], 2.0),
    ],
)
def test_seg_zero(text: str, targets: list[Box], expected: float):
    assert earns("seg_zero", text, on(*targets)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "targets", "expected"),
    [
        (says(A, points=[MIDDLE_A]), [A], 7.0),
        (says(B, A, points=[MIDDLE_B, MIDDLE_A]), [A, B], 7.0),
        (says(A, points=[MIDDLE_A]), [A, B], 4 + 3 / 2),
        (says(A, B, points=[MIDDLE_A, MIDDLE_B]), [A], 4 + 3 / 2),
        (says(SHORT, points=[(200, 150)]), [A], 4 + 1),  # IoU; 49 pixels are more than 30
        (says(CLOSE, points=[(200, 175)]), [A], 7.0),
        (says(A, B, points=[MIDDLE_B, MIDDLE_A]), [A, B], 4 + 2),  # each point outside its own box
        (says(A, points=[MIDDLE_A], thought="So. A. B. A. A."), [A], 6.0),
        (says(A, points=[MIDDLE_A], thought="So. A. B. A."), [A], 7.0),
        (says(A), [A], 2.0),  # no point: outline and no repeats; as written, 3
        ("", [A], 1.0),  # nothing is repeated
        (says(), [], 7.0),  # as written, 2
        (says(), [A], 4.0),  # well-formed; as written, 2
        (says(A, points=[MIDDLE_A]), [], 4.0),
        ("[]", [], 1.0),
    ],
)
def test_vision_reasoner(text: str, targets: list[Box], expected: float):
    assert earns("vision_reasoner", text, on(*targets)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "targets", "expected"),
    [
        (says(A), [A], 2.0),
        (says(HALF), [A], 1.5),
        (says(HALF) + " I think.", [A], 0.0),  # as written, 1.5: the pattern is searched for
        (says(A), [A, B], 1.5),
        (says(B, A), [A], 1.5),  # as written, 1: the first box is all it reads
        (says(), [], 2.0),
        (says(A), [], 1.0),
        (says(), [A], 1.0),
    ],
)
def test_vlm_r1(text: str, targets: list[Box], expected: float):
    assert earns("vlm_r1", text, on(*targets)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "targets", "expected"),
    [
        (says(A), [A], 3.0),
        (says(HALF), [A], 1 + 1 / 4 + 1 / 4),
        (says(A), [A, B], 1 + 1 / 2 + 1 / 4),  # one of two boxes; half of the pixels, squared
        (says(A, B), [A], 1 + 1 / 2 / 2 + 1 / 4 / 4),  # surplus: once for boxes, twice for masks
        ("<" + says(A), [A], 0.0),  # Perception-R1's pattern pays anything that starts with <
        (says(), [], 3.0),
        (says(A), [], 1.0),
    ],
)
def test_lens(text: str, targets: list[Box], expected: float):
    assert earns("lens", text, on(*targets)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "targets", "expected"),
    [
        (says(A), [A], 1.0),
        (says(HALF), [A], 0.3 + 0.7 * (0.5 / 2 + 0.2 * 2 / 3 + 0.3 / 2)),
        (says(A, thought="x" * 2048), [A], 1.0),
        (says(A, thought="x" * 2049), [A], 0.97),
        (says(A, thought=" "), [A], 0.7),
        (says(A) + says(A), [A], 0.0),
        (says(), [], 1.0),
        (says(), [A], 0.3),
    ],
)
def test_coprs(text: str, targets: list[Box], expected: float):
    assert earns("coprs", text, on(*targets)) == pytest.approx(expected)


def test_seg_r1():
    meant: Box = (0, 0, 2, 4)  # of 4 x 4 pixels; the S-measure of 3 columns is that of tests/test_reward_objects.py
    structure = 0.5 * (0.5 + 0.5 / (1.25 + (2 / 7) ** 0.5)) + 0.5 * 0.55
    small = {"units": 4}
    assert earns("seg_r1", says(meant), on(meant, size=4), **small) == pytest.approx(2.0)
    wide = says((0, 0, 3, 4))
    assert earns("seg_r1", wide, on(meant, size=4), **small) == pytest.approx(1 + 0.7 * 2 / 3 + 0.3 * structure)
    pieces = says((0, 0, 1, 4), (1, 0, 2, 4))
    assert earns("seg_r1", pieces, on(meant, size=4), **small) == pytest.approx(1 + 1 / 4)  # as written, 2
    assert earns("seg_r1", says(), on(size=4), **small) == 2.0
    assert earns("seg_r1", wide, on(size=4), **small) == 1.0


@pytest.mark.parametrize(
    ("text", "targets", "expected"),
    [
        (says(A), [A], 3.0),
        (says(SHORT), [A], 1 + 0.7 + 1),
        (says(HALF), [A], 1.0),  # an IoU of 0.5 is no hit
        (says(SHORT, B), [A], 1 + 0.7 / 2 + 1 / 2),
        (says(SHORT), [A, B], 1 + 0.7 / 2 + 1),
        (says(A, A), [A], 1 + 1 / 2 + 1 / 2),  # as written, 3: copies are taken out first
        ("<answer></answer>", [A], 0.0),  # as written, an empty answer may pass
        (says(), [], 3.0),
        (says(), [A], 1.0),
        (says(A), [], 1.0),
    ],
)
def test_visual_rft(text: str, targets: list[Box], expected: float):
    assert earns("visual_rft", text, on(*targets)) == pytest.approx(expected)


def test_visual_rft_on_lisa_is_one_plus_giou():
    changes = ("box_iou.kind=giou", "box_iou.above=null", "box_iou.weight=2", "confidence.weight=0")
    paid = preset("visual_rft", thinking(), *changes)
    beside: Box = (400, 100, 600, 300)  # C = 500 * 200, U = 2 * 200 * 200
    assert paid.total(says(beside), on(A)) == pytest.approx(1 + 1 - 1 / 5)
    assert paid.total(says(A), on(A)) == pytest.approx(1 + 2)

"""Rewards of boxes, points, masks and counts, held to values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rewards.box_iou import box_iou
from rewards.box_l1 import box_l1
from rewards.confidence import confidence
from rewards.count import count
from rewards.mask_iou import mask_iou
from rewards.matched import matched
from rewards.point_distance import point_distance
from rewards.point_in_box import point_in_box
from rewards.s_measure import s_measure
from segmentation import masks
from segmentation.boxes import Box, diou_matrix, giou_matrix
from segmentation.sample import Found, Instance, Invalid, NoTarget, Sample, Target, prediction_mask
from tests.reward_presets import asked

A: Box = (0.0, 0.0, 10.0, 10.0)
B: Box = (10.0, 10.0, 20.0, 20.0)
FRAME = [840, 840]  # 42 units a pixel of the 20 x 20 pictures here


def found(*boxes: Box, points=None, confidences=None, size: int = 20) -> Found:
    rows = zip(boxes, points or [None] * len(boxes), confidences or [None] * len(boxes), strict=True)
    return Found(tuple(Instance(b, masks.from_box(b, size, size), point=p, confidence=c) for b, p, c in rows))


def pay(reward, prediction, sample: Sample, **options) -> float | None:
    (value,) = reward([prediction], [sample], [prediction_mask(prediction, sample.height, sample.width)], **options)
    return value


def on(*targets: Box, size: int = 20) -> Sample:
    return asked(*targets, size=size)


OPTIONS = {
    box_iou: {"kind": "giou", "power": 2.0, "above": 0.1},
    box_l1: {"below": 5.0},
    point_distance: {"below": 5.0},
    point_in_box: {},
    matched: {"pairs": [lambda found, sample: np.ones((len(found.instances), len(sample.targets)))]},
    mask_iou: {"soft": True, "power": 2.0},
    s_measure: {},
    count: {},
    confidence: {},
}


@pytest.mark.parametrize("reward", OPTIONS)
def test_each_applies_to_samples_with_targets_and_pays_nothing_but_found(reward):
    options = OPTIONS[reward]
    answer = found(A, points=[(4.5, 4.5)])
    assert pay(reward, answer, on(A), **options) == 1.0
    assert [pay(reward, other, on(A), **options) for other in (NoTarget(), Invalid("x"))] == [0.0, 0.0]
    assert [pay(reward, other, on(), **options) for other in (answer, NoTarget(), Invalid("x"))] == [None] * 3


@pytest.mark.parametrize(
    ("box", "giou", "diou"),
    [
        (A, 1.0, 1.0),
        ((10.0, 0.0, 20.0, 10.0), 0.0, -100 / 500),  # side by side: C = U = 200
        ((20.0, 0.0, 30.0, 10.0), -1 / 3, -400 / 1000),  # a gap: C = 300, U = 200
        ((0.0, 0.0, 20.0, 20.0), 1 / 4, 1 / 4 - 50 / 800),  # around it: C = U
        ((5.0, 5.0, 15.0, 15.0), 1 / 7 - 50 / 225, 1 / 7 - 50 / 450),
    ],
)
def test_giou_and_diou_by_hand(box: Box, giou: float, diou: float):
    assert giou_matrix([box], [A])[0, 0] == pytest.approx(giou)
    assert diou_matrix([box], [A])[0, 0] == pytest.approx(diou)
    assert pay(box_iou, found(box), on(A), kind="giou") == pytest.approx((1 + giou) / 2)
    assert pay(box_iou, found(box), on(A), kind="diou") == pytest.approx((1 + diou) / 2)


def test_giou_and_diou_of_every_pair_and_of_boxes_without_area():
    first: list[Box] = [A, B, (0.0, 0.0, 20.0, 20.0)]
    assert giou_matrix(first, [A, B]).shape == (3, 2)
    assert diou_matrix([], [A]).shape == giou_matrix([], [A]).shape == (0, 1)
    dot: Box = (3.0, 3.0, 3.0, 3.0)
    assert giou_matrix([dot], [dot])[0, 0] == diou_matrix([dot], [dot])[0, 0] == 0.0


def test_box_iou_squared_and_over_a_threshold():
    half, most = found((0.0, 0.0, 10.0, 5.0)), found((0.0, 0.0, 10.0, 8.0))
    assert pay(box_iou, half, on(A), power=2.0) == pytest.approx(0.25)
    assert pay(box_iou, half, on(A), above=0.5, graded=False) == 0.0  # not over it
    assert pay(box_iou, most, on(A), above=0.5, graded=False) == 1.0
    assert pay(box_iou, most, on(A), above=0.5) == pytest.approx(0.8)
    assert pay(box_iou, most, on(A), above=0.7, power=2.0) == pytest.approx(0.64)  # 0.8 is over 0.7, though 0.64 is not


def test_box_l1_counts_pixels_of_its_frame():
    tenth_off, pixel_off = found((0.0, 0.0, 10.0, 10.9)), found((0.0, 0.0, 10.0, 11.0))
    assert pay(box_l1, tenth_off, on(A), frame=FRAME) == 1.0  # 0.9 * 42 / 4 = 9.45
    assert pay(box_l1, pixel_off, on(A), frame=FRAME) == 0.0  # 42 / 4 = 10.5
    assert pay(box_l1, pixel_off, on(A)) == 1.0  # 1 / 4 of a pixel
    assert pay(box_l1, pixel_off, on(A), below=1.0, graded=True) == pytest.approx(0.75)
    assert pay(box_l1, found(A, B), on(A)) == 0.5


def test_frames_squash_each_side_by_itself():
    wide = Sample("s", Image.new("RGB", (40, 20)), 20, 40, "it", (Target(A),))  # 21 units a pixel along x, 42 along y
    along_x = Found((Instance((0.0, 0.0, 11.5, 10.0)),))
    along_y = Found((Instance((0.0, 0.0, 10.0, 11.5)),))
    assert box_l1([along_x, along_y], [wide] * 2, [None] * 2, frame=FRAME) == [1.0, 0.0]  # 7.9 and 15.8
    along_x, along_y = (Found((Instance(A, point=point),)) for point in ((7.0, 5.0), (5.0, 7.0)))
    assert point_distance([along_x, along_y], [wide] * 2, [None] * 2, below=50.0, frame=FRAME) == [1.0, 0.0]  # 42, 84


def test_point_distance_is_to_the_deepest_pixel_and_within_the_predicted_box():
    near = found(A, points=[(4.5, 6.5)])  # the deepest pixel of a 10 x 10 square is (4.5, 4.5), the first of four
    assert pay(point_distance, near, on(A), below=100.0, frame=FRAME) == 1.0  # 84
    assert pay(point_distance, near, on(A), below=30.0, frame=FRAME) == 0.0
    assert pay(point_distance, near, on(A), below=4.0, graded=True) == pytest.approx(0.5)
    outside = found((0.0, 0.0, 10.0, 6.0), points=[(4.5, 6.5)])
    assert pay(point_distance, outside, on(A), below=4.0) == 0.0
    assert pay(point_distance, outside, on(A), below=4.0, inside=False) == 1.0


def test_point_in_box_is_of_the_target_its_edges_included():
    points = [(10.0, 10.0), (10.1, 5.0)]
    assert [pay(point_in_box, found(B, points=[point]), on(A)) for point in points] == [1.0, 0.0]


@pytest.mark.parametrize("reward", [point_distance, point_in_box])
def test_a_format_without_points_is_named(reward):
    with pytest.raises(ValueError, match=r"sample s: .* set format.point=true"):
        pay(reward, found(A), on(A))


def test_matched_is_one_match_for_all_scores():
    from rewards.pairs import box_iou as boxes
    from rewards.pairs import mask_iou as painted
    from rewards.pairs import point_in_box as pointed

    crossed = found(A, B, points=[(15.0, 15.0), (5.0, 5.0)])  # each box with the other's point
    assert pay(box_iou, crossed, on(A, B)) == pay(point_in_box, crossed, on(A, B)) == 1.0
    assert pay(matched, crossed, on(A, B), pairs=[boxes, pointed]) == 0.5
    assert pay(matched, found(B, A), on(A, B), pairs=[boxes, painted]) == 1.0
    assert pay(matched, found(A), on(A, B), pairs=[painted]) == 0.5
    with pytest.raises(ValueError, match="configure a decoder"):
        pay(matched, Found((Instance(A),)), on(A), pairs=[painted])


def test_mask_iou_squared_and_of_too_many_objects():
    half = found((0.0, 0.0, 10.0, 5.0))
    assert pay(mask_iou, half, on(A), power=2.0) == pytest.approx(0.25)
    twice = found(A, A)
    assert pay(mask_iou, twice, on(A)) == 1.0
    assert [pay(mask_iou, twice, on(A), surplus=k) for k in (1.0, 2.0)] == [0.5, 0.25]
    assert pay(mask_iou, found(A), on(A, B), surplus=2.0) == 0.5  # too few are no surplus: half of the pixels
    assert pay(box_iou, twice, on(A), surplus=1.0) == pytest.approx(0.25)  # besides max(M, N)
    assert pay(s_measure, twice, on(A), surplus=1.0) == pytest.approx(0.5)


def probable(*maps: list[list[float]]) -> Found:
    return Found(tuple(Instance(A, masks.from_box(A, 20, 20), probability=np.array(m, np.float16)) for m in maps))


def test_mask_iou_soft_reads_probabilities_where_there_are():
    # Cells of 10 x 10 pixels, the target fills the first: sum(p g) = 0.75, sum(p + g - p g) = 1 + 0.25
    assert pay(mask_iou, probable([[0.75, 0.25], [0, 0]]), on(A), soft=True) == pytest.approx(0.75 / 1.25)
    several = probable([[0.75, 0], [0, 0]], [[0.5, 0.25], [0, 0]])  # the likelier counts
    assert pay(mask_iou, several, on(A), soft=True) == pytest.approx(0.75 / 1.25)
    half_a_cell = on((0.0, 0.0, 10.0, 5.0))
    assert pay(mask_iou, probable([[0.5, 0], [0, 0]]), half_a_cell, soft=True) == pytest.approx(0.25 / 0.75)
    ignored = Sample("s", on(A).image, 20, 20, "it", on(A).targets, ignore=masks.from_box((10, 0, 20, 20), 20, 20))
    assert pay(mask_iou, probable([[0.75, 0.25], [0, 0]]), ignored, soft=True) == pytest.approx(0.75)
    assert pay(mask_iou, found((0.0, 0.0, 10.0, 5.0)), on(A), soft=True) == 0.5  # none: the mask as it is
    assert pay(mask_iou, probable([[0, 0], [0, 0]]), ignored, soft=True) == 0.0


def test_count_is_the_smaller_over_the_larger():
    assert [pay(count, found(*[A] * m), on(*[A] * n)) for m, n in [(1, 1), (1, 4), (3, 2)]] == [1.0, 0.25, 2 / 3]


def test_confidence_is_of_hits_and_of_misses():
    two = found(A, B, confidences=[0.9, 0.4])
    assert pay(confidence, two, on(A)) == pytest.approx((0.9 + 0.6) / 2)
    assert pay(confidence, two, on(A, B)) == pytest.approx((0.9 + 0.4) / 2)
    assert pay(confidence, found(A, B), on(A)) == 0.5  # written without: precision
    assert pay(confidence, found((0.0, 0.0, 10.0, 5.0)), on(A)) == 0.0  # an IoU of 0.5 is not over it
    assert pay(confidence, Found((Instance(B, score=0.05),)), on(A)) == 0.0  # a decoder's doubt pays no miss


HALF: Box = (0.0, 0.0, 2.0, 4.0)  # of 4 x 4 pixels


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (HALF, 1.0),
        # objects: the foreground is right, half of the background: 0.5 + 0.5 * 2 * 0.5 / (0.25 + 1 + sqrt(2 / 7)).
        # regions: quarters of 3, 9, 1 and 3 pixels; the first and third hold target alone: 4 / 16; the others are
        # 4 * (2 / 3) * (1 / 3) * c / ((4 / 9 + 1 / 9) * 2 v), where c = v / 2, so 0.4: 0.4 * 12 / 16.
        ((0.0, 0.0, 3.0, 4.0), 0.5 * (0.5 + 0.5 / (1.25 + (2 / 7) ** 0.5)) + 0.5 * (0.25 + 0.3)),
        ((0.0, 0.0, 4.0, 4.0), 0.5 * 0.5 + 0.5 * 0.25),  # no background is left; regions: quarters without variance
    ],
)
def test_s_measure_by_hand(box: Box, expected: float):
    assert pay(s_measure, found(box, size=4), on(HALF, size=4)) == pytest.approx(expected)


def test_s_measure_where_all_or_one_pixel_or_nothing_is_meant():
    assert pay(s_measure, found(HALF, size=4), on((0.0, 0.0, 4.0, 4.0), size=4)) == 0.5  # the share painted
    assert pay(s_measure, found((3.0, 3.0, 4.0, 4.0), size=4), on((3.0, 3.0, 4.0, 4.0), size=4)) == pytest.approx(1.0)
    everything = masks.from_box((0, 0, 4, 4), 4, 4)
    ignored = Sample("s", on(size=4).image, 4, 4, "it", on(HALF, size=4).targets, ignore=everything)
    assert pay(s_measure, found(HALF, size=4), ignored) == 0.0


@pytest.mark.parametrize(
    ("reward", "options", "message"),
    [
        (box_iou, {"kind": "ciou"}, "kind='ciou' is no overlap of boxes; set it to one of iou, giou, diou"),
        (box_iou, {"power": 0.0}, "power=0.0 would pay a miss as much as a hit; set a positive one"),
        (box_iou, {"above": 1.0}, "above=1.0 is no overlap that can be exceeded; set it in 0..1"),
        (box_l1, {"below": 0.0}, "below=0.0: no distance is shorter; set it to the pixels"),
        (box_l1, {"frame": [840]}, r"frame=\[840\] is no size; set it to \[height, width\]"),
        (mask_iou, {"power": -1.0}, "power=-1.0 would pay a miss"),
        (mask_iou, {"surplus": -1.0}, "surplus=-1.0 would pay for objects too many; set it to 0 or more"),
        (s_measure, {"alpha": 2.0}, "alpha=2.0 is no share of the whole; set it in 0..1"),
        (matched, {"pairs": []}, r"pairs=\[\]: nothing to match by; name a function such as rewards.pairs.box_iou"),
    ],
)
def test_an_option_out_of_range_is_named_with_the_way_out(reward, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        pay(reward, found(A), on(A), **options)

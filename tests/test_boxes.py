import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from segmentation import boxes
from segmentation.boxes import Relative, ResizedPixels, from_frame, to_frame

CONVENTIONS = [Relative(), Relative(64), ResizedPixels(), ResizedPixels(16, 64 * 64, 512 * 512)]
# Every height from 28 to 3072 and every width from 28 to 4096 (1,213 and the number of heights have no common divisor),
# and the corners. An axis is converted by itself, but its frame may depend on both sides.
SIZES = [(28 + i * 1213 % 3045, 28 + i) for i in range(4069)]
SIZES += list(itertools.product((28, 29, 480, 3072), (28, 29, 640, 4096)))


def random_boxes(rng: np.random.Generator, height: int, width: int, count: int) -> list[boxes.Box]:
    x, y = np.sort(rng.random((count, 2)) * width, 1), np.sort(rng.random((count, 2)) * height, 1)
    return [(*map(float, b),) for b in np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)]  # pyright: ignore


def edges(box, height: int, width: int, frame: tuple[int, int]):
    """(low, high, side, units) of each axis."""
    x1, y1, x2, y2 = box
    return (x1, x2, width, frame[1]), (y1, y2, height, frame[0])


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
def test_no_edge_moves_more_than_half_a_unit_at_any_size(convention):
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        if max(height, width) > 200 * min(height, width):
            continue
        frame = convention.size(height, width)
        whole = (0.0, 0.0, float(width), float(height))
        assert to_frame(whole, height, width, convention) == (0, 0, frame[1], frame[0])
        for box in [whole, *random_boxes(rng, height, width, 4)]:
            written = to_frame(box, height, width, convention)
            back = from_frame(written, height, width, convention)
            for before, said, after in zip(
                edges(box, height, width, frame),
                edges(written, height, width, frame),
                edges(back, height, width, frame),
                strict=True,
            ):
                low, high, side, units = before
                assert 0 <= said[0] < said[1] <= units
                assert 0 <= after[0] < after[1] <= side
                moved = max(abs(after[0] - low), abs(after[1] - high)) / (side / units)
                assert moved <= (0.5 if high - low >= side / units else 1) + 1e-9  # narrower ones are widened to a unit
            assert to_frame(back, height, width, convention) == written


@pytest.mark.parametrize("convention", [Relative(), ResizedPixels()], ids=str)
def test_pixel_boxes_come_back_exactly_where_a_pixel_is_no_smaller_than_a_unit(convention):
    rng = np.random.default_rng(0)
    for height, width in SIZES[::3]:
        frame_height, frame_width = convention.size(height, width)
        if frame_height < height or frame_width < width:
            continue
        x1, y1 = int(rng.integers(width)), int(rng.integers(height))
        box = (x1, y1, int(rng.integers(x1 + 1, width + 1)), int(rng.integers(y1 + 1, height + 1)))
        back = from_frame(to_frame(box, height, width, convention), height, width, convention)
        assert tuple(map(round, back)) == box


@given(st.integers(1, 5000), st.integers(1, 5000), st.tuples(*[st.floats(-1e4, 1e4)] * 4))
def test_any_box_becomes_a_box_inside_the_frame(height, width, box):
    assume(max(height, width) <= 200 * min(height, width))
    for convention in CONVENTIONS:
        frame_height, frame_width = convention.size(height, width)
        x1, y1, x2, y2 = to_frame(box, height, width, convention)
        assert 0 <= x1 < x2 <= frame_width and 0 <= y1 < y2 <= frame_height


def test_qwen25_writes_pixels_of_the_resized_image_and_the_others_thousandths():
    assert smart_resize(480, 640, 28, 56 * 56, 1280 * 28 * 28) == ResizedPixels().size(480, 640) == (476, 644)
    box = (0.0, 120.0, 320.0, 480.0)
    assert to_frame(box, 480, 640, ResizedPixels()) == (0, 119, 322, 476)
    assert to_frame(box, 480, 640, Relative()) == (0, 250, 500, 1000)
    assert to_frame(box, 480, 640, Relative(24)) == (0, 6, 12, 24)
    with pytest.raises(ValueError, match="aspect ratio"):
        ResizedPixels().size(28, 28 * 201)


def test_what_a_model_writes_outside_its_frame_is_clamped_to_the_image():
    assert from_frame((-3, 0, 1004, 999), 480, 640, Relative()) == (0.0, 0.0, 640.0, 479.52)
    assert from_frame((1500, 1500, 1600, 1600), 480, 640, Relative()) == (640.0, 480.0, 640.0, 480.0)


def test_a_box_narrower_than_a_unit_is_a_unit_wide():
    assert to_frame((639.9, 0.0, 640.0, 0.1), 480, 640, Relative()) == (999, 0, 1000, 1)
    assert to_frame((320.0, 7.0, 320.0, 7.0), 480, 640, Relative(24)) == (12, 0, 13, 1)


def slow_iou(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0.0) * max(height, 0.0)
    union = boxes.area(a) + boxes.area(b) - overlap
    return overlap / union if union else 0.0


def test_iou_of_every_pair():
    rng = np.random.default_rng(0)
    first, second = random_boxes(rng, 50, 80, 20), random_boxes(rng, 50, 80, 30)
    second[:5] = first[:5]
    found = boxes.iou_matrix(first, second)
    assert found.dtype == np.float64
    assert np.allclose(found, [[slow_iou(a, b) for b in second] for a in first], rtol=0, atol=1e-12)
    assert np.allclose(np.diag(found)[:5], 1)
    assert boxes.iou_matrix([], second).shape == (0, 30) and boxes.iou_matrix(first, []).shape == (20, 0)


def test_empty_boxes_overlap_nothing():
    point = (3.0, 3.0, 3.0, 3.0)
    assert boxes.iou_matrix([point], [point, (0.0, 0.0, 9.0, 9.0)]).tolist() == [[0.0, 0.0]]
    assert boxes.area(point) == 0 and boxes.area((5.0, 5.0, 2.0, 9.0)) == 0
    assert math.isclose(boxes.area((1.0, 2.0, 4.0, 6.5)), 13.5)

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segmentation import masks

some_mask = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=24))
HEIGHT, WIDTH = 9, 12


def rectangle(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y1:y2, x1:x2] = True
    return mask


@given(some_mask)
def test_a_mask_survives_its_rle_and_json(mask):
    rle = json.loads(json.dumps(masks.encode(mask)))
    assert rle["size"] == list(mask.shape)
    assert np.array_equal(masks.decode(rle), mask) and masks.decode(rle).dtype == bool
    assert masks.area(rle) == mask.sum()
    assert masks.from_uncompressed(rle, *mask.shape) == rle


def test_any_value_but_zero_is_foreground():
    values = np.array([[0, 1, 255], [0.0, 0.5, -1]])
    assert masks.decode(masks.encode(values)).tolist() == [[False, True, True], [False, True, True]]


def test_an_array_of_three_axes_is_no_mask():
    with pytest.raises(ValueError, match=r"two axes .* \(1, 3, 4\)"):
        masks.encode(np.zeros((1, 3, 4)))


@given(some_mask)
def test_the_box_is_the_smallest_around_the_foreground(mask):
    rows, columns = np.nonzero(mask)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if mask.any() else None
    assert masks.box(masks.encode(mask)) == box


def test_polygons_are_filled_and_joined():
    square, lower = [2, 1, 6, 1, 6, 5, 2, 5], [2, 5, 6, 5, 6, 8, 2, 8]
    assert np.array_equal(masks.decode(masks.from_polygons([square], HEIGHT, WIDTH)), rectangle(2, 1, 6, 5))
    both = masks.from_polygons([square, lower, [1, 1, 2, 2]], HEIGHT, WIDTH)  # the last encloses nothing
    assert np.array_equal(masks.decode(both), rectangle(2, 1, 6, 8))
    outside = masks.from_polygons([[-50, -50, 500, -50, 500, 500, -50, 500]], HEIGHT, WIDTH)
    assert masks.area(outside) == HEIGHT * WIDTH


@pytest.mark.parametrize(
    ("polygons", "said"),
    [
        ([], "no polygon has 3 points"),
        ([[0, 0, 5, 5]], "no polygon has 3 points"),
        ([[0, 0, 5, 5, 5]], "odd number"),
        ([[0, 0, 5, 5, 5, float("nan")]], "not a number"),
        ([[0, 0, 5, 5, 5, float("inf")]], "not a number"),
    ],
)
def test_what_is_no_polygon_is_refused(polygons, said):
    with pytest.raises(ValueError, match=said):
        masks.from_polygons(polygons, HEIGHT, WIDTH)


@given(some_mask)
def test_lists_of_runs_become_the_same_rle(mask):
    flat = mask.ravel(order="F")
    edges = [0, *np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int))).tolist(), flat.size]
    counts = np.diff(edges).tolist()
    assert masks.from_uncompressed({"size": list(mask.shape), "counts": counts}, *mask.shape) == masks.encode(mask)


@given(some_mask, st.data())
def test_no_damaged_rle_gets_through(mask, data):
    rle = masks.encode(mask)
    characters = list(rle["counts"])
    characters[data.draw(st.integers(0, len(characters) - 1))] = data.draw(st.characters())
    damaged = "".join(characters[: data.draw(st.integers(0, len(characters)))])
    try:
        read = masks.from_uncompressed({**rle, "counts": damaged}, *mask.shape)
    except ValueError:
        return
    assert masks.decode(read).shape == mask.shape and masks.area(read) == masks.decode(read).sum()


@pytest.mark.parametrize("run", [0.5, True, "3", None])
def test_runs_are_whole_numbers(run):
    with pytest.raises(ValueError, match=f"has a run of {run!r} pixels"):
        masks.from_uncompressed({"size": [4, 4], "counts": [run, *[0.5] * 31]}, 4, 4)


@pytest.mark.parametrize(
    "written", [[[1, 1, 5, 1, 5, 5]], {"counts": [16]}, {"size": 4, "counts": [16]}, "abc"], ids=str
)
def test_what_is_no_rle_is_told_what_one_is(written):
    with pytest.raises(ValueError, match=r"a mask is \{'size': .* polygons"):
        masks.from_uncompressed(written, 4, 4)


def test_a_mask_of_another_size_than_its_image_is_refused():
    rle = masks.encode(rectangle(0, 0, 3, 3))
    with pytest.raises(ValueError, match=r"the mask is \[9, 12\] high and wide, its image \[12, 9\]"):
        masks.from_uncompressed(dict(rle), WIDTH, HEIGHT)
    with pytest.raises(ValueError, match=r"size \[9, 12\] cannot join an image of size \[12, 9\]"):
        masks.union([rle], WIDTH, HEIGHT)


def test_the_union_of_none_one_and_several():
    left, right = rectangle(0, 0, 4, 9), rectangle(3, 2, 12, 5)
    assert masks.union([], HEIGHT, WIDTH) == masks.empty(HEIGHT, WIDTH)
    assert masks.area(masks.empty(HEIGHT, WIDTH)) == 0
    assert masks.union([masks.encode(left)], HEIGHT, WIDTH) == masks.encode(left)
    assert masks.union([masks.encode(left), masks.encode(right)], HEIGHT, WIDTH) == masks.encode(left | right)


def test_iou_of_every_pair():
    rng = np.random.default_rng(0)
    first, second = rng.random((4, HEIGHT, WIDTH)) < 0.4, rng.random((3, HEIGHT, WIDTH)) < 0.6
    first[0] = second[0] = False
    expected = [[(a & b).sum() / max((a | b).sum(), 1) for b in second] for a in first]
    found = masks.iou_matrix([masks.encode(a) for a in first], [masks.encode(b) for b in second])
    assert found.dtype == np.float64 and np.allclose(found, expected, rtol=0, atol=1e-12)
    assert masks.iou_matrix([], [masks.encode(first[0])]).shape == (0, 1)
    assert masks.iou_matrix([masks.encode(first[0])], []).shape == (1, 0)


@given(st.tuples(*[st.floats(-5, 20)] * 4))
def test_a_filled_box_has_the_pixels_whose_centres_it_holds(box):
    x1, y1, x2, y2 = box
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    inside = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
    assert np.array_equal(masks.decode(masks.from_box(box, HEIGHT, WIDTH)), inside)


@given(st.lists(st.integers(0, HEIGHT * WIDTH), max_size=9).map(sorted))
def test_flips_change_between_background_and_foreground(flips):
    flat = np.zeros(HEIGHT * WIDTH, bool)
    for flip in flips:
        flat[flip:] ^= True
    found = masks.decode(masks.from_flips(np.array(flips, dtype=np.int64), HEIGHT, WIDTH))
    assert np.array_equal(found, flat.reshape((HEIGHT, WIDTH), order="F"))


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
def test_resizing_by_whole_numbers_and_back_changes_nothing(how):
    mask = rectangle(2, 3, 9, 8)
    large = masks.resize(mask, 5 * HEIGHT, 5 * WIDTH, how)
    assert large.shape == (5 * HEIGHT, 5 * WIDTH) and large.dtype == bool
    assert np.array_equal(masks.resize(large, HEIGHT, WIDTH, how), mask)
    assert np.array_equal(masks.resize(mask, HEIGHT, WIDTH, how), mask)


def test_bilinear_follows_a_disc_more_closely_than_nearest():
    y, x = np.mgrid[0:200, 0:300] + 0.5
    disc = (x - 140) ** 2 + (y - 90) ** 2 < 70**2
    coarse = masks.resize(disc, 24, 24, "nearest")
    iou = {}
    for how in ("nearest", "bilinear"):
        back = masks.resize(coarse, 200, 300, how)
        iou[how] = (back & disc).sum() / (back | disc).sum()
    assert iou["bilinear"] > iou["nearest"] > 0.85

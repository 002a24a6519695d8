"""Grids out of masks and masks out of grids, against plain references by pixels; grids as text and back."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segmentation import masks
from segmentation.boxes import Box
from segmentation.decoders import decode_columns, decode_grid, encode_grid
from segmentation.formats.brick_codes import ColumnCode, RowCode
from segmentation.sample import Invalid

HEIGHT, WIDTH = 37, 53
boxes = st.builds(
    lambda x, y, width, height: (x, y, min(x + width, WIDTH), min(y + height, HEIGHT)),
    *(st.floats(0, 30), st.floats(0, 20), st.floats(0.01, 40), st.floats(0.01, 30)),
)
grids = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays.arrays(bool, shape))


@pytest.mark.parametrize("code", [RowCode(9), ColumnCode(9)])
@given(grids, st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_bricks_of_a_grid_are_its_bricks_again(code, grid, at):
    rows, columns = grid.shape
    text = code.write(grid)
    assert set(re.findall("<.*?>", text)) <= set(code.tokens)
    read = code.read(text, rows, columns, at)
    if grid.any():
        assert isinstance(read, np.ndarray)
        np.testing.assert_array_equal(read, grid)
    else:
        assert isinstance(read, Invalid)


def test_columns_as_text():
    grid = np.array([[0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0]], bool)
    assert ColumnCode(4).write(grid) == "<col1><fg2><col0><fg2><bg1><fg1><col>"


@given(grids)
@settings(max_examples=200, deadline=None)
def test_a_grid_of_whole_pixels_survives_image_and_text(grid):
    rows, columns = grid.shape
    mask = np.kron(grid, np.ones((3, 3), bool))  # cells of 3 x 3 pixels
    box = (0.0, 0.0, 3.0 * columns, 3.0 * rows)
    for how in ("nearest", "area"):
        expected = grid if grid.any() else np.ones_like(grid)
        np.testing.assert_array_equal(encode_grid(mask, box, rows, columns, how), expected)
    np.testing.assert_array_equal(masks.decode(decode_grid(grid, box, 3 * rows, 3 * columns, "nearest")), mask)


@given(grids, boxes)
@settings(max_examples=300, deadline=None)
def test_decoding_by_runs_is_decoding_by_pixels(grid, corners):
    rows, columns = grid.shape
    v, u, box = in_cells(corners, rows, columns)
    ring = np.pad(grid, 1).astype(float)

    def weights(positions: np.ndarray, cells: int) -> np.ndarray:  # (pixels, cells + 2), linear between cell centres
        return np.maximum(0, 1 - np.abs(positions[:, None] - (np.arange(cells + 2) - 0.5)))

    values = weights(v, rows) @ ring @ weights(u, columns).T
    got = masks.decode(decode_grid(grid, corners, HEIGHT, WIDTH, "bilinear"))
    assert not got[~box].any()
    clear = box & (np.abs(values - 0.5) > 1e-5)  # at a tie rounding decides
    np.testing.assert_array_equal(got[clear], values[clear] > 0.5)

    got = masks.decode(decode_grid(grid, corners, HEIGHT, WIDTH, "nearest"))
    assert not got[~box].any()
    clear = box & ((np.abs(v - np.rint(v)) > 1e-9)[:, None] & (np.abs(u - np.rint(u)) > 1e-9))
    row, column = np.clip(np.floor(v) + 1, 0, rows + 1), np.clip(np.floor(u) + 1, 0, columns + 1)
    under = ring[np.ix_(row.astype(int), column.astype(int))]
    np.testing.assert_array_equal(got[clear], under[clear] > 0)


def in_cells(box: Box, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres of the image's rows and columns of pixels, in cells of a grid over the box; which pixels are inside."""
    x1, y1, x2, y2 = box
    down = (np.arange(HEIGHT) + 0.5 - y1) / (y2 - y1) * rows
    across = (np.arange(WIDTH) + 0.5 - x1) / (x2 - x1) * columns
    return down, across, ((down >= 0) & (down < rows))[:, None] & ((across >= 0) & (across < columns))


def signed_distance(column: np.ndarray, at: np.ndarray) -> np.ndarray:
    edges = np.flatnonzero(np.diff(np.pad(column.astype(int), 1)))
    if not len(edges):
        return np.full(len(at), -len(column) / 2)
    filled = column[np.clip(at.astype(int), 0, len(column) - 1)]
    return np.abs(at[:, None] - edges).min(axis=1) * np.where(filled, 1, -1)


@given(grids, boxes)
@settings(max_examples=300, deadline=None)
def test_columns_are_joined_by_interpolated_distances(grid, corners):
    cells, columns = grid.shape
    down, across, box = in_cells(corners, cells, columns)
    distances = np.stack([signed_distance(column, down) for column in grid.T], axis=1)  # (height, columns)
    place_of = np.clip(across - 0.5, 0, columns - 1)
    weights = np.maximum(0, 1 - np.abs(place_of[:, None] - np.arange(columns)))  # (width, columns)
    values = distances @ weights.T
    got = masks.decode(decode_columns(grid, corners, HEIGHT, WIDTH))
    assert not got[~box].any()
    clear = box & (np.abs(values) > 1e-6)  # at a tie rounding decides
    np.testing.assert_array_equal(got[clear], values[clear] > 0)


@given(grids, st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_run_lengths_are_canonical(grid, height, width):
    for resize in ("bilinear", "nearest"):
        rle = decode_grid(grid, (0.0, 0.0, float(width), float(height)), height, width, resize)
        assert rle == masks.encode(masks.decode(rle))
    rle = decode_columns(grid, (0.0, 0.0, float(width), float(height)), height, width)
    assert rle == masks.encode(masks.decode(rle))


def test_a_box_between_two_centres_has_no_pixel():
    assert decode_grid(np.ones((2, 2)), (3.6, 3.6, 4.4, 4.4), 9, 9) == masks.empty(9, 9)


def test_a_small_object_keeps_the_cells_it_touches():
    mask = np.zeros((64, 64), bool)
    mask[10, 20] = True  # not under the centre of any cell of 8 x 8 pixels, and a small part of its cell
    for how in ("nearest", "area"):
        grid = encode_grid(mask, (0.0, 0.0, 64.0, 64.0), 8, 8, how)
        assert np.argwhere(grid).tolist() == [[1, 2]]

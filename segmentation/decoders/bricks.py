"""Bricks to masks: a grid of cells inside a box, drawn from a mask (`encode_grid`) and blown up to one (`decode_grid`).

Both work inside the box only. Decoding goes from cells to run lengths without ever making the pixels: a column of the
image crosses at most one edge a cell, so its runs follow from the cells' values.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from segmentation.boxes import Box
from segmentation.masks import RLE, Resize, from_flips
from segmentation.sample import Found, Prediction

Downsample = Literal["nearest", "area"]


def encode_grid(mask: np.ndarray, box: Box, rows: int, columns: int, how: Downsample = "nearest") -> np.ndarray:
    """The cells of a mask inside a box, `bool (rows, columns)`.

    `nearest` takes the pixel under each cell's centre; `area` asks for half of the cell's area. No object vanishes:
    where that leaves no cell, every cell the mask touches counts, and all of them if the mask misses the box.

    Args:
        mask: `bool (H, W)`.
        box: in pixels, inside the image, with an area.
    """
    height, width = mask.shape
    x1, y1, x2, y2 = box
    covered = _overlap(y1, y2, rows, height) @ mask @ _overlap(x1, x2, columns, width).T  # share of each cell's area
    if how == "area":
        grid = covered >= 0.5
    else:
        y = y1 + (np.arange(rows) + 0.5) * (y2 - y1) / rows
        x = x1 + (np.arange(columns) + 0.5) * (x2 - x1) / columns
        grid = mask[np.ix_(y.astype(int), x.astype(int))]
    if not grid.any():
        grid = covered > 0
    return grid if grid.any() else np.ones_like(grid)


def decode_grid(grid: np.ndarray, box: Box, height: int, width: int, resize: Resize = "bilinear") -> RLE:
    """The mask of a grid of cells that fills a box.

    A pixel is foreground if its centre lies in a foreground cell (`nearest`), or if the cells' 0/1 values, interpolated
    between their centres, exceed one half there (`bilinear`). Around the box all is background, to interpolation too.

    Args:
        grid: `(rows, columns)`, 0 or 1.
        box: in pixels, inside the image.
        height, width: size of the image in pixels.
    """
    x1, _, x2, _ = box
    left, right = math.ceil(x1 - 0.5), math.ceil(x2 - 0.5)  # the pixels whose centre lies inside
    rows, columns = grid.shape
    cells = np.zeros((columns + 2, rows + 2), dtype=np.float32)  # by column, as run lengths go; a ring of background
    cells[1:-1, 1:-1] = grid.T
    x = (np.arange(left, right) + (0.5 - x1)) * (columns / (x2 - x1)) + 0.5  # 0 is the centre of the ring's left cell
    if resize == "nearest":
        values = cells[(x + 0.5).astype(np.intp)]  # (right - left, rows + 2)
    else:
        cell = x.astype(np.intp)
        share = (x - cell).astype(np.float32)[:, None]
        values = cells[cell] * (1 - share) + cells[cell + 1] * share
    inside = values > 0.5
    column, row = np.nonzero(inside[:, 1:] != inside[:, :-1])  # an edge between the cell row `row` and the next
    if resize == "nearest":
        crossing = row.astype(float)
    else:
        above, below = values[column, row], values[column, row + 1]
        crossing = row - 0.5 + (0.5 - above) / (below - above)
    return from_crossings(left + column, crossing, rows, box, height, width)


def from_crossings(x: np.ndarray, crossing: np.ndarray, cells: int, box: Box, height: int, width: int) -> RLE:
    """The mask whose outline the pixel columns `x (N,)` cross at `crossing (N,)`, from left to right and top to bottom.

    Args:
        crossing: cells down the box, from 0 to `cells`.
    """
    _, y1, _, y2 = box
    pixel = np.ceil(y1 - 0.5 + crossing * ((y2 - y1) / cells))  # the first whose centre lies on or below the edge
    bottom = math.ceil(y2 - 0.5)  # rounding must not carry an edge past the box, and into the next column
    return from_flips(x * height + np.minimum(pixel, bottom).astype(np.int64), height, width)


class BrickDecoder:
    """The decoder of brick formats: their text already says the mask, so there is nothing left to fill."""

    def fill(self, prediction: Prediction, height: int, width: int) -> Prediction:
        """The prediction itself.

        Raises:
            ValueError: an instance has no mask, so the text was not bricks.
        """
        if isinstance(prediction, Found) and any(instance.mask is None for instance in prediction.instances):
            raise ValueError("decoder=bricks met a box without a mask: boxes need decoder=filled_box or a trained one.")
        return prediction


def _overlap(low: float, high: float, cells: int, pixels: int) -> np.ndarray:
    """`(cells, pixels)`: the share of each cell, of equal ones from `low` to `high`, that each pixel covers."""
    edges = np.linspace(low, high, cells + 1)
    pixel = np.arange(pixels)
    length = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.maximum(length, 0) * (cells / (high - low))

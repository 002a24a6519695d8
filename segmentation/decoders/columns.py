"""Columns to masks: the outline goes straight from one column of cells to the next, as a polygon's does."""

from __future__ import annotations

import math

import numpy as np

from segmentation.boxes import Box
from segmentation.decoders.bricks import from_crossings
from segmentation.masks import RLE, empty


def decode_columns(grid: np.ndarray, box: Box, height: int, width: int) -> RLE:
    """The mask of columns of cells that fill a box.

    Along a column the distance to the nearest edge of its foreground is taken, positive inside and negative outside;
    between the centres of two columns it is interpolated, outside the first and the last it stays; a pixel is
    foreground where it is positive at its centre. So an edge that both columns have is joined by a straight line, and
    one that only one of them has ends between them. A column of background lies half a box away from any foreground.

    Everything is done with the edges: the distance is linear between *knots*, the edges of both columns and the middles
    between them, so that a column of pixels has its runs from the signs at its knots. No pixel is made.

    Args:
        grid: `(cells, columns)`, 0 or 1.
        box: in pixels, inside the image.
        height, width: size of the image in pixels.
    """
    x1, _, x2, _ = box
    if not grid.any():
        return empty(height, width)
    cells, columns = grid.shape
    edges, blank = _edges(grid)  # (columns, E), (columns,)
    middles = (edges[:, 1:] + edges[:, :-1]) / 2
    own = np.concatenate([edges, middles], axis=1)
    following = np.minimum(np.arange(1, columns + 1), columns - 1)
    ends = np.broadcast_to([0.0, 0.0, cells, cells], (columns, 4))  # twice: outside the box is background
    knots = np.sort(np.concatenate([own, own[following], ends], axis=1), axis=1)  # (columns, K)
    first = _distance(knots, edges, blank, cells)
    second = _distance(knots, edges[following], blank[following], cells)

    left, right = math.ceil(x1 - 0.5), math.ceil(x2 - 0.5)  # the pixels whose centre lies inside
    x = (np.arange(left, right) + (0.5 - x1)) * (columns / (x2 - x1)) - 0.5  # 0 is the centre of the first column
    x = np.clip(x, 0, columns - 1)
    column = x.astype(np.intp)
    share = (x - column)[:, None]
    values = first[column] * (1 - share) + second[column] * share  # (right - left, K)
    values[:, [0, -1]] = -1
    inside = values > 0
    pixel, knot = np.nonzero(inside[:, 1:] != inside[:, :-1])
    before, after = values[pixel, knot], values[pixel, knot + 1]
    low, high = knots[column[pixel], knot], knots[column[pixel], knot + 1]
    crossing = low + before / (before - after) * (high - low)
    return from_crossings(left + pixel, crossing, cells, box, height, width)


def _edges(grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the cells of each column change, `(columns, E)` ascending; and which columns have no foreground.

    A column with fewer edges than others repeats its first, in pairs, which changes no sign and no distance.
    """
    cells, columns = grid.shape
    padded = np.zeros((columns, cells + 2), dtype=bool)
    padded[:, 1:-1] = grid.T
    column, at = np.nonzero(padded[:, 1:] != padded[:, :-1])
    count = np.bincount(column, minlength=columns)
    start = np.cumsum(count) - count
    place = np.arange(len(column)) - start[column]
    spare = count.max() - count  # even
    first = at[np.minimum(start, len(at) - 1)]  # of a blank column any: its distance is set
    edges = np.repeat(first[:, None], count.max(), axis=1).astype(float)
    edges[column, place + spare[column]] = at
    return edges, count == 0


def _distance(at: np.ndarray, edges: np.ndarray, blank: np.ndarray, cells: int) -> np.ndarray:
    """Signed distance `(columns, K)` of positions `(columns, K)` to the nearest of `(columns, E)` edges."""
    away = at[:, :, None] - edges[:, None, :]  # (columns, K, E)
    inside = (away >= 0).sum(axis=2) % 2 == 1
    distance = np.abs(away).min(axis=2)
    return np.where(blank[:, None], -0.5 * cells, np.where(inside, distance, -distance))

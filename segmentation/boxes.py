"""Box geometry, and the frame in which each model family writes coordinates.

A box is `(x1, y1, x2, y2)` in pixels of the original image, right and bottom exclusive: width = x2 - x1. Models write
integers in a *frame* of their own; only a format converts, and only through `to_frame` and `from_frame`.

| family | frame | source |
|---|---|---|
| Qwen2.5-VL | pixels of the smart-resized image | Qwen2.5-VL report; QwenLM/Qwen3-VL issues 676, 1485 |
| Qwen3-VL, Qwen2-VL, InternVL2.5/3 | 0..1000 relative to each side | QwenLM/Qwen3-VL issue 1486; InternVL docs |
| Text4Seg++ bricks | 0..grid relative to each side | arXiv 2509.06321, III-C2 |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from pycocotools import mask as coco

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Relative:
    """Each side of any image is `units` long: 1000 for Qwen3-VL and InternVL, the grid for bricks."""

    units: int = 1000

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the frame for an image of that size."""
        return self.units, self.units


@dataclass(frozen=True, slots=True)
class ResizedPixels:
    """Pixels of the image as the Qwen2.5-VL processor resizes it: sides multiples of `factor`, area within the limits.

    Args:
        factor: patch size times merge size; 28 for Qwen2.5-VL.
        min_pixels, max_pixels: the processor's `size["shortest_edge"]` and `size["longest_edge"]`.
    """

    factor: int = 28
    min_pixels: int = 56 * 56
    max_pixels: int = 1280 * 28 * 28

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the frame for an image of that size; raises ValueError beyond an aspect ratio of 200."""
        return _smart_resize()(height, width, self.factor, self.min_pixels, self.max_pixels)


Convention = Relative | ResizedPixels


@cache
def _smart_resize():
    # Imported when first used: it brings torch, which reading data and scoring saved predictions do without.
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    return smart_resize


def to_frame(box: Box, height: int, width: int, convention: Convention) -> tuple[int, int, int, int]:
    """The box in integers of the model's frame: edges rounded to the nearest, at least one unit wide and high.

    The round trip through `from_frame` moves no edge by more than half a unit, except where that would leave no width.
    """
    frame_height, frame_width = convention.size(height, width)
    x1, x2 = _interval(box[0], box[2], width, frame_width)
    y1, y2 = _interval(box[1], box[3], height, frame_height)
    return x1, y1, x2, y2


def _interval(low: float, high: float, side: int, units: int) -> tuple[int, int]:
    first, last = (math.floor(edge * units / side + 0.5) for edge in (low, high))
    if last <= first:  # narrower than a unit: the unit that holds its middle
        first = math.floor((low + high) / 2 * units / side)
    first = min(max(first, 0), units - 1)
    return first, min(max(last, first + 1), units)


def from_frame(box: Sequence[float], height: int, width: int, convention: Convention) -> Box:
    """A box written in the model's frame, in pixels of the original image, clamped to it.

    Newer Qwen models sometimes write a little more than 1000: what lies outside is clamped, not refused.
    """
    frame_height, frame_width = convention.size(height, width)
    x1, y1, x2, y2 = box
    sx, sy = width / frame_width, height / frame_height
    return (
        min(max(x1 * sx, 0.0), float(width)),
        min(max(y1 * sy, 0.0), float(height)),
        min(max(x2 * sx, 0.0), float(width)),
        min(max(y2 * sy, 0.0), float(height)),
    )


def around(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of at least one."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def iou_matrix(first: Sequence[Box], second: Sequence[Box]) -> np.ndarray:
    """IoU of every box with every other, `(len(first), len(second))` float64; 0 where the union has no area."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    crowd = np.zeros(len(second), np.uint8)
    return np.asarray(coco.iou(_corner_and_size(first), _corner_and_size(second), crowd))


def giou_matrix(first: Sequence[Box], second: Sequence[Box]) -> np.ndarray:
    """GIoU of every box with every other, `(len(first), len(second))` float64 in -1..1 (arXiv 1902.09630).

    `IoU - (C - U) / C`, where `C` is the area of the smallest box around both and `U` that of their union: boxes that
    do not meet differ by how far they are apart.
    """
    low, high = _around(first, second)
    enclosing = np.prod(high - low, axis=2)  # (P, G)
    iou = iou_matrix(first, second)
    areas = np.add.outer(*(np.array([area(box) for box in boxes]) for boxes in (first, second)))
    united = areas / (1 + iou)  # U = A + B - I, and I = IoU * U
    return iou - np.divide(enclosing - united, enclosing, out=np.zeros_like(enclosing), where=enclosing > 0)


def diou_matrix(first: Sequence[Box], second: Sequence[Box]) -> np.ndarray:
    """DIoU of every box with every other, `(len(first), len(second))` float64 in -1..1 (arXiv 1911.08287).

    `IoU - d^2 / c^2`, where `d` is the distance of the centres and `c` the diagonal of the smallest box around both.
    """
    low, high = _around(first, second)
    diagonal = np.sum((high - low) ** 2, axis=2)  # (P, G)
    centres = [np.array(boxes, np.float64).reshape(-1, 2, 2).mean(axis=1) for boxes in (first, second)]
    apart = np.sum((centres[0][:, None] - centres[1]) ** 2, axis=2)
    return iou_matrix(first, second) - np.divide(apart, diagonal, out=np.zeros_like(apart), where=diagonal > 0)


def _around(first: Sequence[Box], second: Sequence[Box]) -> tuple[np.ndarray, np.ndarray]:
    """Top left and bottom right `(P, G, 2)` of the smallest box around each pair."""
    one, other = (np.array(boxes, np.float64).reshape(-1, 4) for boxes in (first, second))
    return np.minimum(one[:, None, :2], other[:, :2]), np.maximum(one[:, None, 2:], other[:, 2:])


def _corner_and_size(boxes: Sequence[Box]) -> np.ndarray:
    corners = np.array(boxes, np.float64)  # (B, 4)
    corners[:, 2:] -= corners[:, :2]
    return corners


def area(box: Box) -> float:
    """Pixels inside; 0 for a box turned inside out."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)

"""Masks: compressed COCO RLE at rest, `bool (H, W)` arrays in hand. All run-length work is pycocotools'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

import numpy as np
from PIL import Image
from pycocotools import mask as coco

Resize = Literal["nearest", "bilinear"]


class RLE(TypedDict):
    """COCO's compressed run-length encoding, column-major. `counts` is text, so that it goes into JSON as it is."""

    size: list[int]  # [height, width]
    counts: str


def encode(mask: np.ndarray) -> RLE:
    """RLE of a mask `(H, W)`; any non-zero value is foreground."""
    if mask.ndim != 2:
        raise ValueError(f"a mask has two axes (H, W); this array has shape {mask.shape}.")
    return _text(coco.encode(np.asfortranarray(mask != 0, dtype=np.uint8)))


def decode(rle: RLE) -> np.ndarray:
    """`bool (H, W)` of an RLE."""
    return coco.decode(rle).astype(bool)


def from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> RLE:
    """Union of COCO polygons `[x1, y1, x2, y2, ...]`. Polygons of fewer than 3 points enclose nothing and are left out.

    Raises:
        ValueError: no polygon has 3 points, or one has an odd number of coordinates.
    """
    if any(len(polygon) % 2 for polygon in polygons):
        raise ValueError(f"a polygon has an odd number of coordinates: {[len(polygon) for polygon in polygons]}.")
    closed = [list(map(float, polygon)) for polygon in polygons if len(polygon) >= 6]
    if not closed:
        raise ValueError(f"no polygon has 3 points: {list(map(len, polygons))} coordinates.")
    return _text(coco.merge(coco.frPyObjects(closed, height, width)))


def from_uncompressed(rle: dict, height: int, width: int) -> RLE:
    """Compressed RLE of COCO's crowd form, `{"size": [h, w], "counts": [int, ...]}`; compressed ones pass through."""
    if isinstance(rle["counts"], list):
        return _text(coco.frPyObjects(rle, height, width))
    return _text(rle)


def union(masks: Sequence[RLE], height: int, width: int) -> RLE:
    """Union of masks of one size; all background if there are none."""
    for mask in masks:
        if list(mask["size"]) != [height, width]:
            raise ValueError(f"a mask of size {mask['size']} cannot join an image of size {[height, width]}.")
    if len(masks) == 1:
        return masks[0]
    return _text(coco.merge(list(masks))) if masks else empty(height, width)


def empty(height: int, width: int) -> RLE:
    """A mask with no foreground."""
    return _text(coco.frPyObjects({"size": [height, width], "counts": [height * width]}, height, width))


def area(rle: RLE) -> int:
    """Number of foreground pixels."""
    return int(coco.area(rle))


def box(rle: RLE) -> tuple[float, float, float, float] | None:
    """Smallest box around the foreground, None if there is none."""
    if not area(rle):
        return None
    x, y, width, height = coco.toBbox(rle).tolist()
    return x, y, x + width, y + height


def iou_matrix(first: Sequence[RLE], second: Sequence[RLE]) -> np.ndarray:
    """IoU of every mask with every other, `(len(first), len(second))` float64; 0 where the union is empty."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    return np.nan_to_num(np.asarray(coco.iou(list(first), list(second), [0] * len(second)), dtype=np.float64))


def from_box(box: Sequence[float], height: int, width: int) -> RLE:
    """The filled box: every pixel whose centre lies inside it."""
    x1, y1, x2, y2 = (int(np.ceil(edge - 0.5)) for edge in box)  # the centre of pixel i is i + 0.5
    filled = np.zeros((height, width), dtype=bool)
    filled[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    return encode(filled)


def resize(mask: np.ndarray, height: int, width: int, how: Resize) -> np.ndarray:
    """Mask `(h, w)` to `bool (height, width)`.

    `nearest` takes the nearest cell. `bilinear` interpolates the 0/1 values and keeps what exceeds one half: against
    nearest it gains 0.5 to 2.1 mIoU when a coarse grid is blown up to real masks.
    """
    if how == "nearest":
        image = Image.fromarray(mask.astype(np.uint8))
        return np.asarray(image.resize((width, height), Image.Resampling.NEAREST)).astype(bool)
    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) > 0.5


def _text(rle: dict) -> RLE:
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}

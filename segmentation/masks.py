"""Masks: compressed COCO RLE at rest, `bool (H, W)` arrays in hand. All run-length work is pycocotools'."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from PIL import Image
from pycocotools import mask as pycocotools_mask

Resize = Literal["nearest", "bilinear"]

coco: Any = pycocotools_mask  # the stubs know counts as bytes only; it takes text as well


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
        ValueError: no polygon has 3 points, or one has an odd number of coordinates or one that is no pixel position.
    """
    if any(len(polygon) % 2 for polygon in polygons):
        raise ValueError(f"a polygon has an odd number of coordinates: {[len(polygon) for polygon in polygons]}.")
    closed = [list(map(float, polygon)) for polygon in polygons if len(polygon) >= 6]
    if not closed:
        raise ValueError(f"no polygon has 3 points: {list(map(len, polygons))} coordinates.")
    if not all(-1e5 < edge < 1e5 for polygon in closed for edge in polygon):  # pycocotools walks every edge; nan fails
        raise ValueError("a polygon has a coordinate that is not a number or lies far outside any image.")
    return _text(coco.merge(coco.frPyObjects(closed, height, width)))


def from_uncompressed(rle: dict, height: int, width: int) -> RLE:
    """Compressed RLE of one out of a file, whose counts are COCO's crowd form (a list of ints) or already compressed.

    Every RLE that is read from a file comes through here: pycocotools takes runs on trust, and where they do not fill
    the image it reads memory that is not the mask's (`decode`) or never ends (`merge`).

    Raises:
        ValueError: it is of another size than the image, or its runs do not fill it.
    """
    if not (isinstance(rle, dict) and isinstance(rle.get("size"), list) and isinstance(rle.get("counts"), str | list)):
        raise ValueError(
            f"a mask is {{'size': [height, width], 'counts': text}} (COCO's RLE), not {reprlib.repr(rle)}; "
            "pycocotools.mask.frPyObjects makes one of polygons, encode of an array."
        )
    if list(rle["size"]) != [height, width]:
        raise ValueError(f"the mask is {rle['size']} high and wide, its image {[height, width]}.")
    counts = rle["counts"]
    runs = counts if isinstance(counts, list) else _runs(counts)
    if not all(type(run) is int for run in runs):
        raise ValueError(f"the mask has a run of {next(run for run in runs if type(run) is not int)!r} pixels.")
    if min(runs, default=0) < 0:
        raise ValueError(f"the mask has a run of {min(runs)} pixels.")
    if sum(runs) != height * width:
        raise ValueError(f"the mask's runs cover {sum(runs)} of the {height * width} pixels of its image.")
    return _text(coco.frPyObjects(rle, height, width) if isinstance(counts, list) else rle)


def _runs(counts: str | bytes) -> list[int]:
    """The run lengths in a compressed RLE (`rleToString` in cocoapi's maskApi.c).

    5 bits a character, low bits first; each run after the third is written less the one before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts if isinstance(counts, bytes) else counts.encode():
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError(f"the mask's counts have the character {chr(character)!r}, which is not of an RLE.")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # the run goes on
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the mask's counts are cut short.")
    return runs


def union(masks: Sequence[RLE], height: int, width: int) -> RLE:
    """Union of masks of one size; all background if there are none."""
    for mask in masks:
        if list(mask["size"]) != [height, width]:
            raise ValueError(f"a mask of size {mask['size']} cannot join an image of size {[height, width]}.")
    if len(masks) == 1:
        return masks[0]
    return _text(coco.merge(list(masks))) if masks else empty(height, width)


def intersection(first: RLE, second: RLE) -> RLE:
    """The pixels that are foreground in both of two masks. Raises ValueError if they differ in size."""
    if list(first["size"]) != list(second["size"]):
        raise ValueError(f"masks of sizes {first['size']} and {second['size']} do not meet.")
    return _text(coco.merge([first, second], intersect=True))


def empty(height: int, width: int) -> RLE:
    """A mask with no foreground."""
    return _text(coco.frPyObjects({"size": [height, width], "counts": [height * width]}, height, width))


def area(rle: RLE) -> int:
    """Number of foreground pixels."""
    return int(coco.area(rle))


def shared_area(*rles: RLE) -> int:
    """Number of pixels that are foreground in all of the masks."""
    return int(coco.area(coco.merge(list(rles), intersect=True)))


def box(rle: RLE) -> tuple[float, float, float, float] | None:
    """Smallest box around the foreground, None if there is none."""
    if not area(rle):
        return None
    x, y, width, height = coco.toBbox(rle).tolist()
    return x, y, x + width, y + height


def deepest(rle: RLE) -> tuple[float, float] | None:
    """The centre of the foreground pixel that is farthest from any background, None if there is no foreground.

    Beyond the image all is background. Of several, the first from top to bottom, then from left to right.
    """
    from scipy.ndimage import distance_transform_edt  # here: it would take two thirds of this module's import time

    mask = np.pad(decode(rle), 1)
    if not mask.any():
        return None
    y, x = np.unravel_index(np.argmax(np.asarray(distance_transform_edt(mask))), mask.shape)
    return float(x) - 0.5, float(y) - 0.5


def iou_matrix(first: Sequence[RLE], second: Sequence[RLE]) -> np.ndarray:
    """IoU of every mask with every other, `(len(first), len(second))` float64; 0 where the union is empty."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    return np.nan_to_num(np.asarray(coco.iou(list(first), list(second), [0] * len(second)), dtype=np.float64))


def from_box(box: Sequence[float], height: int, width: int) -> RLE:
    """The filled box: every pixel whose centre lies inside it."""
    sides = (width, height, width, height)
    edges = (math.ceil(edge - 0.5) for edge in box)  # the centre of pixel i is i + 0.5
    x1, y1, x2, y2 = (min(max(edge, 0), side) for edge, side in zip(edges, sides, strict=True))
    columns = np.arange(x1, x2) * height
    return from_flips((columns[:, None] + [y1, max(y1, y2)]).ravel(), height, width)


def from_flips(flips: np.ndarray, height: int, width: int) -> RLE:
    """The mask that changes between background and foreground at `flips`, starting from background.

    Args:
        flips: `(N,)` ascending column-major positions, `x * height + y`; a position given twice changes nothing.
    """
    if (flips[1:] == flips[:-1]).any():
        flips, times = np.unique(flips, return_counts=True)
        flips = flips[times % 2 == 1]
    flips = flips[: np.searchsorted(flips, height * width)]  # what changes after the last pixel changes nothing
    edges = np.empty(len(flips) + 2, dtype=np.int64)
    edges[0], edges[1:-1], edges[-1] = 0, flips, height * width
    return _text(coco.frPyObjects({"size": [height, width], "counts": np.diff(edges)}, height, width))


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

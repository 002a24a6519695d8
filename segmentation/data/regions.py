"""Regions of an image as annotation files write them: COCO segmentations, boxes and label pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segmentation import masks
from segmentation.boxes import Box
from segmentation.sample import Target

SLIP = 0.05  # how far beyond the border, of a side, an annotator's hand may go; farther, it is another image's


def mask_of(segmentation: Any, height: int, width: int) -> masks.RLE:
    """Mask of a COCO `segmentation`: polygons, an RLE compressed or not, or a list of such RLEs.

    Raises:
        ValueError: it is none of these, encloses nothing, lies outside its image, or is an RLE of another size.
    """
    parts = segmentation if isinstance(segmentation, list) else [segmentation]
    if parts and all(isinstance(part, dict) for part in parts):
        return masks.union([masks.from_uncompressed(part, height, width) for part in parts], height, width)
    if parts and all(isinstance(part, list) for part in parts):
        mask = masks.from_polygons(parts, height, width)
        for part in parts:
            check_inside(part[::2], part[1::2], height, width, "a polygon")
        return mask
    kinds = sorted({type(part).__name__ for part in parts})
    raise ValueError(f"segmentation is neither polygons nor RLE but a list of {' and '.join(kinds) or 'nothing'}.")


def box_of(bbox: Sequence[float], height: int, width: int) -> Box:
    """A COCO `bbox` [x, y, width, height] as a box. Raises ValueError if it has no area or is outside its image."""
    x, y, w, h = map(float, bbox)
    if not (w > 0 and h > 0):
        raise ValueError(f"bbox {bbox} has no area.")
    check_inside((x, x + w), (y, y + h), height, width, f"bbox {list(bbox)}")
    return x, y, x + w, y + h


def target_of(mask: masks.RLE, box: Box | None = None, label: str | None = None) -> Target:
    """A target of a mask, with the box around it unless the file has one. Raises ValueError if it has no pixel."""
    box = masks.box(mask) if box is None or not masks.area(mask) else box
    if box is None:
        raise ValueError("segmentation encloses no pixel of its image; a data.skip... option can leave it out.")
    return Target(box, mask, label)


def check_inside(xs: Sequence[float], ys: Sequence[float], height: int, width: int, what: str) -> None:
    """Raises ValueError if a point lies farther outside of the image than a hand slips; what slips is clipped."""
    if not len(xs):
        return
    across, down = max(2.0, SLIP * width), max(2.0, SLIP * height)
    if not (min(xs) >= -across and max(xs) <= width + across and min(ys) >= -down and max(ys) <= height + down):
        raise ValueError(
            f"{what} reaches from ({min(xs):g}, {min(ys):g}) to ({max(xs):g}, {max(ys):g}), far outside its image of "
            f"{width}x{height}; image and annotation do not belong together."
        )


def picture_mask(path: Path, height: int, width: int) -> masks.RLE:
    """Mask of a label picture: every pixel that is not black.

    Raises:
        ValueError: no such file, it cannot be read, or it is of another size than its image.
    """
    try:
        with Image.open(path) as opened:
            values = np.asarray(opened.convert("L"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; check data.root.") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read: {error}. Download it again.") from error
    if values.shape != (height, width):
        raise ValueError(f"{path}: the mask is {list(values.shape)} high and wide, its image {[height, width]}.")
    return masks.encode(values)

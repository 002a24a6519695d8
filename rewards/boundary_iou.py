"""Does the outline of the mask lie where the target's does?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rewards.over_masks import over_masks
from segmentation.masks import RLE, box, decode, union
from segmentation.metrics import overlap
from segmentation.sample import Found, Prediction, Sample

DILATION = 0.02  # width of a boundary as a share of the image's diagonal


def boundary_iou(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    surplus: float = 0.0,
    **_,
) -> list[float | None]:
    """IoU of the boundaries of two masks: the union of the predicted ones and the union of the targets'.

    A boundary is the part of a mask within `d` pixels of what is not mask, along either axis or diagonally; `d` is 2%
    of the image's diagonal, rounded, and at least 1. Beyond the image nothing is mask. So the interior of a large
    object, most of its `mask_iou`, counts for nothing; an object no wider than `2 d` is all boundary. Ignored pixels
    are taken out of both masks first: what is painted there changes nothing.

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None where no answer could be scored: samples without target, and those
    annotated with boxes only.

    Args:
        surplus: what more objects than are annotated cost (`rewards.surplus`).

    Source: Boundary IoU (arXiv 2103.16562); `d` and the image's border as in its published code
    (bowenc0221/boundary-iou-api).

    Raises:
        ValueError: `surplus` is negative, or a `Found` has no mask: the format needs a decoder, and none ran.
    """
    return over_masks("boundary_iou", predictions, samples, masks, _boundary_iou, surplus)


def _boundary_iou(sample: Sample, found: Found, mask: RLE) -> float:
    truth = sample.mask
    assert truth  # or the reward does not apply
    seen = overlap(sample, mask)  # from run lengths alone; also sees that the masks are of the image's size
    if not seen or not seen.intersection:
        return 0.0
    distance = max(round(DILATION * math.hypot(sample.height, sample.width)), 1)
    first, second = (_boundary(part, distance) for part in _parts(sample, mask, truth))
    return float(np.count_nonzero(first & second) / np.count_nonzero(first | second))


def _parts(sample: Sample, *masks: RLE) -> list[np.ndarray]:
    """The masks `bool (h, w)` without ignored pixels, in the box around them all: outside is nothing to be eroded."""
    around = box(union(masks, sample.height, sample.width))
    assert around  # they intersect
    x1, y1, x2, y2 = map(int, around)
    counts = True if sample.ignore is None else ~decode(sample.ignore)[y1:y2, x1:x2]
    return [decode(mask)[y1:y2, x1:x2] & counts for mask in masks]


def _boundary(mask: np.ndarray, distance: int) -> np.ndarray:
    """The part of a mask `bool (h, w)` that erosion by a square of `2 distance + 1` pixels takes away."""
    return mask & ~_all_of(_all_of(mask, distance).T, distance).T


def _all_of(mask: np.ndarray, distance: int) -> np.ndarray:
    """Where all pixels of a column within `distance` are set, beyond its ends none being so; `bool (h, w)`."""
    side = 2 * distance + 1
    mask = np.pad(mask, ((distance, distance), (0, 0)))
    reach = 1  # of the pixels that each one stands for; doubled, so that a side of 33 takes 6 steps
    while reach < side:
        step = min(reach, side - reach)
        mask = mask[:-step] & mask[step:]
        reach += step
    return mask

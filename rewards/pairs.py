"""Scores of every predicted object with every annotated one: what rewards are matched by.

Each is `pair(found, sample, **options) -> (P, G)` float64 in 0..1, for `P` predicted and `G` annotated objects.
`matched_mean` makes a reward of one or of several (`rewards/matched.py`): the rewards of boxes and points differ in
nothing else.

Lengths are in pixels of the original image, or, with `frame=[height, width]`, of an image squashed to that size: peers
publish thresholds in their own, 840 x 840.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from rewards.surplus import kept
from segmentation import boxes, masks, matching
from segmentation.masks import RLE
from segmentation.sample import Found, Prediction, Sample, Target

Pair = Callable[[Found, Sample], np.ndarray]
Kind = Literal["iou", "giou", "diou"]
Frame = Sequence[int]


def matched_mean(prediction: Prediction, sample: Sample, pairs: Sequence[Pair], surplus: float = 0.0) -> float | None:
    """The best one-to-one match by the mean of the pairs' scores, summed over max(predicted, annotated).

    `surplus` takes more from answers of more objects than are annotated (`rewards.surplus`).

    0 for `NoTarget` and `Invalid`; None on samples without target, whatever the answer.
    """
    if not sample.targets:
        return None
    if not isinstance(prediction, Found):
        return 0.0
    scores = np.mean([pair(prediction, sample) for pair in pairs], axis=0)
    return kept(prediction, sample, surplus) * matching.matched_mean(scores)


def box_iou(
    found: Found,
    sample: Sample,
    *,
    kind: Kind = "iou",
    power: float = 1.0,
    above: float | None = None,
    graded: bool = True,
) -> np.ndarray:
    """Overlap of boxes; the options are those of the reward `box_iou`."""
    if kind not in get_args(Kind):
        raise ValueError(f"kind={kind!r} is no overlap of boxes; set it to one of {', '.join(get_args(Kind))}.")
    if power <= 0:
        raise ValueError(f"power={power} would pay a miss as much as a hit; set a positive one, such as 2.")
    if above is not None and not 0 <= above < 1:
        raise ValueError(f"above={above} is no overlap that can be exceeded; set it in 0..1, such as 0.5.")
    if not graded and above is None:
        raise ValueError("graded=false without above would pay every box 1; set above, such as 0.5.")
    sides = found.boxes, [target.box for target in sample.targets]
    match kind:
        case "iou":
            overlaps = boxes.iou_matrix(*sides)
        case "giou":
            overlaps = (1 + boxes.giou_matrix(*sides)) / 2
        case "diou":
            overlaps = (1 + boxes.diou_matrix(*sides)) / 2
    paid = overlaps**power if graded else np.ones_like(overlaps)
    return paid if above is None else np.where(overlaps > above, paid, 0.0)


def box_l1(
    found: Found, sample: Sample, *, below: float = 10.0, frame: Frame | None = None, graded: bool = False
) -> np.ndarray:
    """Distance of the edges of boxes; the options are those of the reward `box_l1`."""
    scale = np.tile(_scale(sample, frame), 2)  # (4,)
    predicted = np.array(found.boxes) * scale
    annotated = np.array([target.box for target in sample.targets]) * scale
    return _near(np.abs(predicted[:, None] - annotated).mean(axis=2), below, graded)


def point_distance(
    found: Found,
    sample: Sample,
    *,
    below: float = 30.0,
    frame: Frame | None = None,
    inside: bool = True,
    graded: bool = False,
) -> np.ndarray:
    """Distance of points; the options are those of the reward `point_distance`."""
    scale = _scale(sample, frame)
    predicted = _points(found, sample)
    annotated = np.array([_point(target) for target in sample.targets])
    near = _near(np.linalg.norm((predicted[:, None] - annotated) * scale, axis=2), below, graded)
    return near * _within(predicted, np.array(found.boxes))[:, None] if inside else near


def point_in_box(found: Found, sample: Sample) -> np.ndarray:
    """Whether the predicted point lies in the annotated box, its edges included: 0 or 1."""
    annotated = np.array([target.box for target in sample.targets])
    return _within(_points(found, sample)[:, None], annotated).astype(np.float64)


def mask_iou(found: Found, sample: Sample, *, power: float = 1.0) -> np.ndarray:
    """IoU of the masks of single objects, to a power. `Sample.ignore` is not looked at: it belongs to no object."""
    predicted = [instance.mask for instance in found.instances if instance.mask is not None]
    annotated = [target.mask for target in sample.targets if target.mask is not None]
    if len(predicted) < len(found.instances) or len(annotated) < len(sample.targets):
        raise ValueError(
            f"pairs.mask_iou: sample {sample.id} or its answer has an object without a mask; configure a decoder, "
            "or match boxes with rewards.pairs.box_iou."
        )
    return masks.iou_matrix(predicted, annotated) ** power


def _near(distances: np.ndarray, below: float, graded: bool) -> np.ndarray:
    if not below > 0:
        raise ValueError(f"below={below}: no distance is shorter; set it to the pixels that still count, such as 10.")
    return np.maximum(1 - distances / below, 0.0) if graded else (distances < below).astype(np.float64)


def _scale(sample: Sample, frame: Frame | None) -> np.ndarray:
    """Units of the frame in a pixel of the image, along x and y."""
    if frame is None:
        return np.ones(2)
    if len(frame) != 2 or min(frame) <= 0:
        raise ValueError(f"frame={list(frame)} is no size; set it to [height, width] of the frame, or null for pixels.")
    height, width = frame
    return np.array([width / sample.width, height / sample.height])


def _within(points: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Whether points `(..., 2)` lie in boxes `(..., 4)`, their edges included."""
    return np.asarray(((points >= around[..., :2]) & (points <= around[..., 2:])).all(axis=-1))


def _points(found: Found, sample: Sample) -> np.ndarray:
    """`(P, 2)`, x and y."""
    points = [instance.point for instance in found.instances if instance.point is not None]
    if len(points) < len(found.instances):
        raise ValueError(
            f"sample {sample.id}: its answer has an object without a point; set format.point=true, or drop the rewards "
            "of points."
        )
    return np.array(points)


def _point(target: Target) -> tuple[float, float]:
    """Where an object is pointed at, as `format.point` writes it: deepest in its mask, or the middle of its box."""
    x1, y1, x2, y2 = target.box
    middle = (x1 + x2) / 2, (y1 + y2) / 2
    return middle if target.mask is None else _deepest(target.mask["counts"], *target.mask["size"]) or middle


@lru_cache(maxsize=4096)  # the completions of a group share their targets, and a distance transform takes milliseconds
def _deepest(counts: str, height: int, width: int) -> tuple[float, float] | None:
    return masks.deepest(RLE(size=[height, width], counts=counts))

"""How well the boxes of an answer fit: those it wrote, and those around the masks it painted."""

from __future__ import annotations

from collections.abc import Sequence

from segmentation.boxes import Box, around, iou_matrix
from segmentation.masks import box
from segmentation.matching import matched_mean
from segmentation.sample import Found, Prediction, Sample


def box_score(sample: Sample, prediction: Prediction) -> float | None:
    """Sum of the IoU of Hungarian-matched boxes over max(predicted, annotated), 0..1.

    0 for `NoTarget` and `Invalid`; None if the sample has no target, where boxes say nothing.

    Raises:
        ValueError: an instance has no box (`Found.boxes`).
    """
    return _matched(sample, prediction.boxes if isinstance(prediction, Found) else ())


def mask_box_score(sample: Sample, prediction: Prediction) -> float | None:
    """`box_score` of the smallest boxes around the painted masks; an empty mask has a box that meets none.

    None also where an instance has no mask.
    """
    if not isinstance(prediction, Found):
        return _matched(sample, ())
    painted = [instance.mask for instance in prediction.instances if instance.mask is not None]
    if len(painted) < len(prediction.instances):
        return None
    return _matched(sample, [box(mask) or (0.0, 0.0, 0.0, 0.0) for mask in painted])


def any_box(sample: Sample, prediction: Prediction) -> bool | None:
    """Whether some box overlaps the box around all targets by more than one half: VisionReasoner's `bbox_AP`.

    Its data have one box a sample (`evaluation/evaluation_segmentation.py`); with several targets that is the box
    around all of them. False without target, for `NoTarget` and for `Invalid`; None where an instance has no box.
    """
    if not isinstance(prediction, Found):
        return False
    boxes = [instance.box for instance in prediction.instances if instance.box is not None]
    if len(boxes) < len(prediction.instances):
        return None
    if not sample.targets:
        return False
    whole = around([target.box for target in sample.targets])
    return bool((iou_matrix(boxes, [whole]) > 0.5).any())


def _matched(sample: Sample, boxes: Sequence[Box]) -> float | None:
    if not sample.targets:
        return None
    return matched_mean(iou_matrix(boxes, [target.box for target in sample.targets])) if boxes else 0.0

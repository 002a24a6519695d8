"""Is the mask right, given the box it was drawn in?"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation.masks import RLE, from_box, intersection, union
from segmentation.metrics import overlap
from segmentation.sample import Found, Invalid, Prediction, Sample


def shape_iou(
    predictions: Sequence[Prediction], samples: Sequence[Sample], masks: Sequence[RLE | None], **_
) -> list[float | None]:
    """IoU of predicted mask and targets inside the predicted boxes: what lies outside counts neither way.

    What `mask_iou` says of the shape alone: which object was chosen, and how well its box lies, is taken out. For the
    tokens of the mask (`tokens: mask`), which come after the box and cannot mend it.

    Range: 0..1; 0 for `Invalid`. None where there is nothing to draw: `NoTarget`, boxes that hold nothing of a target,
    and samples without target or annotated with boxes only. So it does not apply to all completions of a group.
    """
    return [_score(*row) for row in zip(predictions, samples, masks, strict=True)]


def _score(prediction: Prediction, sample: Sample, mask: RLE | None) -> float | None:
    if not sample.targets or sample.mask is None:
        return None
    if isinstance(prediction, Invalid):
        return 0.0
    if not isinstance(prediction, Found) or mask is None:
        return None
    size = sample.height, sample.width
    boxes = union([from_box(box, *size) for box in prediction.boxes], *size)
    meant = overlap(sample, boxes)
    seen = overlap(sample, intersection(mask, boxes))
    assert meant and seen  # the sample has masks
    if not meant.intersection:
        return None
    return seen.intersection / (seen.predicted + meant.intersection - seen.intersection)

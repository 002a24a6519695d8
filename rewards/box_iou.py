"""Do the boxes lie where the targets are?"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation.masks import RLE
from segmentation.metrics import box_score
from segmentation.sample import Prediction, Sample


def box_iou(
    predictions: Sequence[Prediction], samples: Sequence[Sample], masks: Sequence[RLE | None], **_
) -> list[float | None]:
    """Sum of the IoU of Hungarian-matched boxes over max(predicted, annotated); plain IoU when both are one.

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None on samples without target, whatever the answer. It is the
    metric's own score (`segmentation.metrics.box_score`). Sources: plain IoU as VLM-R1 (arXiv 2504.07615); matching and
    max(M, N) as VisionReasoner (arXiv 2505.12081), there of thresholded scores.
    """
    return [box_score(sample, prediction) for prediction, sample in zip(predictions, samples, strict=True)]

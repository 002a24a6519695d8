"""Does the mask cover what is meant?"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation.masks import RLE
from segmentation.metrics import overlap
from segmentation.sample import Found, Prediction, Sample


def mask_iou(
    predictions: Sequence[Prediction], samples: Sequence[Sample], masks: Sequence[RLE | None], **_
) -> list[float | None]:
    """IoU of the union of the predicted masks with the union of the targets', ignored pixels taken out of both.

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None where no answer could be scored: samples without target, and those
    annotated with boxes only. Source: the quantity that gIoU averages (LISA, arXiv 2308.00692); as a reward, LENS
    (arXiv 2508.14153), there squared.

    Raises:
        ValueError: a `Found` has no mask: the format needs a decoder, and none ran.
    """
    return [_score(*row) for row in zip(predictions, samples, masks, strict=True)]


def _score(prediction: Prediction, sample: Sample, mask: RLE | None) -> float | None:
    if not sample.targets or sample.mask is None:
        return None
    if not isinstance(prediction, Found):
        return 0.0
    if mask is None:
        raise ValueError(
            f"mask_iou: the answer to sample {sample.id} has boxes and no mask; configure a decoder or drop the reward."
        )
    seen = overlap(sample, mask)
    return seen.intersection / seen.union if seen and seen.union else 0.0

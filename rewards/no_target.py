"""Is it said that nothing is meant, where nothing is?"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation.masks import RLE
from segmentation.sample import NoTarget, Prediction, Sample


def no_target(
    predictions: Sequence[Prediction], samples: Sequence[Sample], masks: Sequence[RLE | None], **_
) -> list[float | None]:
    """1 for `NoTarget` on a sample without target, 0 for any other answer to it. None on samples with targets.

    Range: 0 or 1; its mean is N_acc. Only the explicit answer is paid: an empty or broken one is `Invalid`. That a
    false `NoTarget` must not pay is the others' business: `box_iou` and `mask_iou` give it 0. Source: N-acc of
    gRefCOCO (ReLA, arXiv 2306.00968).
    """
    return [
        None if sample.targets else float(isinstance(prediction, NoTarget))
        for prediction, sample in zip(predictions, samples, strict=True)
    ]

"""Are there as many objects as are meant?"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation.masks import RLE
from segmentation.sample import Found, Prediction, Sample


def count(
    predictions: Sequence[Prediction], samples: Sequence[Sample], masks: Sequence[RLE | None], **_
) -> list[float | None]:
    """`min(M, N) / max(M, N)` of M predicted and N annotated objects, wherever they are.

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None on samples without target. It pays guesses of the right number: a
    small weight beside rewards of place. Source: the length factor `min(1, N / M)` of VLM-R1's `odLength`
    (arXiv 2504.07615), here also against too few.
    """
    return [_score(*row) for row in zip(predictions, samples, strict=True)]


def _score(prediction: Prediction, sample: Sample) -> float | None:
    if not sample.targets:
        return None
    if not isinstance(prediction, Found):
        return 0.0
    counts = len(prediction.instances), len(sample.targets)
    return min(counts) / max(counts)

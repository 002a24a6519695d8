"""Do the points lie on the targets?"""

from __future__ import annotations

from collections.abc import Sequence

from rewards import pairs
from segmentation.masks import RLE
from segmentation.sample import Prediction, Sample


def point_in_box(
    predictions: Sequence[Prediction], samples: Sequence[Sample], masks: Sequence[RLE | None], **_
) -> list[float | None]:
    """Share of points inside the box of the target they are matched with, over max(M, N); edges are inside.

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None on samples without target. Source: the accuracy of pointing in
    GUI grounding (SeeClick, arXiv 2401.10935); matching and max(M, N) as VisionReasoner (arXiv 2505.12081).

    Raises:
        ValueError: an answer has no points.
    """
    return [
        pairs.matched_mean(prediction, sample, [pairs.point_in_box])
        for prediction, sample in zip(predictions, samples, strict=True)
    ]

"""Do the points lie near those of the targets?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rewards import pairs
from segmentation.masks import RLE
from segmentation.sample import Prediction, Sample


def point_distance(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    below: float = 30.0,
    frame: pairs.Frame | None = None,
    inside: bool = True,
    graded: bool = False,
    surplus: float = 0.0,
    **_,
) -> list[float | None]:
    """Share of points less than `below` pixels from the target's: matched, over max(M, N).

    The target's point is the pixel deepest in its mask, or the middle of its box where it has no mask.

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None on samples without target.

    Args:
        below: pixels of the frame.
        frame: `[height, width]` that images are squashed to before pixels are counted; null for the original's own.
        inside: a point outside the predicted box pays nothing.
        graded: pay `max(0, 1 - distance / below)` for each pair, not 0 or 1.
        surplus: what more objects than are annotated cost, besides (`rewards.surplus`).

    Source: VisionReasoner (arXiv 2505.12081), 30 pixels of 840 x 840; Seg-Zero (arXiv 2503.06520), 100, there the mean
    of two points.

    Raises:
        ValueError: `below` or `frame` is not positive, or an answer has no points.
    """
    pair = partial(pairs.point_distance, below=below, frame=frame, inside=inside, graded=graded)
    return [
        pairs.matched_mean(prediction, sample, [pair], surplus)
        for prediction, sample in zip(predictions, samples, strict=True)
    ]

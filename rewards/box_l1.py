"""How far are the edges of the boxes from those of the targets?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rewards import pairs
from segmentation.masks import RLE
from segmentation.sample import Prediction, Sample


def box_l1(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    below: float = 10.0,
    frame: pairs.Frame | None = None,
    graded: bool = False,
    surplus: float = 0.0,
    **_,
) -> list[float | None]:
    """Share of boxes whose four edges are, on average, less than `below` pixels off: matched, over max(M, N).

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None on samples without target.

    Args:
        below: pixels of the frame.
        frame: `[height, width]` that images are squashed to before pixels are counted; null for the original's own.
        graded: pay `max(0, 1 - L1 / below)` for each pair, not 0 or 1.
        surplus: what more objects than are annotated cost, besides (`rewards.surplus`).

    Source: Seg-Zero (arXiv 2503.06520) and VisionReasoner (arXiv 2505.12081), 10 pixels of 840 x 840.

    Raises:
        ValueError: `below` or `frame` is not positive, or an answer has no boxes.
    """
    pair = partial(pairs.box_l1, below=below, frame=frame, graded=graded)
    return [
        pairs.matched_mean(prediction, sample, [pair], surplus)
        for prediction, sample in zip(predictions, samples, strict=True)
    ]

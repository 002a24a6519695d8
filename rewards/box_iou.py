"""Do the boxes lie where the targets are?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rewards import pairs
from segmentation.masks import RLE
from segmentation.sample import Prediction, Sample


def box_iou(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    kind: pairs.Kind = "iou",
    power: float = 1.0,
    above: float | None = None,
    graded: bool = True,
    surplus: float = 0.0,
    **_,
) -> list[float | None]:
    """Sum of the overlap of Hungarian-matched boxes over max(predicted, annotated); plain IoU when both are one.

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None on samples without target, whatever the answer. As it stands it is
    the metric's own score (`segmentation.metrics.box_score`).

    Args:
        kind: `iou`; `giou` and `diou` also tell misses apart, and lie in 0..1 as `(1 + GIoU) / 2`, `(1 + DIoU) / 2`. A
            box around everything gets over 0.5 of these: they shape, and should not be all that is paid.
        power: of the overlap; 2 pays the last pixels more.
        above: pairs whose overlap, before the power, is not over it pay nothing.
        graded: false pays 1 for every pair over `above`.
        surplus: what more objects than are annotated cost, besides (`rewards.surplus`).

    Sources: plain IoU as VLM-R1 (arXiv 2504.07615); matching and max(M, N) as VisionReasoner (arXiv 2505.12081), there
    of thresholded scores; squared as LENS (arXiv 2508.14153); over 0.5 as Seg-Zero (arXiv 2503.06520); over 0.5 and
    graded as Visual-RFT (arXiv 2503.01785), whose reward on LISA's data is `1 + GIoU`.

    Raises:
        ValueError: an option is out of range, or an answer has no boxes.
    """
    pair = partial(pairs.box_iou, kind=kind, power=power, above=above, graded=graded)
    return [
        pairs.matched_mean(prediction, sample, [pair], surplus)
        for prediction, sample in zip(predictions, samples, strict=True)
    ]

"""Are the objects right, taken one by one, in everything at once?"""

from __future__ import annotations

from collections.abc import Sequence

from rewards.pairs import Pair, matched_mean
from segmentation.masks import RLE
from segmentation.sample import Prediction, Sample


def matched(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    pairs: Sequence[Pair],
    **_,
) -> list[float | None]:
    """Mean of several scores of pairs, by the one-to-one match (Hungarian) that maximises it, over max(M, N).

    Rewards that each match for themselves may pair the same object differently; this is one match for all scores.

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None on samples without target.

    Args:
        pairs: what is scored, functions of `rewards.pairs` or others of their form:
            `[{_target_: rewards.pairs.box_iou, above: 0.5, graded: false}, {_target_: rewards.pairs.box_l1}]`.

    Source: VisionReasoner (arXiv 2505.12081), there the sum of three.

    Raises:
        ValueError: no pairs are given.
    """
    if not pairs:
        raise ValueError("pairs=[]: nothing to match by; name a function such as rewards.pairs.box_iou.")
    return [matched_mean(prediction, sample, pairs) for prediction, sample in zip(predictions, samples, strict=True)]

"""Are the boxes sure where they are right, and unsure where they are wrong?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rewards import pairs
from segmentation.masks import RLE
from segmentation.matching import hungarian
from segmentation.sample import Found, Prediction, Sample


def confidence(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    above: float = 0.5,
    **_,
) -> list[float | None]:
    """Mean over predicted boxes of `c` for those that hit a target and `1 - c` for the others.

    `c` is the `confidence` that the text states; a box written without is meant for sure (1), and the reward is then
    precision. What a decoder thinks of its mask (`score`) is no statement of the policy: a miss would be paid by it. A
    box hits if it is matched to a target by an IoU over `above`.

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None on samples without target. Source: the confidence reward of
    Visual-RFT (arXiv 2503.01785).

    Raises:
        ValueError: `above` is out of range, or an answer has no boxes.
    """
    pair = partial(pairs.box_iou, above=above)

    def score(prediction: Prediction, sample: Sample) -> float | None:
        if not sample.targets:
            return None
        if not isinstance(prediction, Found):
            return 0.0
        overlaps = pair(prediction, sample)
        hits = {box for box, target in hungarian(overlaps) if overlaps[box, target]}
        sure = [1.0 if instance.confidence is None else instance.confidence for instance in prediction.instances]
        return sum(c if box in hits else 1 - c for box, c in enumerate(sure)) / len(sure)

    return [score(*row) for row in zip(predictions, samples, strict=True)]

"""How much of mask and target is common to both?"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation.masks import RLE
from segmentation.metrics import overlap
from segmentation.sample import Found, Prediction, Sample


def mask_dice(
    predictions: Sequence[Prediction], samples: Sequence[Sample], masks: Sequence[RLE | None], **_
) -> list[float | None]:
    """Dice of the union of the predicted masks and the union of the targets', ignored pixels taken out of both.

    Twice the intersection over the sum of both areas: `2 IoU / (1 + IoU)`, kinder than `mask_iou` to a poor mask, and
    flatter where masks are good already.

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None where no answer could be scored: samples without target, and those
    annotated with boxes only. Source: Dice (Ecology 26, 1945); as a loss of soft masks, V-Net (arXiv 1606.04797).

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
            f"mask_dice: the answer to sample {sample.id} has boxes and no mask; "
            "configure a decoder or drop the reward."
        )
    seen = overlap(sample, mask)
    assert seen  # the sample has masks
    pixels = seen.predicted + seen.meant
    return 2 * seen.intersection / pixels if pixels else 0.0

"""How much of mask and target is common to both?"""

from __future__ import annotations

from collections.abc import Sequence

from rewards.over_masks import over_masks
from segmentation.masks import RLE
from segmentation.metrics import overlap
from segmentation.sample import Found, Prediction, Sample


def mask_dice(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    surplus: float = 0.0,
    **_,
) -> list[float | None]:
    """Dice of the union of the predicted masks and the union of the targets', ignored pixels taken out of both.

    Twice the intersection over the sum of both areas: `2 IoU / (1 + IoU)`, kinder than `mask_iou` to a poor mask, and
    flatter where masks are good already.

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None where no answer could be scored: samples without target, and those
    annotated with boxes only.

    Args:
        surplus: what more objects than are annotated cost (`rewards.surplus`).

    Source: Dice (Ecology 26, 1945); as a loss of soft masks, V-Net (arXiv 1606.04797).

    Raises:
        ValueError: `surplus` is negative, or a `Found` has no mask: the format needs a decoder, and none ran.
    """
    return over_masks("mask_dice", predictions, samples, masks, _dice, surplus)


def _dice(sample: Sample, found: Found, mask: RLE) -> float:
    seen = overlap(sample, mask)
    assert seen  # the sample has masks
    pixels = seen.predicted + seen.meant
    return 2 * seen.intersection / pixels if pixels else 0.0

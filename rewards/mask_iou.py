"""Does the mask cover what is meant?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from rewards.over_masks import over_masks
from segmentation.masks import RLE, decode
from segmentation.metrics import overlap
from segmentation.sample import Found, Prediction, Sample


def mask_iou(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    power: float = 1.0,
    soft: bool = False,
    surplus: float = 0.0,
    **_,
) -> list[float | None]:
    """IoU of the union of the predicted masks with the union of the targets', ignored pixels taken out of both.

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None where no answer could be scored: samples without target, and those
    annotated with boxes only.

    Args:
        power: of the IoU; 2 pays the last pixels more.
        soft: `sum(p g) / sum(p + g - p g)` of probabilities `p` and shares `g` of foreground in the decoder's cells, so
            that a decoder unsure of an edge is paid for where it leans. Cells that an edge crosses keep even the truth
            under 1. Masks that come without probabilities (bricks, filled boxes) are scored as they are.
        surplus: what more objects than are annotated cost (`rewards.surplus`).

    Sources: the quantity that gIoU averages (LISA, arXiv 2308.00692); as a reward, LENS (arXiv 2508.14153), there
    squared; soft, CoPRS (arXiv 2510.11173). `surplus` is this project's own.

    Raises:
        ValueError: an option is out of range, or a `Found` has no mask: the format needs a decoder, and none ran.
    """
    if power <= 0:
        raise ValueError(f"power={power} would pay a miss as much as a hit; set a positive one, such as 2.")

    def score(sample: Sample, found: Found, mask: RLE) -> float:
        return (_soft(sample, found, mask) if soft else _hard(sample, mask)) ** power

    return over_masks("mask_iou", predictions, samples, masks, score, surplus)


def _hard(sample: Sample, mask: RLE) -> float:
    seen = overlap(sample, mask)
    return seen.intersection / seen.union if seen and seen.union else 0.0


def _soft(sample: Sample, found: Found, mask: RLE) -> float:
    maps = [instance.probability for instance in found.instances if instance.probability is not None]
    if len(maps) < len(found.instances) or sample.mask is None:
        return _hard(sample, mask)
    said = np.max(maps, axis=0).astype(np.float64)  # (h, w): of several objects, the likeliest
    meant = _shares(sample.mask, said.shape)
    kept = 1.0 if sample.ignore is None else 1 - _shares(sample.ignore, said.shape)
    common = said * meant
    union = float(np.sum(kept * (said + meant - common)))
    return float(np.sum(kept * common)) / union if union else 0.0


def _shares(mask: RLE, cells: tuple[int, ...]) -> np.ndarray:
    """Share of foreground in each of `(h, w)` cells that the image is cut into."""
    image = Image.fromarray(decode(mask).astype(np.float32))
    return np.asarray(image.resize((cells[1], cells[0]), Image.Resampling.BOX), np.float64)

"""Has the mask the structure of what is meant?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewards.over_masks import over_masks
from segmentation.masks import RLE, decode
from segmentation.sample import Found, Prediction, Sample


def s_measure(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    alpha: float = 0.5,
    surplus: float = 0.0,
    **_,
) -> list[float | None]:
    """Structure measure of the union of the predicted masks: `max(0, alpha * objects + (1 - alpha) * regions)`.

    `objects` weighs by area how evenly foreground and background are filled, each `2 x / (x^2 + 1 + s)` of the share
    `x` that is painted right and its deviation `s`. `regions` is the similarity of means and of variation (SSIM) in the
    four quarters around the target's centroid, weighed by area. Background counts, so a miss keeps much of it: not for
    use alone.

    Range: 0..1; 0 for `NoTarget` and `Invalid`. None where no answer could be scored: samples without target, and those
    annotated with boxes only. Ignored pixels are background on both sides.

    Args:
        alpha: weight of `objects`.
        surplus: what more objects than are annotated cost (`rewards.surplus`).

    Sources: Fan et al., ICCV 2017 (arXiv 1708.00786); as a reward, Seg-R1 (arXiv 2506.22624), whose code compares a
    mask of 0 and 1 with 128, so that every target is empty there and painting less is paid more.

    Raises:
        ValueError: an option is out of range, or a `Found` has no mask: the format needs a decoder, and none ran.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha} is no share of the whole; set it in 0..1.")

    def score(sample: Sample, found: Found, mask: RLE) -> float:
        assert sample.mask  # `over_masks` has looked
        painted, meant = decode(mask), decode(sample.mask)
        if sample.ignore is not None:
            kept = ~decode(sample.ignore)
            painted, meant = painted & kept, meant & kept
        if not meant.any():
            return 0.0
        if meant.all():
            return float(painted.mean())
        return max(0.0, alpha * _objects(painted, meant) + (1 - alpha) * _regions(painted, meant))

    return over_masks("s_measure", predictions, samples, masks, score, surplus)


def _objects(painted: np.ndarray, meant: np.ndarray) -> float:
    share = float(meant.mean())
    return share * _filled(painted[meant]) + (1 - share) * _filled(~painted[~meant])


def _filled(right: np.ndarray) -> float:
    """Of `(n,)` pixels that ought to be of one kind, which are."""
    x = float(right.mean())
    deviation = float(right.std(ddof=1)) if right.size > 1 else 0.0
    return 2 * x / (x * x + 1 + deviation)


def _regions(painted: np.ndarray, meant: np.ndarray) -> float:
    y, x = np.rint(np.argwhere(meant).mean(axis=0)).astype(int) + 1  # the centroid's pixel is of the first quarter
    quarters = [(rows, columns) for rows in (slice(0, y), slice(y, None)) for columns in (slice(0, x), slice(x, None))]
    return sum(meant[q].size / meant.size * _similarity(painted[q], meant[q]) for q in quarters if meant[q].size)


def _similarity(painted: np.ndarray, meant: np.ndarray) -> float:
    """SSIM of one quarter, `2 x y / (x^2 + y^2) * 2 c / (v + w)`, of means, covariance and variances."""
    x, y = float(painted.mean()), float(meant.mean())
    degrees = max(meant.size - 1, 1)
    covariance = float(((painted - x) * (meant - y)).sum()) / degrees
    variances = float(((painted - x) ** 2).sum() + ((meant - y) ** 2).sum()) / degrees
    common, whole = 4 * x * y * covariance, (x * x + y * y) * variances
    if common:
        return common / whole
    return 0.0 if whole else 1.0

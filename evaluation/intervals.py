"""Bootstrap intervals: how far a mean IoU, or the difference of two, would move on other samples of the same kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segmentation.metrics import Row

CHUNK = 256  # resamples drawn at once: 256 x 10,834 indices are 22 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the percentile interval of its bootstrap distribution."""

    mean: float
    low: float
    high: float


def mean_iou(rows: Sequence[Row], resamples: int = 10_000, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of gIoU, resampling samples. The order of the rows does not matter; the seed does.

    Raises:
        ValueError: no rows, an id twice, or a row without a mask score.
    """
    ious = _by_id(rows)
    return bootstrap(np.array([ious[key] for key in sorted(ious)]), resamples, level, seed)


def iou_gain(
    before: Sequence[Row], after: Sequence[Row], resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of the mean of `after - before` over the same samples, matched by id: the paired bootstrap.

    Raises:
        ValueError: the two do not hold the same ids, or as `mean_iou`.
    """
    old, new = _by_id(before), _by_id(after)
    if old.keys() != new.keys():
        lone = sorted(old.keys() ^ new.keys())
        raise ValueError(f"{len(lone)} samples are in one of the two lists only: {', '.join(lone[:3])}")
    return bootstrap(np.array([new[key] - old[key] for key in sorted(old)]), resamples, level, seed)


def bootstrap(values: np.ndarray, resamples: int = 10_000, level: float = 0.95, seed: int = 0) -> Interval:
    """Percentile interval of the mean of `values` (N,), from `resamples` draws of N with replacement.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("no values: an empty list has no mean to put an interval around.")
    rng = np.random.default_rng(seed)
    means = [
        values[rng.integers(len(values), size=(min(CHUNK, resamples - done), len(values)), dtype=np.int32)].mean(axis=1)
        for done in range(0, resamples, CHUNK)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(math.fsum(values) / len(values), float(low), float(high))


def _by_id(rows: Sequence[Row]) -> dict[str, float]:
    ious: dict[str, float] = {}
    for row in rows:
        if row.iou is None:
            raise ValueError(f"sample {row.id} has no mask IoU to average: its answer was never painted.")
        if row.id in ious:
            raise ValueError(f"sample {row.id} is listed twice.")
        ious[row.id] = row.iou
    return ious

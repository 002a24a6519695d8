"""Intervals: how far a figure, or a difference, would move with other samples (bootstrap) or other seeds (Student)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from segmentation.figures import Row, Terms, ratio, sums
from segmentation.protocols import Protocol

CHUNK = 256  # resamples drawn at once: 256 x 10,834 counts are 22 MB
RESAMPLES, LEVEL = 10_000, 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its interval: the percentiles of its bootstrap distribution, or Student's t."""

    mean: float
    low: float
    high: float


def figure_intervals(
    rows: Sequence[Row], protocol: Protocol, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[str, Interval | None]:
    """Interval of every figure of the protocol, resampling samples; None for a figure without value.

    The order of the rows does not matter; the seed does. All figures see the same draws.

    Raises:
        ValueError: an id twice.
    """
    terms = sums(_sorted(rows), protocol)
    known = {name: term for name, term in terms.items() if term is not None}
    drawn = _draw(list(known.values()), resamples, seed)
    made = {name: _interval(ratio(term), drawn[:, index], level) for index, (name, term) in enumerate(known.items())}
    return {name: made.get(name) for name in terms}


def figure_gains(
    before: Sequence[Row],
    after: Sequence[Row],
    protocol: Protocol,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Interval of `after - before` for every figure, over the same samples: the paired bootstrap.

    Both are computed on each draw of samples. None for a figure that one of the two does not have.

    Raises:
        ValueError: the two do not hold the same ids, or one twice.
    """
    old, new = _paired(before, after)
    terms, others = sums(old, protocol), sums(new, protocol)
    pairs = {name: (term, other) for name, term in terms.items() if term and (other := others[name])}
    drawn = _draw([term for pair in pairs.values() for term in pair], resamples, seed)
    made = {
        name: _interval(ratio(other) - ratio(term), drawn[:, 2 * index + 1] - drawn[:, 2 * index], level)
        for index, (name, (term, other)) in enumerate(pairs.items())
    }
    return {name: made.get(name) for name in terms}


def mean_iou(rows: Sequence[Row], resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> Interval:
    """Interval of gIoU alone, resampling samples. The order of the rows does not matter; the seed does.

    Raises:
        ValueError: no rows, an id twice, or a row without a mask score.
    """
    return bootstrap(np.array([_iou(row) for row in _sorted(rows)]), resamples, level, seed)


def iou_gain(
    before: Sequence[Row], after: Sequence[Row], resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Interval of the mean of `after - before` over the same samples, matched by id: the paired bootstrap.

    Raises:
        ValueError: the two do not hold the same ids, or as `mean_iou`.
    """
    gains = [_iou(new) - _iou(old) for old, new in zip(*_paired(before, after), strict=True)]
    return bootstrap(np.array(gains), resamples, level, seed)


def bootstrap(values: np.ndarray, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> Interval:
    """Percentile interval of the mean of `values` (N,), from `resamples` draws of N with replacement.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("no values: an empty list has no mean to put an interval around.")
    terms = [(value, 1.0) for value in values.tolist()]
    return _interval(ratio(terms), _draw([terms], resamples, seed)[:, 0], level)


def student(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Student's t interval of the mean of a few independent values, such as one a seed; nan to nan for a single one.

    Resampling three values says little of the fourth; the t distribution allows for a spread known from few. It takes
    them to be normal.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("no values: an empty list has no mean to put an interval around.")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Interval(mean, math.nan, math.nan)
    quantile = stdtrit(len(values) - 1, (1 + level) / 2)  # scipy.stats.t.ppf, whose module takes seconds to load
    half = float(quantile * np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def _draw(figures: Sequence[Sequence[Terms]], resamples: int, seed: int) -> np.ndarray:
    """Each figure on each resample, `(resamples, F)`; nan where no sample that counts was drawn.

    A resample is how often each sample was drawn, so that all sums of a chunk are one product of matrices.
    """
    if not figures:
        return np.zeros((resamples, 0))
    terms = _exact(np.array(figures, dtype=np.float64))  # (F, N, 2)
    count, length = terms.shape[:2]
    terms = terms.transpose(1, 0, 2).reshape(length, 2 * count)
    rng = np.random.default_rng(seed)
    made = []
    for done in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - done)
        drawn = rng.integers(length, size=(size, length), dtype=np.int32) + length * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * length).reshape(size, length)
        made.append((times.astype(np.float64) @ terms).reshape(size, count, 2))
    above, below = np.moveaxis(np.concatenate(made), -1, 0)
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _exact(terms: np.ndarray) -> np.ndarray:
    """The terms rounded to multiples of 2**-36, whose sums are exact in float64 up to 131,072 samples.

    A product of matrices adds in an order that depends on the number of threads; exact sums do not, so intervals come
    out the same to the last digit wherever a file is scored. Pixels are whole numbers and stay what they are.
    """
    return np.round(terms * 2.0**36) * 2.0**-36


def _interval(value: float, drawn: np.ndarray, level: float) -> Interval:
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _iou(row: Row) -> float:
    if row.iou is None:
        raise ValueError(f"sample {row.id} has no mask IoU to average: its answer was never painted.")
    return row.iou


def _sorted(rows: Sequence[Row]) -> list[Row]:
    ids = [row.id for row in rows]
    if len(set(ids)) < len(ids):
        twice = next(one for index, one in enumerate(ids) if one in ids[:index])
        raise ValueError(f"sample {twice} is listed twice.")
    return sorted(rows, key=lambda row: row.id)


def _paired(before: Sequence[Row], after: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    old, new = _sorted(before), _sorted(after)
    if lone := sorted({row.id for row in old} ^ {row.id for row in new}):
        raise ValueError(f"{len(lone)} samples are in one of the two lists only: {', '.join(lone[:3])}")
    return old, new

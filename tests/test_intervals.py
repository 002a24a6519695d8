import numpy as np
import pytest

from evaluation.intervals import bootstrap, iou_gain, mean_iou
from segmentation.metrics import Row


def rows(ious: np.ndarray, prefix: str = "s") -> list[Row]:
    return [Row(f"{prefix}{i}", "found", True, float(iou), 1, 1, None) for i, iou in enumerate(ious)]


def test_the_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).random(2000)
    interval = bootstrap(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean(), abs=1e-12)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_intervals_cover_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        interval = bootstrap(rng.beta(2, 1, size=150), resamples=400)
        covered += interval.low <= 2 / 3 <= interval.high
    assert 0.91 <= covered / 300 <= 0.98


def test_seeded_and_free_of_order():
    ious = np.random.default_rng(1).random(100)
    forwards, backwards = rows(ious), rows(ious)[::-1]
    assert mean_iou(forwards) == mean_iou(forwards) == mean_iou(backwards)
    assert mean_iou(forwards) != mean_iou(forwards, seed=1)
    other = rows(np.random.default_rng(2).random(100))
    assert iou_gain(forwards, other) == iou_gain(backwards, other)


def test_pairs_are_matched_by_id_so_a_common_difficulty_cancels():
    rng = np.random.default_rng(2)
    before = rng.random(200)
    after = before + 0.01
    gain = iou_gain(rows(before), rows(after)[::-1])
    assert gain.mean == pytest.approx(0.01)
    assert (gain.low, gain.high) == (pytest.approx(0.01), pytest.approx(0.01))  # unpaired it would reach below zero
    assert iou_gain(rows(after), rows(before)).high < 0


def test_no_gain_is_an_interval_around_zero():
    rng = np.random.default_rng(3)
    before = rng.random(300)
    gain = iou_gain(rows(before), rows(np.clip(before + rng.normal(0, 0.1, 300), 0, 1)))
    assert gain.low < 0 < gain.high


def test_what_cannot_be_paired_or_averaged_is_an_error():
    one = rows(np.array([0.5]))
    with pytest.raises(ValueError, match="2 samples are in one of the two lists only: s0, t0"):
        iou_gain(one, rows(np.array([0.5]), "t"))
    with pytest.raises(ValueError, match="listed twice"):
        mean_iou(one + one)
    with pytest.raises(ValueError, match="no values"):
        mean_iou([])
    with pytest.raises(ValueError, match="never painted"):
        mean_iou([Row("s0", "found", True, None, None, None, 0.5)])

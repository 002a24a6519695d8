import numpy as np
import pytest

from evaluation.intervals import Interval, bootstrap, figure_gains, figure_intervals, iou_gain, mean_iou
from segmentation.figures import ratio, sums
from segmentation.metrics import Evaluator, Row
from segmentation.protocols import Lisa, Ors, Protocol, VisionReasoner
from segmentation.sample import NoTarget
from tests.answers import random_answers, random_masks, sample


def rows(ious: np.ndarray, prefix: str = "s") -> list[Row]:
    return [Row(f"{prefix}{i}", "found", True, float(iou), 1, 1, None) for i, iou in enumerate(ious)]


def scored(protocol: Protocol, count: int, seed: int) -> list[Row]:
    """Rows of random answers; the same samples whatever the seed of the answers' masks."""
    answers = random_answers(count, seed=1)
    evaluator = Evaluator(protocol)
    for (asked, answer), mask in zip(answers, random_masks(answers, seed), strict=True):
        evaluator.add(asked, answer, mask, tokens=len(asked.id))
    return evaluator.rows


def drawn_plainly(rows: list[Row], protocol: Protocol, name: str, resamples: int) -> np.ndarray:
    """A figure on each resample, computed again from the rows drawn; the draws are those of the module."""
    rows = sorted(rows, key=lambda row: row.id)
    draws = np.random.default_rng(0).integers(len(rows), size=(resamples, len(rows)), dtype=np.int32)
    terms = (sums([rows[index] for index in draw], protocol)[name] for draw in draws)
    return np.array([ratio(term) if term else np.nan for term in terms])


@pytest.mark.parametrize("protocol", [Lisa(), VisionReasoner(), Ors()], ids=lambda protocol: protocol.name)
def test_every_figure_has_the_interval_of_its_plain_bootstrap(protocol: Protocol):
    rows = scored(protocol, 60, seed=0)
    intervals = figure_intervals(rows, protocol, resamples=150)
    assert figure_intervals(rows[::-1], protocol, resamples=150) == intervals
    terms = sums(rows, protocol)
    assert intervals.keys() == terms.keys()
    assert sum(interval is not None for interval in intervals.values()) >= 15
    for name, interval in intervals.items():
        term = terms[name]
        assert (interval is None) == (term is None)
        if interval and term:
            low, high = np.nanquantile(drawn_plainly(rows, protocol, name, 150), [0.025, 0.975])
            assert interval.mean == ratio(term)
            assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


def test_the_gain_of_every_figure_is_paired():
    before, after = scored(Lisa(), 60, seed=0), scored(VisionReasoner(), 60, seed=2)
    gains = figure_gains(before, after[::-1], Lisa(), resamples=150)
    for name in ("cIoU", "gIoU", "Pr@0.5", "N_acc"):
        old, new = (drawn_plainly(rows, Lisa(), name, 150) for rows in (before, after))
        low, high = np.quantile(new - old, [0.025, 0.975])
        gain = gains[name]
        assert gain is not None
        assert (gain.low, gain.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    gain = gains["gIoU"]
    assert gain is not None and gain.mean == pytest.approx(iou_gain(before, after).mean, abs=1e-12)
    same = figure_gains(before, before, Lisa(), resamples=150)
    assert {gain for gain in same.values() if gain} == {Interval(0.0, 0.0, 0.0)}


def test_a_figure_without_value_has_no_interval_and_one_of_one_sample_has_a_point():
    evaluator = Evaluator()
    evaluator.add(sample((0, 0, 4, 4), id="a"), NoTarget(), None)
    evaluator.add(sample((0, 0, 4, 4), id="b"), NoTarget(), None)
    evaluator.add(sample(id="c"), NoTarget(), None)
    intervals = figure_intervals(evaluator.rows, Lisa(), resamples=100)
    assert intervals["mean_tokens"] is intervals["gIoU_large"] is None
    assert intervals["N_acc"] == Interval(1.0, 1.0, 1.0)  # the draws without that sample say nothing
    assert figure_intervals([], Lisa()).keys() == intervals.keys()


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
    with pytest.raises(ValueError, match="s0 is listed twice"):
        figure_intervals(one + one, Lisa())
    with pytest.raises(ValueError, match="in one of the two lists only"):
        figure_gains(one, rows(np.array([0.5]), "t"), Lisa())
    with pytest.raises(ValueError, match="never painted"):
        mean_iou([Row("s0", "found", True, None, None, None, 0.5)])

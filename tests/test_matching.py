from itertools import permutations

import numpy as np
import pytest

from segmentation.matching import hungarian, matched_mean


def best_sum(scores: np.ndarray) -> float:
    """Every assignment of the smaller side into the larger, tried out."""
    small = scores if scores.shape[0] <= scores.shape[1] else scores.T
    ways = permutations(range(small.shape[1]), small.shape[0])
    return max(sum(small[i, j] for i, j in enumerate(way)) for way in ways)


def test_hungarian_finds_the_best_of_all_assignments():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scores = rng.random(rng.integers(1, 6, size=2))
        pairs = hungarian(scores)
        assert len(pairs) == min(scores.shape)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
        assert sum(scores[pair] for pair in pairs) == pytest.approx(best_sum(scores), abs=1e-12)


def test_the_greedy_choice_is_not_always_taken():
    assert sorted(hungarian(np.array([[0.9, 0.8], [0.8, 0.0]]))) == [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("scores", "mean"),
    [
        ([[0.6]], 0.6),
        ([[0.6], [0.6]], 0.3),  # the same object twice: the second costs
        ([[1.0, 0.0, 0.0]], 1 / 3),  # two objects missed
        ([[0.9, 0.8], [0.8, 0.0]], 0.8),
    ],
)
def test_matched_mean_divides_by_the_larger_side(scores: list[list[float]], mean: float):
    assert matched_mean(np.array(scores)) == pytest.approx(mean, abs=1e-15)


def test_matched_mean_of_nothing():
    assert matched_mean(np.zeros((0, 3))) == matched_mean(np.zeros((3, 0))) == 0.0
    with pytest.raises(ValueError, match="no predicted and no annotated"):
        matched_mean(np.zeros((0, 0)))


def test_nan_is_an_error_not_a_score():
    with pytest.raises(ValueError, match="invalid numeric"):
        hungarian(np.array([[np.nan]]))

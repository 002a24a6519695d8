"""Which predicted object stands for which annotated one: the assignment that maximises the sum of a pairwise score."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment


def hungarian(scores: np.ndarray) -> list[tuple[int, int]]:
    """Pairs `(predicted, annotated)` that maximise the sum of their scores, each index used once at most.

    Args:
        scores: `(P, G)` float, higher is better; `min(P, G)` pairs are made, also where the best score left is 0.

    Raises:
        ValueError: not a matrix, or a score is nan or minus infinity.
    """
    rows, columns = linear_sum_assignment(scores, maximize=True)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def matched_mean(scores: np.ndarray) -> float:
    """Sum of the matched scores over `max(P, G)`: an object too many costs as much as one missed.

    Dividing by the larger count is VisionReasoner's rule (arXiv 2505.12081): without it, many guesses buy a good match.
    0 where one side is empty.

    Raises:
        ValueError: both sides are empty, so that there is nothing to average.
    """
    predicted, annotated = scores.shape
    if not predicted and not annotated:
        raise ValueError("no predicted and no annotated object: a match between them has no mean.")
    return sum(float(scores[pair]) for pair in hungarian(scores)) / max(predicted, annotated)

"""Does the completion keep within its length?"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation.masks import RLE
from segmentation.sample import Prediction, Sample


def length(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    completion_ids: Sequence[Sequence[int]],
    longest: int,
    margin: int,
    **_,
) -> list[float | None]:
    """1 up to `longest - margin` tokens, then falling in a straight line to 0 at `longest`, and 0 beyond.

    Range: 0..1. Applies to every sample. Short texts are not paid for being short. Source: the soft overlong punishment
    of DAPO (arXiv 2503.14476, eq. 13), here plus 1: its -1..0 in the range of the others, with the same advantages.

    Args:
        completion_ids: tokens, with the one that ends them.
        longest: tokens at which nothing is paid any more; at most trainer.max_completion_length, or it never is.
        margin: tokens before `longest` from which less is paid.

    Raises:
        ValueError: `margin` is not in 1..`longest`.
    """
    if not 1 <= margin <= longest:
        raise ValueError(f"margin={margin}, longest={longest}: set margin in 1..longest, such as a fifth of it.")
    return [min(1.0, max(0.0, (longest - len(ids)) / margin)) for ids in completion_ids]

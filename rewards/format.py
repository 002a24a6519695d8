"""Is the completion a sentence of the format?"""

from __future__ import annotations

from collections.abc import Sequence

from rewards.format_reasoning import thought
from segmentation.formats.reasoning import Parts
from segmentation.masks import RLE
from segmentation.sample import Invalid, Prediction, Sample


# Named as its config and metric key, like every reward; the builtin is hidden in this file only, which does not use it.
def format(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    parts: Sequence[Parts | None] = (),
    longest: int | None = None,
    **_,
) -> list[float | None]:
    """1 if the whole completion parses (`Found` or `NoTarget`), 0 for `Invalid`. Applies to every sample.

    Range: 0..1. Sources: the format reward of DeepSeek-R1 (arXiv 2501.12948), here by the parser that also scores the
    answer: nothing a looser pattern would let through is paid. `longest`: CoPRS (arXiv 2510.11173).

    Args:
        parts: the two halves of each completion (`rollouts.reading.read_parts`); read if `longest` is given.
        longest: characters of a thought; a longer one is paid 0.9, and one of blanks alone 0.

    Raises:
        ValueError: `longest` is given and the format has no thoughts.
    """
    valid = [not isinstance(prediction, Invalid) for prediction in predictions]
    if longest is None:
        return [float(one) for one in valid]
    thoughts = [thought(part, "format.longest") for part in parts]
    return [
        0.0 if not one or isinstance(said, Invalid) or not said.strip() else 0.9 if len(said) > longest else 1.0
        for one, said in zip(valid, thoughts, strict=True)
    ]

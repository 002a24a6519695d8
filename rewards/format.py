"""Is the completion a sentence of the format?"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation.masks import RLE
from segmentation.sample import Invalid, Prediction, Sample


# Named as its config and metric key, like every reward; the builtin is hidden in this file only, which does not use it.
def format(
    predictions: Sequence[Prediction], samples: Sequence[Sample], masks: Sequence[RLE | None], **_
) -> list[float | None]:
    """1 if the whole completion parses (`Found` or `NoTarget`), 0 for `Invalid`. Applies to every sample.

    Range: 0 or 1. Source: the format reward of DeepSeek-R1 (arXiv 2501.12948), here by the parser that also scores the
    answer: nothing a looser pattern would let through is paid.
    """
    return [float(not isinstance(prediction, Invalid)) for prediction in predictions]

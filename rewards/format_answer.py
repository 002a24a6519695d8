"""Is the answer a sentence of the format, whatever stands before it?"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation.formats.reasoning import Parts
from segmentation.masks import RLE
from segmentation.sample import Invalid, Prediction, Sample


def format_answer(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    parts: Sequence[Parts | None],
    **_,
) -> list[float | None]:
    """1 if the text in `<answer>` parses, even in a broken outline; without `format.reasoning`, if the whole does.

    Range: 0 or 1. Applies to every sample. Source: the segmentation format of Seg-Zero (arXiv 2503.06520), here by the
    parser that also scores the answer.

    Args:
        parts: the two halves of each completion (`rollouts.reading.read_parts`), None without reasoning.
    """
    return [
        float(not isinstance(part.answer if part else prediction, Invalid))
        for prediction, part in zip(predictions, parts, strict=True)
    ]

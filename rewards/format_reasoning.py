"""Are there thoughts, then an answer, and nothing else?"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation.formats.reasoning import Parts
from segmentation.masks import RLE
from segmentation.sample import Invalid, Prediction, Sample


def format_reasoning(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    parts: Sequence[Parts | None],
    **_,
) -> list[float | None]:
    """1 if the whole completion is `<think>...</think><answer>...</answer>`, each tag once, whatever the answer says.

    Range: 0 or 1. Applies to every sample. Source: DeepSeek-R1 (arXiv 2501.12948), Seg-Zero (arXiv 2503.06520).

    Args:
        parts: the two halves of each completion (`rollouts.reading.read_parts`).

    Raises:
        ValueError: the format has no thoughts.
    """
    return [float(not isinstance(thought(part, "format_reasoning"), Invalid)) for part in parts]


def thought(part: Parts | None, reward: str) -> str | Invalid:
    """What stands in `<think>`, or why the outline is broken. Raises ValueError if the format has no thoughts."""
    if part is None:
        raise ValueError(f"{reward}: completions have no thoughts; set format.reasoning=true or drop the reward.")
    return part.thought

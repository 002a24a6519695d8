"""Does the text go on, or round in circles?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from segmentation.masks import RLE
from segmentation.sample import Prediction, Sample

Unit = Literal["sentences", "ngrams"]


def non_repeat(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    *,
    texts: Sequence[str],
    unit: Unit = "sentences",
    allowed: int = 1,
    n: int = 6,
    **_,
) -> list[float | None]:
    """Whether sentences come back, or the share of n-grams that are new; of the whole text, thoughts and answer.

    `sentences`: what stands between full stops; 1 if at most `allowed` of them have stood before, else 0. `ngrams`:
    different runs of `n` words over all such runs, 1 for a text of fewer than `n` words.

    Range: 0..1. Applies to every sample. An empty text repeats nothing: other rewards must not pay it.

    Args:
        texts: the completions as written, special tokens kept, without the one that ends them.

    Sources: sentences, VisionReasoner (arXiv 2505.12081), which allows one; n-grams, the penalty of "Demystifying Long
    Chain-of-Thought" (arXiv 2502.03373), of -1..0 there, and with n = 6 in VLM-R1 (arXiv 2504.07615).

    Raises:
        ValueError: an option is out of range.
    """
    if unit not in get_args(Unit):
        raise ValueError(f"unit={unit!r} cannot be repeated; set it to one of {', '.join(get_args(Unit))}.")
    if allowed < 0 or n < 1:
        raise ValueError(f"allowed={allowed}, n={n}: set allowed to 0 or more and n to 1 or more.")
    return [float(_repeated(text) <= allowed) if unit == "sentences" else _new(text, n) for text in texts]


def _repeated(text: str) -> int:
    sentences = [sentence.strip() for sentence in text.split(".") if sentence.strip()]
    return len(sentences) - len(set(sentences))


def _new(text: str, n: int) -> float:
    words = text.lower().split()
    runs = list(zip(*(words[start:] for start in range(n)), strict=False))
    return len(set(runs)) / len(runs) if runs else 1.0

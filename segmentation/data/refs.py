"""`Ref`: what is referred to, and in which words. One, several or no object of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Sentences = Literal["each", "first", "joined"]


@dataclass(frozen=True, slots=True)
class Ref:
    """What is referred to, none or several annotations of one image, and each sentence said of it with its id."""

    id: int
    split: str
    image: int
    annotations: tuple[int | str, ...]
    sentences: tuple[tuple[int, str], ...]


def worded(sentences: Sequence[tuple[int, str]], how: Sentences) -> list[tuple[str, str]]:
    """The expressions to make samples of, each with the end of its sample's id.

    Args:
        sentences: (id, text) of each.
        how: `each` is one sample a sentence (papers on RefCOCO), `first` only the first (LISA on ReasonSeg),
            `joined` all in one, "; " between them (HiMTok).
    """
    if how not in ("each", "first", "joined"):
        raise ValueError(f"data.sentences={how!r}; it is 'each', 'first' or 'joined'.")
    if how == "joined":
        return [("", "; ".join(text for _, text in sentences))] if sentences else []
    return [(f"-{number}", text) for number, text in (sentences[:1] if how == "first" else sentences)]


def usable(refs: Sequence[Ref], skipped: Sequence[int], file: Path) -> list[Ref]:
    """The refs but those to skip. Raises ValueError if two have the same id, or two sentences of one the same."""
    left_out = set(skipped)
    refs = [ref for ref in refs if ref.id not in left_out]
    seen: set[int] = set()
    for ref in refs:
        if ref.id in seen:
            raise ValueError(f"{file}: ref_id {ref.id} appears twice. Leave it out: data.skip_refs=[{ref.id}].")
        seen.add(ref.id)
        if len({number for number, _ in ref.sentences}) < len(ref.sentences):
            ids = [number for number, _ in ref.sentences]
            raise ValueError(
                f"{file}: ref {ref.id}: its sent_id are {ids}, one of them twice. "
                f"Leave it out: data.skip_refs=[{ref.id}]."
            )
    return refs


def held_out(refs: Sequence[Ref]) -> frozenset[int]:
    """The images of refs that are not for training."""
    return frozenset(ref.image for ref in refs if ref.split != "train")

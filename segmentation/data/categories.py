"""Category prompts: a COCO image and the name of a category ask for every instance of it (Text4Seg++'s first stage)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

Names = Literal["plain", "official"]


def plain(name: str) -> str:
    """A panoptic category's name as one would say it: `wall-other-merged` is `wall`, `floor-wood` is `floor wood`."""
    return re.sub(r"-(merged|other|stuff)\b", "", name).replace("-", " ")


def named(categories: Mapping[int, str], names: Names) -> dict[int, str]:
    """Categories with the names to ask for. Raises ValueError if two have the same."""
    if names not in ("plain", "official"):
        raise ValueError(f"data.names={names!r}; it is 'plain' or 'official'.")
    said = {number: plain(name) if names == "plain" else name for number, name in categories.items()}
    twice = sorted(name for name in said.values() if list(said.values()).count(name) > 1)
    if twice:
        raise ValueError(f"two categories are called {twice[0]!r}; data.names=official may tell them apart.")
    return said


def missing(present: Iterable[int], categories: Sequence[int], count: int, image: int, seed: int) -> list[int]:
    """Up to `count` categories that an image has nothing of, drawn the same each time: prompts without a target."""
    there = set(present)
    absent = [number for number in categories if number not in there]
    return sorted(random.Random(f"{seed}-{image}").sample(absent, min(count, len(absent))))

"""What can be said about a scene: every phrase of each kind, with the things it means.

| kind | example | targets |
|---|---|---|
| attribute | "small striped red circle" | 1 |
| spatial | "leftmost circle", "largest shape" | 1 |
| relational | "circle left of the red square" | 1 |
| plural | "all red shapes" | 2 or more |
| none | "striped blue ring", and there is none | 0 |
| reasoning | "shape with three sides", "only one of its colour" | 1 |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np

KINDS = {"attribute": 0.3, "spatial": 0.15, "relational": 0.15, "plural": 0.15, "none": 0.15, "reasoning": 0.1}
ATTRIBUTES = ("size", "texture", "colour", "shape")  # in the order English says them
CLEAR = 5  # pixels between centres or sides before one is called further left, higher, larger
PLURALS = {"cross": "crosses"}
RIDDLES = {
    "shape with three sides": "triangle",
    "shape with a hole in it": "ring",
    "shape like a plus sign": "cross",
    "shape that could roll away": "circle",
    "shape like a box": "square",
    "shape like a kite": "diamond",
    "something the colour of grass": "green",
    "something the colour of snow": "white",
    "something the colour of blood": "red",
    "something the colour of the sea": "blue",
    "something the colour of a lemon": "yellow",
    "something the colour of grapes": "purple",
}


class Described(Protocol):
    """What a phrase needs to know of a thing; `segmentation.data.scenes.Thing` is one."""

    @property
    def shape(self) -> str: ...
    @property
    def colour(self) -> str: ...
    @property
    def texture(self) -> str: ...
    @property
    def size(self) -> str: ...
    @property
    def radius(self) -> int: ...
    @property
    def box(self) -> tuple[float, float, float, float]: ...


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase and the indices of the things it means, in order from left to right."""

    text: str
    targets: tuple[int, ...]
    kind: str


def phrases(things: Sequence[Described], rng: np.random.Generator) -> dict[str, list[Phrase]]:
    """Every kind's phrases that hold for these things; a kind none can be said of has an empty list.

    `rng` draws the objects that are not there: the only kind with no natural end.
    """
    described = _descriptions(things)
    return {
        "attribute": [Phrase(text, who, "attribute") for text, who in described.items() if len(who) == 1],
        "spatial": _spatial(things, described),
        "relational": _relational(things, described),
        "plural": [_plural(things, text, who) for text, who in described.items() if len(who) > 1],
        "none": _absent(things, rng),
        "reasoning": _reasoning(things),
    }


def _say(words: dict[str, str]) -> str:
    return " ".join(words[a] for a in ATTRIBUTES if a in words) + ("" if "shape" in words else " shape")


def _descriptions(things: Sequence[Described]) -> dict[str, tuple[int, ...]]:
    """Every description by up to three attributes that fits something -> the things it fits."""
    found: dict[str, tuple[int, ...]] = {}
    for count in (1, 2, 3):
        for chosen in combinations(ATTRIBUTES, count):
            for thing in things:
                words = {attribute: getattr(thing, attribute) for attribute in chosen}
                fitting = [i for i, t in enumerate(things) if all(getattr(t, a) == w for a, w in words.items())]
                found[_say(words)] = tuple(sorted(fitting, key=lambda i: things[i].box[0]))
    return found


def _plural(things: Sequence[Described], text: str, who: tuple[int, ...]) -> Phrase:
    words = text.split(" ")
    words[-1] = PLURALS.get(words[-1], words[-1] + "s")
    return Phrase("all " + " ".join(words), who, "plural")


def _centre(thing: Described) -> tuple[float, float]:
    return (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2


def _spatial(things: Sequence[Described], described: dict[str, tuple[int, ...]]) -> list[Phrase]:
    orders = {
        "leftmost": lambda t: -_centre(t)[0],
        "rightmost": lambda t: _centre(t)[0],
        "top": lambda t: -_centre(t)[1],
        "bottom": lambda t: _centre(t)[1],
        "largest": lambda t: 2 * t.radius,
        "smallest": lambda t: -2 * t.radius,
    }
    groups = {text: who for text, who in described.items() if len(who) > 1 and len(text.split()) <= 2}
    groups |= {"shape": tuple(range(len(things)))}
    found = []
    for text, who in groups.items():
        for word, key in orders.items():
            ranked = sorted(who, key=lambda i: key(things[i]))
            if key(things[ranked[-1]]) - key(things[ranked[-2]]) >= CLEAR:
                found.append(Phrase(f"{word} {text}", (ranked[-1],), "spatial"))
    return found


def _relational(things: Sequence[Described], described: dict[str, tuple[int, ...]]) -> list[Phrase]:
    relations = {
        "left of": lambda a, b: _centre(b)[0] - _centre(a)[0],
        "right of": lambda a, b: _centre(a)[0] - _centre(b)[0],
        "above": lambda a, b: _centre(b)[1] - _centre(a)[1],
        "below": lambda a, b: _centre(a)[1] - _centre(b)[1],
    }
    short = {text: who for text, who in described.items() if len(text.split()) <= 2}
    groups = {text: who for text, who in short.items() if len(who) > 1} | {"shape": tuple(range(len(things)))}
    anchors = {text: who[0] for text, who in short.items() if len(who) == 1 and not text.endswith("shape")}
    found = []
    for text, who in groups.items():
        for anchor_text, anchor in anchors.items():
            others = [i for i in who if i != anchor]
            for words, gap in relations.items():
                gaps = {i: gap(things[i], things[anchor]) for i in others}
                holds = [i for i in others if gaps[i] >= CLEAR]
                # Whoever is not meant must be clearly elsewhere.
                if len(holds) == 1 and all(gaps[i] <= 0 for i in others if i not in holds):
                    found.append(Phrase(f"{text} {words} the {anchor_text}", (holds[0],), "relational"))
    return found


def _absent(things: Sequence[Described], rng: np.random.Generator) -> list[Phrase]:
    """Near misses: two or three attributes that each occur in the scene, but on no one thing."""
    present = {attribute: sorted({getattr(t, attribute) for t in things}) for attribute in ATTRIBUTES}
    found = []
    for _ in range(12):
        chosen = rng.choice(len(ATTRIBUTES), size=rng.integers(2, 4), replace=False)
        words = {ATTRIBUTES[c]: str(rng.choice(present[ATTRIBUTES[c]])) for c in chosen}
        if not any(all(getattr(t, a) == w for a, w in words.items()) for t in things):
            found.append(Phrase(_say(words), (), "none"))
    return found


def _reasoning(things: Sequence[Described]) -> list[Phrase]:
    found = []
    for text, value in RIDDLES.items():
        who = [i for i, t in enumerate(things) if value in (t.shape, t.colour)]
        if len(who) == 1:
            found.append(Phrase(text, (who[0],), "reasoning"))
    if len(things) >= 3:
        for attribute in ("colour", "shape", "texture", "size"):
            values = [getattr(t, attribute) for t in things]
            alone = [i for i, value in enumerate(values) if values.count(value) == 1]
            if len(alone) == 1:
                found.append(Phrase(f"only one of its {attribute}", (alone[0],), "reasoning"))
    for anchor in ("shape", "colour"):
        for i, thing in enumerate(things):
            asked = "colour" if anchor == "shape" else "shape"
            if [getattr(t, anchor) for t in things].count(getattr(thing, anchor)) > 1:
                continue
            twins = [j for j, t in enumerate(things) if j != i and getattr(t, asked) == getattr(thing, asked)]
            if len(twins) == 1:
                name = f"the {thing.shape}" if anchor == "shape" else f"the {thing.colour} one"
                found.append(Phrase(f"other one with the {asked} of {name}", (twins[0],), "reasoning"))
    return found

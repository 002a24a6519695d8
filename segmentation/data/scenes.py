"""`scenes`: a deterministic synthetic world of coloured, textured, overlapping shapes with exact masks.

It needs no download, never repeats (`index` seeds each scene) and asks what referring segmentation asks: attributes,
places, relations, several objects at once, objects that are not there, and phrases that take a step of reasoning
(`segmentation.data.scene_phrases`). Splits cannot share a scene: a digest of the layout decides which split a scene
belongs to, and each split only draws scenes of its own. As RefCOCO's test sets differ in kind, so do these: `testA` is
drawn like `train` and `val`, `testB` is crowded, with more objects than training ever shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from segmentation import masks
from segmentation.data.samples import Samples
from segmentation.data.scene_phrases import KINDS, Phrase, phrases
from segmentation.sample import Sample, Target

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
TEXTURES = ("plain", "striped", "dotted")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "green": (46, 160, 67),
    "blue": (45, 100, 220),
    "yellow": (245, 205, 40),
    "purple": (150, 65, 190),
    "white": (240, 240, 240),
}
BACKGROUNDS = ((40, 40, 46), (92, 88, 80), (60, 78, 84), (120, 118, 124))
SPLITS = {"train": range(64, 256), "val": range(0, 21), "testA": range(21, 42), "testB": range(42, 64)}
MIN_VISIBLE = 0.6  # of a shape's pixels, so that its kind stays recognisable


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape: its attributes, centre and radius in pixels of a 64-pixel canvas, and what of it is seen."""

    shape: str
    colour: str
    texture: str
    size: str  # "small" or "large"
    x: int
    y: int
    radius: int
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # around the visible pixels


@dataclass(frozen=True, slots=True)
class Scene:
    """Things from back to front, their visible masks `bool (T, size, size)`, and the picture."""

    things: tuple[Thing, ...]
    masks: np.ndarray
    image: Image.Image


class Scenes(Samples):
    """`length` samples of one split; sample `i` is a phrase about scene `i`, the same in every run and on every rank.

    Args:
        split: train, val, testA or testB.
        length: how many samples; there is no end to them.
        seed: another seed, other scenes.
        size: side of the square picture in pixels.
        kinds: relative frequency of each kind of phrase (`scene_phrases.KINDS`).
    """

    def __init__(
        self,
        split: str = "train",
        length: int = 1_000_000,
        seed: int = 0,
        size: int = 64,
        kinds: Mapping[str, float] = KINDS,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"data.split={split!r} is not a split of scenes; it has {', '.join(SPLITS)}.")
        if length < 1:
            raise ValueError(f"data.length={length}: a dataset needs at least one sample.")
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown:
            raise ValueError(f"data.kinds has {unknown}; the kinds of phrase are {', '.join(KINDS)}.")
        self.split, self.length, self.seed, self.size = split, length, seed, size
        self.kinds = {kind: weight for kind, weight in kinds.items() if weight > 0}
        if not self.kinds:
            raise ValueError(f"data.kinds={dict(kinds)}: no kind of phrase has a positive weight.")

    def __len__(self) -> int:
        return self.length

    def image_id(self, index: int) -> None:
        """None: the pictures are not COCO's."""

    def sample(self, index: int) -> Sample:
        """Scene `index` of this split and seed, with one of the phrases that hold for it."""
        drawn, phrase = _phrased(self.split, self.seed, index, self.size, tuple(self.kinds.items()))
        targets = tuple(
            Target(
                drawn.things[i].box, masks.encode(drawn.masks[i]), f"{drawn.things[i].colour} {drawn.things[i].shape}"
            )
            for i in phrase.targets
        )
        return Sample(
            id=f"scenes-{self.split}-{self.seed}-{index}-{phrase.kind}",
            image=drawn.image,
            height=self.size,
            width=self.size,
            expression=phrase.text,
            targets=targets,
            dataset="scenes",
            split=self.split,
        )


def scene(split: str, seed: int, index: int, size: int = 64) -> tuple[Scene, np.random.Generator]:
    """The scene of that index, and the generator to draw phrases about it with."""
    rng = np.random.default_rng([seed, list(SPLITS).index(split), index])
    while True:
        things = _layout(rng, crowded=split == "testB")
        if hashlib.blake2b(repr(things).encode(), digest_size=1).digest()[0] not in SPLITS[split]:
            continue
        drawn = _draw(things, size, rng)
        if drawn is not None:
            return drawn, rng


@lru_cache(maxsize=256)  # a GRPO sampler asks for each sample once per completion
def _phrased(
    split: str, seed: int, index: int, size: int, kinds: tuple[tuple[str, float], ...]
) -> tuple[Scene, Phrase]:
    drawn, rng = scene(split, seed, index, size)
    found = phrases(drawn.things, rng)
    weights = np.array([weight if found.get(kind) else 0.0 for kind, weight in kinds])
    if not weights.any():  # this scene has no phrase of a kind asked for; the next seed has another scene
        return _phrased(split, seed + 1_000_003, index, size, kinds)
    kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())][0]
    return drawn, found[kind][rng.integers(len(found[kind]))]


def _layout(rng: np.random.Generator, crowded: bool) -> tuple[Thing, ...]:
    count = rng.integers(5, 7) if crowded else rng.integers(2, 5)
    # Few colours and shapes a scene, so that one word seldom settles which object is meant.
    colours = rng.choice(list(COLOURS), size=rng.integers(2, 4), replace=False)
    shapes = rng.choice(SHAPES, size=rng.integers(2, 4), replace=False)
    things = []
    for _ in range(count):
        size = "small" if rng.random() < 0.5 else "large"
        radius = int(rng.integers(6, 8) if size == "small" else rng.integers(11, 14))
        x, y = (int(v) for v in rng.integers(radius + 1, 63 - radius, size=2))
        texture = TEXTURES[rng.choice(3, p=(0.6, 0.2, 0.2))]
        things.append(Thing(str(rng.choice(shapes)), str(rng.choice(colours)), texture, size, x, y, radius))
    return tuple(things)


def _draw(things: tuple[Thing, ...], size: int, rng: np.random.Generator) -> Scene | None:
    """Paint back to front; None if a thing is hidden too far to be recognised."""
    y, x = np.mgrid[0:size, 0:size] * (64 / size)
    whole = np.stack([_inside(thing, x, y) for thing in things])
    visible = whole.copy()
    for above in range(1, len(things)):
        visible[:above] &= ~whole[above]
    if (visible.sum((1, 2)) < MIN_VISIBLE * whole.sum((1, 2))).any():
        return None
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    for thing, mask in zip(things, visible, strict=True):
        picture[mask] = COLOURS[thing.colour]
        picture[mask & _ink(thing, x, y)] *= 0.45
    picture += rng.normal(0, 4, picture.shape)
    seen = tuple(_with_box(thing, mask) for thing, mask in zip(things, visible, strict=True))
    return Scene(seen, visible, Image.fromarray(picture.clip(0, 255).astype(np.uint8)))


def _inside(thing: Thing, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    dx, dy, r = x - thing.x, y - thing.y, thing.radius
    match thing.shape:
        case "circle":
            return dx**2 + dy**2 <= r**2
        case "square":
            return np.maximum(abs(dx), abs(dy)) <= 0.88 * r
        case "triangle":
            return (dy <= 0.8 * r) & (2 * abs(dx) <= dy + r)
        case "diamond":
            return abs(dx) + abs(dy) <= r
        case "cross":
            return (np.minimum(abs(dx), abs(dy)) <= 0.34 * r) & (np.maximum(abs(dx), abs(dy)) <= r)
        case _:  # ring
            return (dx**2 + dy**2 <= r**2) & (dx**2 + dy**2 >= (0.5 * r) ** 2)


def _ink(thing: Thing, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the texture darkens the colour."""
    match thing.texture:
        case "striped":
            return (x + y) % 5 < 2
        case "dotted":
            return (x % 4 < 2) & (y % 4 < 2)
        case _:
            return np.zeros_like(x, dtype=bool)


def _with_box(thing: Thing, mask: np.ndarray) -> Thing:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return Thing(thing.shape, thing.colour, thing.texture, thing.size, thing.x, thing.y, thing.radius, box)

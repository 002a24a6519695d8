"""What the synthetic world promises. Phrases are understood anew, by code that shares nothing with what made them."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from segmentation import masks
from segmentation.data.scene_phrases import KINDS
from segmentation.data.scenes import COLOURS, MIN_VISIBLE, SPLITS, Scenes, Thing, _inside, scene
from segmentation.sample import open_image

COUNT = 300


def things_of(split: str, index: int, seed: int = 0) -> tuple[Thing, ...]:
    return scene(split, seed, index)[0].things


def digest(split: str, count: int, seed: int = 0, pixels: bool = True) -> str:
    """Of ids, expressions, boxes, masks and, unless told otherwise, pixels."""
    told = hashlib.sha256()
    for sample in Scenes(split, count, seed):
        boxes_and_masks = [(t.box, t.mask, t.label) for t in sample.targets]
        told.update(repr((sample.id, sample.expression, boxes_and_masks)).encode())
        if pixels:
            told.update(open_image(sample).tobytes())
    return told.hexdigest()


WORDS = {
    "circle": "shape", "square": "shape", "triangle": "shape", "diamond": "shape", "cross": "shape", "ring": "shape",
    "red": "colour", "green": "colour", "blue": "colour", "yellow": "colour", "purple": "colour", "white": "colour",
    "plain": "texture", "striped": "texture", "dotted": "texture", "small": "size", "large": "size",
}  # fmt: skip
RIDDLES = [
    ("three sides", "triangle"), ("hole", "ring"), ("plus sign", "cross"), ("roll away", "circle"), ("box", "square"),
    ("kite", "diamond"), ("grass", "green"), ("snow", "white"), ("blood", "red"), ("sea", "blue"), ("lemon", "yellow"),
    ("grapes", "purple"),
]  # fmt: skip


def fitting(things, description: str) -> set[int]:
    """Indices of the things that "small striped red circle" or "dotted shape" is true of."""
    words = [word for word in description.split() if word != "shape"]
    return {i for i, thing in enumerate(things) if all(getattr(thing, WORDS[word]) == word for word in words)}


def centre(thing) -> tuple[float, float]:
    x1, y1, x2, y2 = thing.box
    return (x1 + x2) / 2, (y1 + y2) / 2


def meant_by_spatial(things, text: str) -> set[int]:
    word, description = text.split(" ", 1)
    order = {
        "leftmost": lambda t: centre(t)[0],
        "rightmost": lambda t: -centre(t)[0],
        "top": lambda t: centre(t)[1],
        "bottom": lambda t: -centre(t)[1],
        "largest": lambda t: -t.radius,
        "smallest": lambda t: t.radius,
    }[word]
    who = fitting(things, description)
    assert len(who) > 1, "'leftmost' of one thing says nothing"
    best = min(order(things[i]) for i in who)
    return {i for i in who if order(things[i]) == best}


def meant_by_relation(things, text: str) -> set[int]:
    (said,) = re.finditer(r"^(.*) (left of|right of|above|below) the (.*)$", text)
    left_side, relation, anchor_text = said.groups()
    (anchor,) = fitting(things, anchor_text)
    ax, ay = centre(things[anchor])
    holds = {
        "left of": lambda x, y: x < ax,
        "right of": lambda x, y: x > ax,
        "above": lambda x, y: y < ay,
        "below": lambda x, y: y > ay,
    }[relation]
    return {i for i in fitting(things, left_side) - {anchor} if holds(*centre(things[i]))}


def meant_by_reasoning(things, text: str) -> set[int]:
    if alone := re.fullmatch(r"only one of its (\w+)", text):
        values = [getattr(thing, alone[1]) for thing in things]
        return {i for i, value in enumerate(values) if values.count(value) == 1}
    if twin := re.fullmatch(r"other one with the (\w+) of the (\w+)(?: one)?", text):
        asked, name = twin.groups()
        (anchor,) = fitting(things, name)
        return {i for i, t in enumerate(things) if i != anchor and getattr(t, asked) == getattr(things[anchor], asked)}
    (answer,) = {value for pattern, value in RIDDLES if re.search(rf"\b{pattern}\b", text)}
    return fitting(things, answer)


def meant(things, kind: str, text: str) -> set[int]:
    match kind:
        case "spatial":
            return meant_by_spatial(things, text)
        case "relational":
            return meant_by_relation(things, text)
        case "reasoning":
            return meant_by_reasoning(things, text)
        case "plural":
            assert text.startswith("all ")
            return fitting(things, re.sub(r"(cross)es$|(\w+)s$", r"\1\2", text.removeprefix("all ")))
        case _:
            return fitting(things, text)


@pytest.mark.parametrize("split", SPLITS)
def test_every_phrase_means_its_targets_and_nothing_else(split):
    kinds = Counter()
    for index, sample in enumerate(Scenes(split, COUNT)):
        kind = sample.id.rsplit("-", 1)[1]
        things = things_of(split, index)
        who = meant(things, kind, sample.expression)
        said = f"{sample.id}: {sample.expression!r} of {things}"
        assert {things[i].box for i in who} == {target.box for target in sample.targets}, said
        assert len(sample.targets) == len(who) == {"none": 0, "plural": max(2, len(who))}.get(kind, 1), said
        assert [t.box[0] for t in sample.targets] == sorted(t.box[0] for t in sample.targets), said
        if kind == "none":  # a near miss: each word alone is true of something
            assert all(fitting(things, word) for word in sample.expression.split()), said
        kinds[kind] += 1
    assert set(kinds) == set(KINDS)
    for kind, weight in KINDS.items():
        assert kinds[kind] / COUNT == pytest.approx(weight, abs=0.08)


@pytest.mark.parametrize(("split", "size"), [("train", 64), ("testB", 64), ("val", 128), ("val", 100)])
def test_boxes_and_masks_are_exact(split, size):
    for index, sample in enumerate(Scenes(split, 60, size=size)):
        assert open_image(sample).size == (size, size) == (sample.width, sample.height)
        drawn = scene(split, 0, index, size)[0]
        y, x = np.mgrid[0:size, 0:size] * (64 / size)
        assert (drawn.masks.sum(0) <= 1).all(), "visible parts do not overlap"
        for thing, mask in zip(drawn.things, drawn.masks, strict=True):
            whole = _inside(thing, x, y)
            assert not (mask & ~whole).any() and mask.sum() >= MIN_VISIBLE * whole.sum()
            assert masks.box(masks.encode(mask)) == thing.box
        by_box = {thing.box: mask for thing, mask in zip(drawn.things, drawn.masks, strict=True)}
        for target in sample.targets:
            assert target.mask is not None and np.array_equal(masks.decode(target.mask), by_box[target.box])


def test_the_picture_shows_what_the_masks_say():
    for index in range(40):
        drawn = scene("train", 3, index)[0]
        pixels = np.asarray(drawn.image).astype(float)
        for thing, mask in zip(drawn.things, drawn.masks, strict=True):
            share = pixels[mask].mean(0) / COLOURS[thing.colour]
            low, high = (0.97, 1.03) if thing.texture == "plain" else (0.5, 0.95)
            assert ((low < share) & (share < high)).all(), thing
        background = pixels[~drawn.masks.any(0)]
        assert background.std(0).max() < 5, "one colour, and a little noise"


def test_testb_is_crowded_as_training_never_is():
    counts = {split: {len(things_of(split, index)) for index in range(100)} for split in SPLITS}
    assert counts == {"train": {2, 3, 4}, "val": {2, 3, 4}, "testA": {2, 3, 4}, "testB": {5, 6}}


def test_splits_never_share_a_scene():
    assert sorted(byte for bytes_ in SPLITS.values() for byte in bytes_) == list(range(256))

    def layouts(split, seed):
        return {
            tuple((t.shape, t.colour, t.texture, t.size, t.x, t.y, t.radius) for t in things_of(split, index, seed))
            for index in range(150)
        }

    drawn = {(split, seed): layouts(split, seed) for split in SPLITS for seed in (0, 1)}
    for first, second in ((a, b) for a in drawn for b in drawn if a < b):
        assert not drawn[first] & drawn[second]
    assert all(len(found) == 150 for found in drawn.values()), "nor does one repeat itself"


def test_a_sample_is_the_same_in_every_instance_and_order():
    first, second = Scenes("val", 50), Scenes("val", 1_000_000)
    assert [second[i] for i in reversed(range(50))][::-1] == list(first) == first[:] == second[0:50]
    assert first[-1] == first[49]
    assert first[3].id == f"scenes-val-0-3-{first[3].id.rsplit('-', 1)[1]}"
    assert (first[3].dataset, first[3].split) == ("scenes", "val")
    assert digest("val", 10) != digest("val", 10, seed=1)
    for index in (50, -51):
        with pytest.raises(IndexError):
            first[index]


def test_a_sample_is_the_same_in_every_process():
    script = "from tests.test_scenes import digest; print(*(digest(split, 12) for split in ('train', 'testB')))"
    said = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split() == [digest("train", 12), digest("testB", 12)]


def test_the_world_is_the_one_the_models_in_the_repository_were_trained_on():
    assert {split: digest(split, 20, pixels=False)[:16] for split in SPLITS} == {
        "train": "cc82557007bdcf8b",
        "val": "fb045d5af4231efd",
        "testA": "f180c78370ad7e2e",
        "testB": "4bc75c0bf9dc3eba",
    }


def test_only_the_kinds_asked_for_are_said():
    for kind in KINDS:
        data = Scenes("train", 20, kinds={kind: 2.0})
        assert {s.id.rsplit("-", 1)[1] for s in data} == {kind}
    assert {len(s.targets) for s in Scenes("val", 20, kinds={"none": 1, "plural": 0})} == {0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"split": "test"}, r"data\.split='test' .*train, val, testA, testB"),
        ({"length": 0}, r"data\.length=0"),
        ({"kinds": {"plurals": 1}}, r"data\.kinds has \['plurals'\].*plural"),
        ({"kinds": {"plural": 0}}, r"no kind of phrase has a positive weight"),
    ],
)
def test_a_wrong_argument_names_a_right_one(arguments, said):
    with pytest.raises(ValueError, match=said):
        Scenes(**arguments)

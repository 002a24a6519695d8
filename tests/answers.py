"""Small samples and answers to score: rectangles by hand, and random ones of every kind."""

import numpy as np
from PIL import Image

from segmentation import masks
from segmentation.masks import RLE
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample, Target, prediction_mask

HEIGHT, WIDTH = 24, 31
IMAGE = Image.new("RGB", (WIDTH, HEIGHT))

Answer = tuple[Sample, Prediction]


def rectangle(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def sample(*targets: tuple[int, int, int, int], id: str = "0", ignore: np.ndarray | None = None) -> Sample:
    """A sample whose targets are filled boxes."""
    made = tuple(Target((*map(float, box),), masks.encode(rectangle(*box))) for box in targets)  # type: ignore[arg-type]
    return Sample(id, IMAGE, HEIGHT, WIDTH, "it", made, ignore=None if ignore is None else masks.encode(ignore))


def found(*boxes: tuple[int, int, int, int]) -> Found:
    made = (Instance((*map(float, box),), masks.encode(rectangle(*box))) for box in boxes)  # type: ignore[arg-type]
    return Found(tuple(made))


def random_box(rng: np.random.Generator) -> tuple[float, float, float, float]:
    x1, y1 = rng.uniform(0, WIDTH - 6), rng.uniform(0, HEIGHT - 6)
    return float(x1), float(y1), float(x1 + rng.uniform(1, 14)), float(y1 + rng.uniform(1, 14))


def random_mask(rng: np.random.Generator) -> np.ndarray:
    """A few rectangles with holes; now and then nothing at all."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for _ in range(rng.integers(0, 4)):
        x1, y1, x2, y2 = map(int, random_box(rng))
        mask[y1:y2, x1:x2] = True
    return mask & (rng.random(mask.shape) < 0.9)


def random_answers(count: int, seed: int) -> list[Answer]:
    """Samples with none to three overlapping targets, half with ignored pixels; answers of every state, some exact."""
    rng = np.random.default_rng(seed)
    answers = []
    for index in range(count):
        targets = tuple(Target(random_box(rng), masks.encode(random_mask(rng))) for _ in range(rng.integers(0, 4)))
        ignore = masks.encode(random_mask(rng)) if rng.random() < 0.5 else None
        asked = Sample(str(index), IMAGE, HEIGHT, WIDTH, "it", targets, ignore=ignore)
        kind = rng.random()
        if kind < 0.15:
            answer: Prediction = Invalid("no box")
        elif kind < 0.35:
            answer = NoTarget()
        elif kind < 0.6 and targets:
            answer = Found(tuple(Instance(target.box, target.mask) for target in targets[: rng.integers(1, 4)]))
        else:
            made = (Instance(random_box(rng), masks.encode(random_mask(rng))) for _ in range(rng.integers(1, 4)))
            answer = Found(tuple(made))
        answers.append((asked, answer))
    return answers


def random_masks(answers: list[Answer], seed: int) -> list[RLE | None]:
    """The mask beside each answer: what it paints, and beside half of the `NoTarget` some mask all the same."""
    rng = np.random.default_rng(seed)
    return [
        masks.encode(random_mask(rng))
        if isinstance(answer, NoTarget) and rng.random() < 0.5
        else prediction_mask(answer, HEIGHT, WIDTH)
        for _, answer in answers
    ]

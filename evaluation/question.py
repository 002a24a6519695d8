"""A question that a person asks on the page of evaluation/serve.py, and what a policy answers to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from rollouts.answers import Answers
from rollouts.group import score
from rollouts.rows import picture, question
from rollouts.sections import Reward
from segmentation import masks
from segmentation.masks import RLE
from segmentation.sample import BrokenImage, Prediction, Sample, Target


class Question(ValueError):
    """What is asked cannot be answered. The message says why, to be shown on the page."""


def asked(image: str | None, expression: str, truth: str | None, picked: Sample | None) -> tuple[Sample, bool]:
    """What the page asks, and whether it is known what is meant.

    Args:
        image, truth: files of the picture, and of a mask of what is meant in it: its brighter pixels, none for nothing.
        picked: the sample that was last picked; it is what is asked if the page still shows it as it is.

    Raises:
        Question: no picture, no expression, a file that is no picture, a mask of another size.
    """
    if image is None:
        raise Question("Picture: there is none. Upload one, or pick a sample.")
    if not expression.strip():
        raise Question("Expression: it is empty. Say what to look for.")
    try:
        sample = question(Path(image), expression.encode("utf-8", "replace").decode(), Path(image).stem)
        meant = None if truth is None else read_mask(Path(truth))
    except BrokenImage as error:
        raise Question(str(error)) from error
    if picked is not None and _is(picked, sample, meant):
        return picked, True
    if meant is None:
        return sample, False
    if meant["size"] != [sample.height, sample.width]:
        height, width = meant["size"]
        raise Question(f"Ground truth: the mask is {width}x{height}, the picture {sample.width}x{sample.height}.")
    box = masks.box(meant)
    return replace(sample, targets=() if box is None else (Target(box, meant),)), True


def read_mask(path: Path) -> RLE:
    """A mask out of a picture: pixels brighter than half of its brightest. Raises BrokenImage."""
    try:
        with Image.open(path) as file:
            values = np.asarray(file.convert("L"), np.float32)
    except (OSError, UnidentifiedImageError) as error:
        raise BrokenImage(f"{path.name}: cannot be read as a mask ({error}).") from error
    return masks.encode(values > values.max() / 2)


def _is(picked: Sample, sample: Sample, meant: RLE | None) -> bool:
    """Whether the page shows a picked sample as it is."""
    if sample.expression != picked.expression or (meant is None) != (picked.mask is None):
        return False
    if (sample.height, sample.width) != (picked.height, picked.width) or (meant is not None and meant != picked.mask):
        return False
    return np.array_equal(np.asarray(sample.image), np.asarray(picked.image))


def answer(
    policy: Answers, sample: Sample, known: bool, rewards: Mapping[str, Reward], max_tokens: int
) -> tuple[Prediction, str, list[float] | None]:
    """What the policy says of a sample, the text it wrote, and each reward of it; NaN for one that does not apply.

    Raises:
        ValueError: a picture of a shape that the policy takes none of, or a reward that needs what the answer lacks.
    """
    image = picture(sample, policy.frame)
    completions = policy.generate([sample], [image], max_tokens)
    predictions = policy.read([sample], [image], completions)
    scores = score(policy, sample, completions, predictions, rewards)[0].tolist() if known else None
    return predictions[0], policy.text(completions[0]), scores

"""Samples as the rows that TRL's trainers read: a chat, the picture resized once, and the sample itself beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image, ImageOps

from segmentation.data.resize import Frame, fit
from segmentation.formats import Format
from segmentation.processor import Chat as Chat
from segmentation.processor import chat as chat
from segmentation.processor import dialogue
from segmentation.sample import BrokenImage, Question, Sample, open_image, opened


def picture(sample: Sample, frame: Frame | None) -> Image.Image:
    """The sample's image at the size at which the model's processor leaves it alone.

    Raises:
        BrokenImage: it cannot be read, or is too narrow a strip for the processor.
    """
    image = open_image(sample)
    try:
        return image if frame is None else fit(image, frame)
    except ValueError as error:
        raise BrokenImage(f"{sample.image} (sample {sample.id}): {error}") from error


def question(image: Path, expression: str, id: str) -> Sample:
    """A sample without targets about a picture, which is turned upright: cameras write down how they were held.

    Raises:
        BrokenImage: the picture cannot be read.
    """
    with opened(image, str(image), "check its name") as file:
        upright = ImageOps.exif_transpose(file).convert("RGB")
    return Sample(id, upright, upright.height, upright.width, expression)


def prompt_rows(samples: Sequence[Sample], format: Format, frame: Frame | None) -> Dataset:
    """Rows for GRPO: `prompt`, `image`, `sample`. Nothing is opened before a row is asked for."""

    def row(sample: Sample) -> dict[str, Any]:
        return {"prompt": chat(format.prompt(sample.expression)), "image": picture(sample, frame), "sample": sample}

    return _lazy(samples, row)


def answer_rows(samples: Sequence[Sample], format: Format, frame: Frame | None) -> Dataset:
    """Rows for SFT: `prompt`, `completion`, `images`; the loss is on the completion. A `Question` is asked as it is."""

    def row(sample: Sample) -> dict[str, Any]:
        if isinstance(sample, Question):
            prompt, text = dialogue([*sample.before, sample.expression]), sample.answer
        else:
            prompt, text = chat(format.prompt(sample.expression)), format.encode(sample)
        return {
            "prompt": prompt,
            "completion": [{"role": "assistant", "content": [{"type": "text", "text": text}]}],
            "images": [picture(sample, frame)],
        }

    return _lazy(samples, row)


def _lazy(samples: Sequence[Sample], row) -> Dataset:
    """A datasets.Dataset of indices whose rows are made when they are read, so that any Sequence[Sample] will do.

    GRPO asks for each row once a completion, in one batch: it is made once.
    """

    def read(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        made = {index: row(samples[index]) for index in dict.fromkeys(batch["index"])}
        keys = next(iter(made.values())).keys()
        return {key: [made[index][key] for index in batch["index"]] for key in keys}

    return Dataset.from_dict({"index": range(len(samples))}).with_transform(read)

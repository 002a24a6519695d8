"""The nouns of the task: what is annotated (`Sample`, `Target`), what a policy said (`Found`, `NoTarget`, `Invalid`).

Every box is `(x1, y1, x2, y2)` in pixels of the *original* image, right and bottom exclusive. Every mask at rest is a
compressed COCO RLE (`segmentation.masks`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from segmentation.boxes import Box, around
from segmentation.masks import RLE, union


@dataclass(frozen=True, slots=True)
class Target:
    """One annotated object. `mask` is None only for box-only data (REC); `label` is its category or phrase."""

    box: Box
    mask: RLE | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One expression about one image.

    Args:
        id: unique within its dataset and stable between runs; predictions are keyed by it.
        image: path of the image, or the picture itself.
        height, width: size of the original image in pixels, as the annotation states it.
        expression: what to segment.
        targets: the objects meant; the empty tuple says that nothing in the image is meant (no target).
        ignore: pixels that count neither for nor against a prediction (ReasonSeg).
        image_id: COCO id where there is one, for leak checks.
        resized: whether a picture of another size is brought to `height` and `width`; elsewhere it is a broken image.
        upright: whether a file's picture is turned as its EXIF says, since what is annotated is what viewers show;
            elsewhere pixels are as they are stored, as pycocotools and its users read COCO.
    """

    id: str
    image: Path | Image.Image
    height: int
    width: int
    expression: str
    targets: tuple[Target, ...] = ()
    ignore: RLE | None = None
    image_id: int | None = None
    dataset: str = ""
    split: str = ""
    resized: bool = False
    upright: bool = False

    @property
    def mask(self) -> RLE | None:
        """Union of the targets' masks (all background for a no-target sample); None if a target has no mask."""
        masks = [target.mask for target in self.targets]
        if any(mask is None for mask in masks):
            return None
        return union([mask for mask in masks if mask is not None], self.height, self.width)


def joined(sample: Sample, names: Sequence[str | None]) -> Sample:
    """The sample with targets of one name as one region: the box around them, and their union.

    Args:
        names: of each target.
    """
    groups: dict[str | None, list[Target]] = {}
    for name, target in zip(names, sample.targets, strict=True):
        groups.setdefault(name, []).append(target)
    if len(groups) == len(sample.targets):
        return sample
    regions = []
    for group in groups.values():
        mask = replace(sample, targets=tuple(group)).mask
        regions.append(Target(around([target.box for target in group]), mask, group[0].label))
    return replace(sample, targets=tuple(regions))


@dataclass(frozen=True, slots=True)
class Question(Sample):
    """A question about an image that is answered in words (VQA): `expression` asks, `answer` is the right answer.

    It has no targets, which says nothing about what the image shows: it is not a no-target sample. `before` holds the
    turns before it, questions and answers.
    """

    answer: str = ""
    before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """One predicted object.

    `box` is None where the text says none (a segmentation token), until a decoder has made the mask. `mask` is None
    until then, or where boxes are all that is predicted. `point` is a position `(x, y)` on the object, where the format
    has one. `confidence` is how sure the text says it is, 0..1, where a format has that; `score` is the IoU that the
    mask's maker predicts of it. `probability` is `(h, w)` float16, how likely each cell of the image is foreground,
    where a trained decoder made the mask.
    """

    box: Box | None
    mask: RLE | None = None
    label: str | None = None
    score: float | None = None
    point: tuple[float, float] | None = None
    probability: np.ndarray | None = field(default=None, compare=False, repr=False)
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The answer names at least one object."""

    instances: tuple[Instance, ...]

    def __post_init__(self) -> None:
        if not self.instances:
            raise ValueError("Found needs at least one instance; an answer that names none is NoTarget().")

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes of all instances.

        Raises:
            ValueError: one has none: the text was a segmentation token, and no decoder has made its mask.
        """
        boxes = tuple(instance.box for instance in self.instances if instance.box is not None)
        if len(boxes) < len(self.instances):
            raise ValueError("an instance has no box: its text is a segmentation token, which needs a trained decoder.")
        return boxes


@dataclass(frozen=True, slots=True)
class NoTarget:
    """The answer states, in the format's own words, that nothing in the image is meant."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """The text is not a sentence of the format. `reason` names the position and the rule broken."""

    reason: str


Prediction = Found | NoTarget | Invalid


def state(prediction: Prediction) -> str:
    """`"found"`, `"no_target"` or `"invalid"`: the key under which a prediction is counted and stored."""
    match prediction:
        case Found():
            return "found"
        case NoTarget():
            return "no_target"
        case Invalid():
            return "invalid"


class BrokenImage(ValueError):
    """An image is missing, unreadable, or of another size than its annotation says. The message names the file."""


@contextmanager
def opened(path: Path, name: str, missing: str = "check data.root") -> Iterator[Image.Image]:
    """An image file, open; what Pillow raises within is a BrokenImage.

    Args:
        name: what the message calls it.
        missing: what the message advises where there is no such file.
    """
    try:
        with Image.open(path) as file:
            yield file
    except FileNotFoundError as error:
        raise BrokenImage(f"{name}: no such file; {missing}.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # all that Pillow raises
        raise BrokenImage(f"{name}: cannot be read: {error}. Download it again.") from error


def orientation(file: Image.Image) -> int:
    """How a camera was held, of EXIF: 1 upright, 5 to 8 with sides exchanged."""
    return file.getexif().get(ExifTags.Base.Orientation, 1)


def open_image(sample: Sample) -> Image.Image:
    """The sample's picture as RGB, fully read, of its `height` and `width`.

    Raises:
        BrokenImage: missing, truncated or undecodable file, or one of another size that is not to be resized.
    """
    image = sample.image
    if isinstance(image, Path):
        with opened(image, f"{image} (sample {sample.id})") as file:
            image = ImageOps.exif_transpose(file) if sample.upright else file
            image = image.convert("RGB")  # reads all pixels, so a truncated file is met here
    if sample.resized and image.size != (sample.width, sample.height):
        return image.convert("RGB").resize((sample.width, sample.height), Image.Resampling.BICUBIC)
    if image.size != (sample.width, sample.height):
        turned = sample.upright and image.size == (sample.height, sample.width)
        raise BrokenImage(
            f"{sample.image} (sample {sample.id}): the image is {image.size[0]}x{image.size[1]}, "
            f"its annotation says {sample.width}x{sample.height}."
            + " Its EXIF turns it; if what is annotated are pixels as they are stored: upright=false."
            * turned
        )
    return image if image.mode == "RGB" else image.convert("RGB")


def prediction_mask(prediction: Prediction, height: int, width: int) -> RLE | None:
    """Union of what a prediction paints: all background for NoTarget, None for Invalid and where no mask was decoded.

    Every instance has a mask by now or none has: a decoder (`segmentation.decoders`) fills those a format leaves out.
    """
    match prediction:
        case Invalid():
            return None
        case NoTarget():
            return union([], height, width)
        case Found(instances):
            masks = [instance.mask for instance in instances if instance.mask is not None]
            return union(masks, height, width) if len(masks) == len(instances) else None

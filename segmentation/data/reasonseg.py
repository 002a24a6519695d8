"""ReasonSeg: long questions whose answer is a region, drawn as polygons with regions to ignore.

```
<root>/ReasonSeg/{train,val,test}/<name>.jpg
<root>/ReasonSeg/{train,val,test}/<name>.json   text (paraphrases), is_sentence, shapes: label, points
```

What counts as what is as in github.com/dvlab-research/LISA: shapes labelled `flag` are left out; the others are painted
large to small, so that a small one covers a large one; a label with `ignore` in it is a region to ignore and any other
a part of the one target.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from segmentation import masks
from segmentation.data.files import get, located, read_json, size_of
from segmentation.data.refs import Sentences, worded
from segmentation.data.regions import check_inside, target_of
from segmentation.data.samples import Samples
from segmentation.sample import Sample, Target

SPLITS = ("train", "val", "test")
Ignore = Literal["drop", "background", "target"]
Queries = Literal["all", "short", "long"]


@dataclass(frozen=True, slots=True)
class Shape:
    """A polygon, its points `(N, 2)` in whole pixels as LISA cuts them, and whether it is a region to ignore."""

    points: np.ndarray
    ignored: bool


@dataclass(frozen=True, slots=True)
class Annotation:
    """What one JSON file says."""

    file: Path
    texts: tuple[tuple[int, str], ...]
    shapes: tuple[Shape, ...]


class ReasonSeg(Samples):
    """One split of ReasonSeg. The JSON files are read at once, images and masks when a sample is.

    Args:
        root: the folder with `ReasonSeg/`.
        split: train, val or test.
        sentences: `first` is what LISA evaluates, `each` has all the paraphrases of train, `joined` one of all of them.
        ignore: what regions to ignore are: `drop`, pixels that do not count (LISA's evaluation), `background` (LISA's
            training, LENS) or `target` (HiMTok, Seg-Zero).
        queries: all, or only those of short phrases or of long sentences (`is_sentence`), which papers list apart.
        skip: names of JSON files, without their ending, to leave out.

    Raises:
        ValueError: an unknown split or option, or a malformed file.
        FileNotFoundError: there is no such folder, or no JSON in it.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        sentences: Sentences = "first",
        ignore: Ignore = "drop",
        queries: Queries = "all",
        skip: Sequence[str] = (),
    ) -> None:
        for name, value, valid in (
            ("split", split, SPLITS),
            ("ignore", ignore, ("drop", "background", "target")),
            ("queries", queries, ("all", "short", "long")),
        ):
            if value not in valid:
                raise ValueError(f"data.{name}={value!r}; it is one of {', '.join(valid)}.")
        folder = Path(root, "ReasonSeg", split)
        files = [file for file in sorted(folder.glob("*.json")) if file.stem not in skip]
        if not files:
            raise FileNotFoundError(
                f"{folder}: no *.json. data.root={root} needs LISA's layout: ReasonSeg/{split}/<name>.jpg and .json."
            )
        self.split, self.ignore = split, ignore
        self._rows: list[tuple[Annotation, str, str]] = []
        for file in files:
            with located(str(file)):
                content = read_json(file, fallback="cp1252")
                if queries == "all" or get(content, "is_sentence", bool) == (queries == "long"):
                    annotation = _annotation(file, content)
                    self._rows += [(annotation, ending, text) for ending, text in worded(annotation.texts, sentences)]
        self._last: tuple[Annotation, int, int, Target, masks.RLE | None] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def image_id(self, index: int) -> None:
        """None: the images are not COCO's."""

    def sample(self, index: int) -> Sample:
        """The sample of a row: one target, with all that its file calls one. Raises BrokenImage if it has no image."""
        annotation, ending, text = self._rows[index]
        if not (self._last and self._last[0] is annotation):  # paraphrases follow each other: masks are made once
            self._last = self._painted(annotation)
        _, height, width, target, ignored = self._last
        return Sample(
            id=f"reasonseg-{self.split}-{annotation.file.stem}{ending}",
            image=annotation.file.with_suffix(".jpg"),
            height=height,
            width=width,
            expression=text,
            targets=(target,),
            ignore=ignored,
            dataset="reasonseg",
            split=self.split,
            upright=True,
        )

    def _painted(self, annotation: Annotation) -> tuple[Annotation, int, int, Target, masks.RLE | None]:
        height, width = size_of(annotation.file.with_suffix(".jpg"), upright=True)  # LISA reads by cv2, which turns
        with located(str(annotation.file)):
            for number, shape in enumerate(annotation.shapes):
                xs, ys = shape.points.T.tolist()
                check_inside(xs, ys, height, width, f"polygon {number} of shapes")
            target, ignored = paint(annotation.shapes, height, width)
            if self.ignore == "target":
                target |= ignored
            if not target.any():
                raise ValueError(f"no shape is a target. Leave it out: data.skip=[{annotation.file.stem}].")
            left_out = masks.encode(ignored) if self.ignore == "drop" and ignored.any() else None
            return annotation, height, width, target_of(masks.encode(target)), left_out


def paint(shapes: Sequence[Shape], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What is target and what is to ignore, `bool (H, W)` each, no pixel both."""
    drawn = [(_drawn(shape, height, width), shape.ignored) for shape in shapes]
    target, ignored = np.zeros((height, width), bool), np.zeros((height, width), bool)
    for mask, to_ignore in sorted(drawn, key=lambda one: int(one[0].sum()))[::-1]:  # of equals the earlier on top
        on, off = (ignored, target) if to_ignore else (target, ignored)
        on |= mask
        off &= ~mask
    return target, ignored


def _drawn(shape: Shape, height: int, width: int) -> np.ndarray:
    """A polygon with its outline, as LISA draws it: other libraries differ along the edge."""
    canvas = np.zeros((height, width), np.uint8)
    points = [shape.points.astype(np.int32)]
    cv2.polylines(canvas, points, True, [1])
    cv2.fillPoly(canvas, points, [1])
    return canvas.astype(bool)


def _annotation(file: Path, content: dict[str, Any]) -> Annotation:
    texts = content["text"] if isinstance(content["text"], list) else [content["text"]]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"text {reprlib.repr(texts)} holds no expression, or an empty one.")
    shapes = []
    for number, shape in enumerate(content["shapes"]):
        label = get(shape, "label", str).lower()
        if label == "flag":
            continue
        points = np.asarray(shape["points"], dtype=float)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not (abs(points) < 1e6).all():
            raise ValueError(f"shapes[{number}].points is no polygon of at least 3 points [x, y].")
        shapes.append(Shape(points.astype(int), "ignore" in label))
    return Annotation(file, tuple(enumerate(texts)), tuple(shapes))

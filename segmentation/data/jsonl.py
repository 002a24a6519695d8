"""The project's own format: a file with one Sample a line. README.md of this folder has its schema.

`python -m segmentation.data.export` writes it from any dataset. Of a large file only the place of each line is kept in
memory; a line is read when its sample is asked for.
"""

from __future__ import annotations

import hashlib
import math
import os
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic_core import from_json

from segmentation import masks
from segmentation.boxes import Box
from segmentation.data.files import get, inside, located, require
from segmentation.data.regions import check_inside
from segmentation.data.samples import Samples
from segmentation.sample import Question, Sample, Target

KEYS = {"id", "image", "height", "width", "expression", "targets", "ignore", "image_id", "dataset", "split"}
NEEDED = ("id", "image", "height", "width", "expression", "targets")
TARGET_KEYS = {"box", "mask", "label"}


class Jsonl(Samples):
    """The samples of one file, or those of one split in it.

    Args:
        root: the folder that `file` and every `image` in it are relative to.
        file: the file.
        split: only lines of this `split`; None for all.
        upright: sizes, boxes and masks are of pictures turned as their EXIF says, which is how viewers and annotation
            tools show them; False: of pixels as they are stored.

    Raises:
        ValueError: a line is no sample, an id appears twice, or no line is of the split. It names file and line.
        FileNotFoundError: the file is not there.
    """

    def __init__(self, root: str | Path, file: str, split: str | None = None, upright: bool = True) -> None:
        self.root, self.upright = Path(root), upright
        self.path = inside(self.root, file)
        require(root, [self.path], "data.file, which `python -m segmentation.data.export` writes")
        self._lines, self._offsets, self._images = array("q"), array("q"), array("q")
        splits: set[str] = set()
        for_test: set[int] = set()
        seen: dict[bytes, int] = {}  # digests: a million ids as text would take ten times the memory
        with open(self.path, "rb") as lines:
            offset = 0
            for number, line in enumerate(lines, 1):
                start, offset = offset, offset + len(line)
                if not line.strip():
                    continue
                with located(f"{self.path}: line {number}"):
                    entry = _entry(line)
                    first = seen.setdefault(hashlib.blake2b(entry["id"].encode(), digest_size=8).digest(), number)
                    if first != number:
                        raise ValueError(f"id {entry['id']!r} is also that of line {first}; each sample needs its own.")
                    own, image = entry.get("split", ""), entry.get("image_id")
                    image = self._of_file(entry["image"]) if image is None else image
                splits.add(own)
                if own.startswith(("val", "test")):
                    for_test.add(image)
                if split in (None, own):
                    self._lines.append(number)
                    self._offsets.append(start)
                    self._images.append(image)
        if not self._lines:
            found = ", ".join(sorted(splits)) or "no line at all"
            raise ValueError(f"data.split={split!r}: {self.path} has no line of it; it has {found}.")
        self.held_out = frozenset(for_test)

    def __len__(self) -> int:
        return len(self._offsets)

    def image_id(self, index: int) -> int | None:
        """COCO id of the image of a line, None if it has none."""
        return None if self._images[index] < 0 else self._images[index]

    def shown(self, index: int) -> int:
        """COCO id of the image of a line, or a number of its file: below 0, which no COCO id is."""
        return self._images[index]

    def _of_file(self, name: str) -> int:
        path = inside(self.root, name).absolute()
        return ~(int.from_bytes(hashlib.blake2b(bytes(path), digest_size=8).digest()) >> 1)

    def sample(self, index: int) -> Sample:
        """The sample of a line. Raises ValueError, which names file and line."""
        with open(self.path, "rb") as lines:
            lines.seek(self._offsets[index])
            line = lines.readline()
        with located(f"{self.path}: line {self._lines[index]}"):
            return replace(from_entry(_entry(line), self.root), upright=self.upright)


def to_entry(sample: Sample, image: str) -> dict[str, Any]:
    """A sample as a line's object, its image by that name. What is empty is left out.

    Raises:
        ValueError: it is a question, whose answer has no place in a line.
    """
    if isinstance(sample, Question):
        raise ValueError(f"sample {sample.id} is a question, to be answered in words; a line has targets alone.")
    entry: dict[str, Any] = {
        "id": sample.id,
        "image": image,
        "height": sample.height,
        "width": sample.width,
        "expression": sample.expression,
        "targets": [
            {"box": list(target.box)}
            | ({"mask": target.mask} if target.mask else {})
            | ({"label": target.label} if target.label is not None else {})
            for target in sample.targets
        ],
    }
    more = {
        "ignore": sample.ignore,
        "image_id": sample.image_id,
        "dataset": sample.dataset or None,
        "split": sample.split or None,
    }
    return entry | {key: value for key, value in more.items() if value is not None}


def from_entry(entry: dict[str, Any], root: Path) -> Sample:
    """The sample of a line's object. Raises ValueError, KeyError or TypeError if it is malformed."""
    height, width = entry["height"], entry["width"]
    ignore = entry.get("ignore")
    return Sample(
        id=entry["id"],
        image=inside(root, entry["image"]),
        height=height,
        width=width,
        expression=entry["expression"],
        targets=tuple(_target(target, height, width) for target in entry["targets"]),
        ignore=None if ignore is None else masks.from_uncompressed(ignore, height, width),
        image_id=entry.get("image_id"),
        dataset=entry.get("dataset", ""),
        split=entry.get("split", ""),
    )


def _entry(line: bytes) -> dict[str, Any]:
    """A line's object, its keys and the types of their values checked."""
    try:
        entry = from_json(line)
    except ValueError as error:
        raise ValueError(f"not complete JSON ({error}).") from error
    if not isinstance(entry, dict):
        raise ValueError(f"holds a {type(entry).__name__}; an object was expected.")
    _only(entry, KEYS, "a sample")
    for key in NEEDED:
        get(entry, key, int if key in ("height", "width") else list if key == "targets" else str)
    for key, kind in (("image_id", int), ("dataset", str), ("split", str)):
        if key in entry:
            get(entry, key, kind)
    if min(entry["height"], entry["width"]) < 1:
        raise ValueError(f"height {entry['height']} and width {entry['width']} are no size of an image.")
    return entry


def _target(entry: dict[str, Any], height: int, width: int) -> Target:
    _only(entry, TARGET_KEYS, "a target")
    x1, y1, x2, y2 = map(float, entry["box"])
    box: Box = x1, y1, x2, y2
    if not (x1 < x2 and y1 < y2 and all(map(math.isfinite, box))):
        raise ValueError(f"box {entry['box']} has no area; it is [x1, y1, x2, y2] in pixels.")
    check_inside((x1, x2), (y1, y2), height, width, f"box {entry['box']}")
    written, label = entry.get("mask"), get(entry, "label", str) if "label" in entry else None
    mask = None if written is None else masks.from_uncompressed(written, height, width)
    if mask is not None and not masks.area(mask):
        raise ValueError("mask encloses no pixel of its image; where nothing is meant, targets is [].")
    return Target(box, mask, label)


def _only(entry: dict[str, Any], keys: set[str], what: str) -> None:
    unknown = sorted(set(entry) - keys)
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no field of {what}; they are {', '.join(sorted(keys))}.")


def save_picture(picture: Image.Image, folder: Path) -> Path:
    """The file of a picture that was made in memory, a PNG named after its pixels, written unless it is there."""
    name = hashlib.blake2b(picture.tobytes() + repr(picture.size).encode(), digest_size=12).hexdigest()
    path = folder / f"{name}.png"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")  # one that was cut short is not taken for a whole one
        picture.save(draft, "PNG")
        draft.replace(path)
    return path

"""Conversations in the form of Qwen3-VL-Seg (SA1B-ORS for training, ORS-Bench for evaluation).

```
<root>/<file>.json      a list of records, or .jsonl: one a line
<root>/<image>, <root>/<mask>
```

```
image          sa_1.jpg
conversations  from human: <image> Locate and segment every instance that belongs to the following categories "dog",
                           report bbox coordinates and masks in JSON format.
               from gpt:   [{"bbox_2d": [x1, y1, x2, y2], "label": "dog", "mask": "<mask_start>..."}]
mask           a mask for each object: a COCO RLE, polygons, or the name of a label picture
```

The authors describe the texts (arXiv 2605.07141) but published no files: where masks are kept is as in the
reproduction github.com/shujuecn/Qwen3-VL-Seg, whose one object has its mask as it is, without a list, and whose boxes
are pixels. An empty list of objects is no target.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from segmentation import masks
from segmentation.boxes import Box, Relative, from_frame, iou_matrix
from segmentation.data.files import as_list, get, inside, located, read_json, require, size_of
from segmentation.data.regions import check_inside, mask_of, picture_mask, target_of
from segmentation.data.samples import Samples
from segmentation.sample import Sample, Target

ASKED = re.compile(
    r"^\s*Locate and segment (?:every instance that belongs to the following categories|"
    r"the object that matches the description)?\s*(.*?),? report bbox coordinates and masks? in JSON format\.?\s*$",
    re.DOTALL,
)
FITS = 0.3  # IoU of a box with the one around its mask; rounded to thousandths they agree far better


@dataclass(frozen=True, slots=True)
class Record:
    """A conversation: what is asked, and each object of the answer with its mask."""

    id: str
    image: Path
    expression: str
    objects: tuple[dict[str, Any], ...]
    masks: tuple[Any, ...]


class Qwen3VLSeg(Samples):
    """The conversations of one file. Images and masks are read when a sample is.

    Args:
        root: the folder that `file` and the names in it are relative to.
        file: a .json with a list, or a .jsonl.
        frame: of `bbox_2d`: `relative1000`, thousandths of the image as Qwen3-VL writes, or `pixels`.
        dataset: name for the samples, the start of their ids.
        split: for the samples.

    Raises:
        ValueError: a record lacks a field, is of another form, has more or fewer masks than objects, or leads out of
            the root, or two have the same id.
        FileNotFoundError: the file is not there.
    """

    costly = True

    def __init__(
        self,
        root: str | Path,
        file: str,
        frame: Literal["relative1000", "pixels"] = "relative1000",
        dataset: str = "sa1b_ors",
        split: str = "train",
    ) -> None:
        if frame not in ("relative1000", "pixels"):
            raise ValueError(f"data.frame={frame!r}; it is 'relative1000' or 'pixels'.")
        self.root, self.frame, self.dataset, self.split = Path(root), frame, dataset, split
        self.path = inside(self.root, file)
        require(root, [self.path], "data.file, a list of conversations")
        self._records: dict[str, Record] = {}
        for number, read in enumerate(_read(self.path)):
            with located(f"{self.path}: record {number}"):
                record = _record(read(), number, self.root)
                if record.id in self._records:
                    raise ValueError(f"id {record.id!r} is also that of another record; each needs its own.")
                self._records[record.id] = record
        self._ids = list(self._records)

    def __len__(self) -> int:
        return len(self._ids)

    def image_id(self, index: int) -> None:
        """None: the images are SA-1B's."""

    def sample(self, index: int) -> Sample:
        """The sample of a record; its masks are read now. Raises BrokenImage if it has no image."""
        record = self._records[self._ids[index]]
        height, width = size_of(record.image)
        with located(f"{self.path}: record {record.id}"):
            targets = tuple(
                self._target(entry, mask, height, width)
                for entry, mask in zip(record.objects, record.masks, strict=True)
            )
        return Sample(
            id=f"{self.dataset}-{self.split}-{record.id}",
            image=record.image,
            height=height,
            width=width,
            expression=record.expression,
            targets=targets,
            dataset=self.dataset,
            split=self.split,
        )

    def _target(self, entry: dict[str, Any], written: Any, height: int, width: int) -> Target:
        if isinstance(written, str):
            mask = picture_mask(inside(self.root, written), height, width)
        else:
            mask = mask_of(written, height, width)
        box = self._box(entry["bbox_2d"], height, width)
        target = target_of(mask, box, entry.get("label"))
        around = masks.box(mask)
        if around and iou_matrix([box], [around])[0, 0] < FITS:
            raise ValueError(
                f"bbox_2d {entry['bbox_2d']} does not fit its mask, whose box is {around} in pixels of an image of "
                f"{width}x{height}; is it in another frame than data.frame={self.frame}?"
            )
        return target

    def _box(self, written: Any, height: int, width: int) -> Box:
        x1, y1, x2, y2 = map(float, written)
        if not (x1 < x2 and y1 < y2):
            raise ValueError(f"bbox_2d {written} has no area.")
        if self.frame == "pixels":
            check_inside((x1, x2), (y1, y2), height, width, f"bbox_2d {written}")
            return x1, y1, x2, y2
        return from_frame((x1, y1, x2, y2), height, width, Relative(1000))


def _read(path: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """What reads each record, so that a damaged line is met where its number is known."""
    if path.suffix == ".jsonl":
        for line in path.read_bytes().splitlines():
            yield partial(json.loads, line)
    else:
        for record in as_list(read_json(path), str(path)):
            yield partial(dict, record)


def _record(record: dict[str, Any], number: int, root: Path) -> Record:
    turns = get(record, "conversations", list)
    if [turn["from"] for turn in turns] != ["human", "gpt"]:
        raise ValueError(f"conversations are from {[turn['from'] for turn in turns]}; one human and one gpt are read.")
    asked, answered = (get(turn, "value", str) for turn in turns)
    try:
        objects = json.loads(answered)
    except ValueError as error:
        raise ValueError(f"the value of gpt is not complete JSON ({error}).") from error
    if not isinstance(objects, list) or not all(isinstance(entry, dict) for entry in objects):
        raise ValueError("the value of gpt is not a list of objects.")
    written = record.get("mask", [])
    of_one = not isinstance(written, list) or (len(objects) == 1 and _is_polygons(written))
    found = [written] if of_one else written
    if len(found) != len(objects):
        raise ValueError(f"mask holds {len(found)} masks for {len(objects)} objects.")
    return Record(
        str(record.get("id", number)),
        inside(root, get(record, "image", str)),
        expression_of(asked),
        tuple(objects),
        tuple(found),
    )


def _is_polygons(written: list[Any]) -> bool:
    """Whether this is one mask of polygons [[x, y, ...], ...], and not a list of such masks."""
    return bool(written) and all(isinstance(part, list) and part and not isinstance(part[0], list) for part in written)


def expression_of(asked: str) -> str:
    """What a prompt of Qwen3-VL-Seg asks for; the whole text, where it is worded otherwise. Raises ValueError if empty.

    `... following categories "dog", "cat", report ...` asks for `dog, cat`.
    """
    text = asked.replace("<image>", "").strip()
    match = ASKED.match(text)
    said = match[1].strip() if match else text
    if said.startswith('"') and said.endswith('"'):
        said = ", ".join(part.strip() for part in said[1:-1].split('", "'))
    if not said:
        raise ValueError(f"the value of human, {reprlib.repr(asked)}, asks for nothing.")
    return said

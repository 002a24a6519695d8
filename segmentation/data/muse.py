"""MUSE: questions that several objects answer, on COCO images.

```
<root>/muse/muse_{train,val,test_less,test_many}.json    or MUSE_....json; a list of images with their questions
<root>/images/mscoco/images/{train2014,train2017,val2017}/*.jpg
```

Fields are those that github.com/MaverickRen/PixelLM reads: `file_name` (train2014) or `coco_url` (2017), `height`,
`width`, `questions`, and for each question its `answers`, annotations with `segmentation` and a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from segmentation.data.files import as_list, collector_at_rest, get, inside, located, read_json
from segmentation.data.instances import Picture
from segmentation.data.regions import box_of, mask_of, target_of
from segmentation.data.samples import Samples
from segmentation.sample import Sample, Target

SPLITS = ("train", "val", "test_less", "test_many")
IMAGES = "images/mscoco/images"


@dataclass(frozen=True, slots=True)
class Question:
    """A question, where in the file it is, and the annotations that answer it."""

    item: int
    number: int
    text: str
    answers: tuple[dict[str, Any], ...]
    picture: Picture
    image_id: int | None


class Muse(Samples):
    """One split of MUSE, a sample for each question. Images and masks are read when a sample is.

    A target's label is its `rephrased_name`, or its `category_name` where it has none.

    Args:
        root: the folder with `muse/` and `images/`.
        split: train, val, test_less or test_many (few targets, many targets).
        skip_items: positions in the file of items to leave out.

    Raises:
        ValueError: an unknown split, or an item that lacks a field or has not as many answers as questions.
        FileNotFoundError: the file is not there.
    """

    def __init__(self, root: str | Path, split: str = "val", skip_items: Sequence[int] = ()) -> None:
        if split not in SPLITS:
            raise ValueError(f"data.split={split!r}; it is one of {', '.join(SPLITS)}.")
        self.split, self.path = split, _file(root, split)
        self.held_out = frozenset(_images(root, {"val", "test_less", "test_many"} - {split}))
        skipped = set(skip_items)
        self._rows: list[Question] = []
        with collector_at_rest():
            for number, item in enumerate(as_list(read_json(self.path), str(self.path))):
                if number not in skipped:
                    with located(f"{self.path}: item {number}"):
                        self._rows += _questions(number, item, Path(root, IMAGES))
        if split != "train":
            self.held_out |= {row.image_id for row in self._rows if row.image_id is not None}

    def __len__(self) -> int:
        return len(self._rows)

    def image_id(self, index: int) -> int | None:
        """COCO id of the image of a row."""
        return self._rows[index].image_id

    def sample(self, index: int) -> Sample:
        """The sample of a row; its masks are read now, its picture later."""
        row = self._rows[index]
        return Sample(
            id=f"muse-{self.split}-{row.item}-{row.number}",
            image=row.picture.path,
            height=row.picture.height,
            width=row.picture.width,
            expression=row.text,
            targets=tuple(self._target(row, number) for number in range(len(row.answers))),
            image_id=row.image_id,
            dataset="muse",
            split=self.split,
        )

    def _target(self, row: Question, number: int) -> Target:
        answer, size = row.answers[number], (row.picture.height, row.picture.width)
        with located(f"{self.path}: item {row.item}: answer {number} of question {row.number}"):
            box = box_of(answer["bbox"], *size) if answer.get("bbox") else None
            label = answer.get("rephrased_name") or answer.get("category_name")
            return target_of(mask_of(answer["segmentation"], *size), box, label)


def _file(root: str | Path, split: str) -> Path:
    files = [Path(root, "muse", f"{name}_{split}.json") for name in ("muse", "MUSE")]
    for file in files:
        if file.is_file():
            return file
    raise FileNotFoundError(f"{files[0]}: no such file. data.root={root} needs muse/*.json and {IMAGES}/*/*.jpg.")


def _images(root: str | Path, splits: Iterable[str]) -> Iterator[int]:
    """COCO ids of the images of those splits whose file is there: a hundredth of what the training file holds."""
    for split in splits:
        with suppress(FileNotFoundError):
            file = _file(root, split)
            for number, entry in enumerate(as_list(read_json(file), str(file))):
                with located(f"{file}: item {number}"):
                    image = _image_id(entry.get("file_name") or get(entry, "coco_url", str))
                    if image is not None:
                        yield image


def _image_id(name: str) -> int | None:
    """Of COCO_train2014_000000000009.jpg, or of .../000000000009.jpg."""
    digits = PurePath(name).stem.rsplit("_", 1)[-1]
    return int(digits) if digits.isdecimal() else None


def _questions(item: int, entry: dict[str, Any], images: Path) -> list[Question]:
    if "file_name" in entry:
        name, folder = get(entry, "file_name", str), images / "train2014"
    else:
        url = get(entry, "coco_url", str)
        name, folder = url.rsplit("/", 1)[-1], images / ("train2017" if "train2017" in url else "val2017")
    picture = Picture(inside(folder, name), get(entry, "height", int), get(entry, "width", int))
    questions, answers = get(entry, "questions", list), get(entry, "answers", list)
    if len(questions) != len(answers):
        raise ValueError(
            f"{len(questions)} questions but {len(answers)} answers. Leave it out: data.skip_items=[{item}]."
        )
    rows = []
    for number, (text, answered) in enumerate(zip(questions, answers, strict=True)):
        if not (isinstance(text, str) and text.strip() and isinstance(answered, list) and answered):
            raise ValueError(
                f"question {number} is empty, or its answer names no object. "
                f"Leave the item out: data.skip_items=[{item}]."
            )
        rows.append(Question(item, number, text, tuple(answered), picture, _image_id(name)))
    return rows

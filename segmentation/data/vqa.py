"""POPE and GQA: questions with short answers, by which papers measure what a policy has forgotten.

```
<root>/<file>                                 POPE: coco_pope_adversarial.json, a line each: question_id, image, text, label
<root>/images/mscoco/images/val2014/*.jpg
<root>/<file>                                 GQA: testdev_balanced_questions.json, {id: {imageId, question, answer}}
<root>/gqa/images/*.jpg
```

The fields are those that AoiDong/POPE and haotian-liu/LLaVA (`scripts/v1_5/eval/`) read.
"""  # noqa: E501, a layout cannot be broken

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic_core import from_json

from segmentation.data.files import get, inside, located, read_json, require, size_of
from segmentation.data.samples import Samples
from segmentation.sample import Question

IMAGES = {"pope": "images/mscoco/images/val2014", "gqa": "gqa/images"}


class Vqa(Samples):
    """The questions of a file, in its order; the answer of each is the label or the right answer.

    Args:
        root: the folder that `file` and `images` are relative to.
        file: the file.
        dataset: whose layout it has, and whose scoring is meant: `pope` or `gqa`.
        images: the folder of the images; None for the one above.

    Raises:
        ValueError: an unknown dataset, or an entry that lacks a field; a POPE label that is neither yes nor no.
        FileNotFoundError: the file is not there.
    """

    costly = True  # the size of an image is nowhere but in it
    in_words = True

    def __init__(self, root: str | Path, file: str, dataset: Literal["pope", "gqa"], images: str | None = None) -> None:
        if dataset not in IMAGES:
            raise ValueError(f"questions.dataset={dataset!r}; it is one of {', '.join(IMAGES)}.")
        self.dataset, self.path = dataset, inside(Path(root), file)
        self._images = inside(Path(root), images or IMAGES[dataset])
        require(root, [self.path], f"questions.file, as {dataset} publishes it")
        read = _pope if dataset == "pope" else _gqa
        self._rows = read(self.path)
        if not self._rows:
            raise ValueError(f"{self.path}: has no question.")
        for _, image, _, _ in self._rows:
            inside(self._images, image)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def labels(self) -> list[str]:
        """The label or right answer of every row; no image is opened."""
        return [row[-1] for row in self._rows]

    def id(self, index: int) -> str:
        """The id of the sample of a row; no image is opened."""
        return f"{self.dataset}-{self.path.stem}-{self._rows[index][0]}"

    def sample(self, index: int) -> Question:
        """The question of a row. Raises BrokenImage if the head of its image cannot be read."""
        _, name, text, answer = self._rows[index]
        image = inside(self._images, name)
        height, width = size_of(image)
        own = Question(self.id(index), image, height, width, text, answer=answer)
        return replace(own, dataset=self.dataset, split=self.path.stem)


def _pope(path: Path) -> list[tuple[str, str, str, str]]:
    """(id, image, question, label) of each line."""
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        with located(f"{path}: line {number}"):
            entry: dict[str, Any] = from_json(line)
            label = get(entry, "label", str)
            if label not in ("yes", "no"):
                raise ValueError(f"label {label!r} is neither 'yes' nor 'no'")
            rows.append((str(entry["question_id"]), get(entry, "image", str), get(entry, "text", str), label))
    return rows


def _gqa(path: Path) -> list[tuple[str, str, str, str]]:
    """(id, image, question, answer) of each entry."""
    rows = []
    content = read_json(path)
    for identity, entry in content.items():
        with located(f"{path}: question {identity}"):
            image = f"{get(entry, 'imageId', str)}.jpg"
            rows.append((identity, image, get(entry, "question", str), get(entry, "answer", str)))
    return rows

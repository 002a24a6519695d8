"""LLaVA-style VQA: conversations about images, mixed into a warm start so that the policy does not forget to talk.

```
<root>/<file>      a list: {"id", "image", "conversations": [{"from": "human" | "gpt", "value"}, ...]}
<root>/<image>     coco/train2017/000000000009.jpg, gqa/images/1.jpg, ...
```

The layout of LLaVA-1.5's `llava_v1_5_mix665k.json` (haotian-liu/LLaVA, `docs/Finetune_Custom_Data.md`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from segmentation.data.files import as_list, collector_at_rest, get, inside, located, read_json, require, size_of
from segmentation.data.samples import Samples
from segmentation.sample import Question

COCO_FOLDERS = {"train2014", "val2014", "train2017", "val2017"}
MARK = "<image>"


class Llava(Samples):
    """A sample (`Question`) for every answer, or for the first of each conversation.

    An answer that is not the first has the turns before it in its prompt. The picture stands before the first question,
    wherever that has its `<image>`.

    Args:
        root: the folder that `file` and every `image` in it are relative to.
        file: the file.
        turns: `each` answer is a sample, or the `first` of each conversation alone.
        text_only: conversations without an image: `stop`, or `skip` them; LLaVA's mixture has 40,688 from ShareGPT.

    Attributes:
        skipped: how many were.

    Raises:
        ValueError: an option is wrong, an entry lacks a field, or its turns are not questions and answers in turn.
        FileNotFoundError: the file is not there.
    """

    costly = True  # the size of an image is nowhere but in it
    in_words = True

    def __init__(
        self,
        root: str | Path,
        file: str,
        turns: Literal["each", "first"] = "each",
        text_only: Literal["stop", "skip"] = "stop",
    ) -> None:
        for name, value, known in (("turns", turns, ("each", "first")), ("text_only", text_only, ("stop", "skip"))):
            if value not in known:
                raise ValueError(f"data.{name}={value!r}; it is one of {', '.join(known)}.")
        self.root, self.path = Path(root), inside(Path(root), file)
        require(self.root, [self.path], "data.file, a list of conversations as LLaVA has them")
        self.skipped = 0
        self._rows: list[tuple[int, str, tuple[str, ...]]] = []  # entry, image, the turns up to and with the answer
        with collector_at_rest():
            for number, entry in enumerate(as_list(read_json(self.path), str(self.path))):
                with located(f"{self.path}: entry {number}"):
                    self._rows += self._conversation(number, entry, turns, text_only)

    def _conversation(self, number: int, entry: dict[str, Any], turns: str, text_only: str) -> Iterator[tuple]:
        if "image" not in entry:
            if text_only == "stop":
                raise ValueError("has no image; data.text_only=skip leaves such conversations out.")
            self.skipped += 1
            return
        image = get(entry, "image", str)
        inside(self.root, image)
        said = []
        for turn, one in enumerate(get(entry, "conversations", list)):
            speaker = ("human", "gpt")[turn % 2]
            if get(one, "from", str) != speaker:
                raise ValueError(f"turn {turn} is from {one['from']!r}, not from {speaker!r}: they take turns")
            said.append(get(one, "value", str).replace(MARK, "").strip())
            if not said[-1]:
                raise ValueError(f"turn {turn} is empty")
        if not said or len(said) % 2:
            raise ValueError(f"has {len(said)} turns; each question needs its answer")
        for end in range(2, 3 if turns == "first" else len(said) + 1, 2):
            yield number, image, tuple(said[:end])

    def __len__(self) -> int:
        return len(self._rows)

    def image_id(self, index: int) -> int | None:
        """COCO id of the image, where the name of its folder says that it is COCO's."""
        path = PurePosixPath(self._rows[index][1])
        digits = path.stem.rsplit("_", 1)[-1]
        return int(digits) if path.parent.name in COCO_FOLDERS and digits.isdecimal() else None

    def sample(self, index: int) -> Question:
        """The question of a row. Raises BrokenImage if the head of its image cannot be read."""
        number, name, said = self._rows[index]
        image = inside(self.root, name)
        height, width = size_of(image)
        return Question(
            id=f"llava-{number}-{len(said) // 2}",
            image=image,
            height=height,
            width=width,
            expression=said[-2],
            image_id=self.image_id(index),
            dataset="llava",
            split="train",
            answer=said[-1],
            before=said[:-2],
        )

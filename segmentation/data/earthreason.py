"""EarthReason: questions about satellite and aerial images, answered by a label picture; some have no answer.

```
<root>/rs_reason_seg/RSReasonSeg/{train,val,test}/images/<name>.{jpg,jpeg,png}
<root>/rs_reason_seg/RSReasonSeg/{train,val,test}/labels/<name>.png      not black: target
<root>/rs_reason_seg/RSReasonSeg/{train,val,test}/QAs/<name>.json        {"questions": [...], "answer": [...]}
```

Layout and rules are those of github.com/earth-insights/SegEarth-R1, which joins the folders by order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segmentation import masks
from segmentation.data.files import get, located, read_json, size_of
from segmentation.data.refs import Sentences, worded
from segmentation.data.regions import picture_mask, target_of
from segmentation.data.samples import Samples
from segmentation.sample import Sample

SPLITS = ("train", "val", "test")
ENDINGS = {"images": (".jpg", ".jpeg", ".png"), "labels": (".png",), "QAs": (".json",)}


class EarthReason(Samples):
    """One split of EarthReason. Questions are read at once, images and labels when a sample is.

    What a label picture shows is one target; where it is all black there is none, whatever the answer says.

    Args:
        root: the folder with `rs_reason_seg/`.
        split: train, val or test.
        sentences: `first` is what SegEarth-R1 evaluates, `each` has every question.
        join: files of one `name` belong together; or, by `order`, the n-th of each folder, as SegEarth-R1 has it.

    Raises:
        ValueError: an unknown option, a malformed file, or folders that do not hold the same names.
        FileNotFoundError: a folder is not where the official layout has it.
    """

    costly = True

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        sentences: Sentences = "first",
        join: Literal["name", "order"] = "name",
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"data.split={split!r}; it is one of {', '.join(SPLITS)}.")
        if join not in ("name", "order"):
            raise ValueError(f"data.join={join!r}; it is 'name' or 'order'.")
        folder = Path(root, "rs_reason_seg/RSReasonSeg", split)
        images, labels, questions = (_files(root, folder / name) for name in ENDINGS)
        if len({len(images), len(labels), len(questions)}) > 1:
            counts = f"{len(images)} images, {len(labels)} labels and {len(questions)} QAs"
            raise ValueError(f"{folder}: has {counts}; there must be as many of each. Get the official files again.")
        self.split = split
        self._rows: list[tuple[Path, Path, str, str]] = []
        for image, label, file in zip(images, labels, questions, strict=True):
            if join == "name" and not image.stem == label.stem == file.stem:
                raise ValueError(
                    f"{folder}: {image.name}, {label.name} and {file.name} are not of one name; "
                    "data.join=order takes the files in order, as SegEarth-R1 does."
                )
            with located(str(file)):
                texts = [str(text) for text in get(read_json(file), "questions", list)]
                if not texts:
                    raise ValueError("questions is empty.")
                endings = worded(tuple(enumerate(texts)), sentences)
            self._rows += [(image, label, f"{image.stem}{ending}", text) for ending, text in endings]

    def __len__(self) -> int:
        return len(self._rows)

    def image_id(self, index: int) -> None:
        """None: the images are not COCO's."""

    def sample(self, index: int) -> Sample:
        """The sample of a row; its label picture is read now. Raises BrokenImage if it has no image."""
        image, label, name, text = self._rows[index]
        height, width = size_of(image)
        mask = picture_mask(label, height, width)
        return Sample(
            id=f"earthreason-{self.split}-{name}",
            image=image,
            height=height,
            width=width,
            expression=text,
            targets=(target_of(mask),) if masks.area(mask) else (),
            dataset="earthreason",
            split=self.split,
        )


def _files(root: str | Path, folder: Path) -> Sequence[Path]:
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in ENDINGS[folder.name])
    if not files:
        raise FileNotFoundError(
            f"{folder}: no {' or '.join(ENDINGS[folder.name])} files. data.root={root} needs SegEarth-R1's layout: "
            "rs_reason_seg/RSReasonSeg/{train,val,test}/{images,labels,QAs}."
        )
    return files

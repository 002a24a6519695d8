"""RefCOCO-M: RefCOCO's val with exact masks, from the parquet files of huggingface.co/datasets/moondream/refcoco-m.

```
<root>/refcoco-m/data/validation-*.parquet
```

A row is an image: `image` (the file's bytes), `image_id`, `file_name`, and `samples`, a list of objects with `id`,
`category`, `sentences`, `bbox` [x, y, w, h] and `mask` (COCO RLE). 1,190 images, 2,080 masks, 5,598 expressions.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image

from segmentation.data.files import get, located
from segmentation.data.refs import Sentences, worded
from segmentation.data.regions import box_of, mask_of, target_of
from segmentation.data.samples import Samples
from segmentation.sample import BrokenImage, Sample


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is: which file, which row group of it, which row of that."""

    file: Path
    group: int
    row: int


class RefCOCOM(Samples):
    """RefCOCO-M; its one split is `validation`. Images stay in the files until a sample is made.

    Args:
        root: the folder with `refcoco-m/`.
        sentences: `each` is the published protocol; or `first`, or `joined`.

    Raises:
        ValueError: a file is no parquet, or lacks a column or field.
        FileNotFoundError: there is no such file.
    """

    costly = True

    def __init__(self, root: str | Path, sentences: Sentences = "each") -> None:
        files = sorted(Path(root, "refcoco-m/data").glob("validation-*.parquet"))
        if not files:
            raise FileNotFoundError(
                f"{Path(root, 'refcoco-m/data/validation-*.parquet')}: no such file. data.root={root} needs the files "
                "of huggingface.co/datasets/moondream/refcoco-m in refcoco-m/."
            )
        self._rows: list[tuple[Place, int, dict[str, Any], str, str]] = []
        self._ids: set[int] = set()
        for file in files:
            try:
                self._read(file, sentences)
            except (pyarrow.ArrowException, OSError) as error:
                raise ValueError(f"{file}: not a whole parquet file ({error}). Get the official file again.") from error
        self._group: tuple[Path, int, list[Any]] | None = None
        self._picture: tuple[Place, Image.Image] | None = None

    def _read(self, file: Path, sentences: Sentences) -> None:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            for group in range(parquet.num_row_groups):
                rows = parquet.read_row_group(group, columns=["image_id", "samples"]).to_pylist()
                for number, row in enumerate(rows):
                    with located(f"{file}: row {number} of row group {group}"):
                        for said in get(row, "samples", list):
                            if get(said, "id", int) in self._ids:
                                raise ValueError(f"id {said['id']} is also that of another sample; each needs its own.")
                            self._ids.add(said["id"])
                            texts = worded(tuple(enumerate(get(said, "sentences", list))), sentences)
                            place, image = Place(file, group, number), get(row, "image_id", int)
                            self._rows += [(place, image, said, ending, text) for ending, text in texts]

    def __len__(self) -> int:
        return len(self._rows)

    def image_id(self, index: int) -> int:
        """COCO id of the image of a row."""
        return self._rows[index][1]

    def sample(self, index: int) -> Sample:
        """The sample of a row, its picture read. Raises BrokenImage or ValueError, which name the place in the file."""
        place, image_id, said, ending, text = self._rows[index]
        picture = self._open(place)
        with located(f"{place.file}: sample {said['id']} of image {image_id}"):
            mask = mask_of(said["mask"], picture.height, picture.width)
            box = box_of(said["bbox"], picture.height, picture.width)
            target = target_of(mask, box, said.get("category"))
        return Sample(
            id=f"refcoco_m-validation-{said['id']}{ending}",
            image=picture,
            height=picture.height,
            width=picture.width,
            expression=text,
            targets=(target,),
            image_id=image_id,
            dataset="refcoco_m",
            split="validation",
        )

    def _open(self, place: Place) -> Image.Image:
        if not (self._group and self._group[:2] == (place.file, place.group)):  # a group is read once, in order
            with pyarrow.parquet.ParquetFile(place.file) as parquet:
                images = parquet.read_row_group(place.group, columns=["image"]).column("image").to_pylist()
            self._group = place.file, place.group, images
        if not (self._picture and self._picture[0] == place):
            try:
                with Image.open(io.BytesIO(self._group[2][place.row]["bytes"])) as opened:
                    self._picture = place, opened.convert("RGB")
            except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
                where = f"{place.file}: image of row {place.row} of row group {place.group}"
                raise BrokenImage(f"{where}: cannot be read: {error}. Download the file again.") from error
        return self._picture[1]

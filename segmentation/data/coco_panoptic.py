"""COCO panoptic as category prompts: one sample for each image and category, of things and of stuff, in it.

```
<root>/annotations/panoptic_<split>.json
<root>/annotations/panoptic_<split>/*.png       a segment's id is R + 256 G + 65536 B, 0 where nothing is labelled
<root>/<split>/*.jpg
```
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from segmentation import masks
from segmentation.data.categories import Names, missing, named
from segmentation.data.files import by_id, collector_at_rest, get, inside, located, read_json, require
from segmentation.data.instances import Crowd, Picture, picture_of
from segmentation.data.regions import target_of
from segmentation.data.samples import Samples
from segmentation.sample import Sample, Target


@dataclass(frozen=True, slots=True)
class Prompt:
    """A category that an image is asked about, and its segments: ids of those meant, and of crowds."""

    image: int
    category: int
    segments: tuple[int, ...]
    crowds: tuple[int, ...]


class CocoPanoptic(Samples):
    """One split of COCO panoptic. A thing's segments are a target each, stuff is one. Pictures are read later.

    Args:
        root: the folder with `annotations/` and `<split>/`.
        split: train2017 or val2017.
        crowd: what segments of crowds are: `ignore` pixels that do not count, as in panoptic quality, `skip` nothing,
            or `target`. An image with only a crowd of a category is not asked about it, unless `target`.
        void: what unlabelled pixels are: `ignore`, as in panoptic quality, or `background`.
        absent: how many categories each image is asked about that it has nothing of (no target).
        names: `plain` (`wall`), or `official` (`wall-other-merged`).
        seed: for the drawing of absent categories.

    Raises:
        ValueError: an unknown option, or a malformed file.
        FileNotFoundError: the file is not there.
    """

    costly = True

    def __init__(
        self,
        root: str | Path,
        split: str = "train2017",
        crowd: Crowd = "ignore",
        void: Literal["background", "ignore"] = "background",
        absent: int = 0,
        names: Names = "plain",
        seed: int = 0,
    ) -> None:
        for name, value, valid in (
            ("crowd", crowd, ("skip", "ignore", "target")),
            ("void", void, ("background", "ignore")),
        ):
            if value not in valid:
                raise ValueError(f"data.{name}={value!r}; it is one of {', '.join(valid)}.")
        self.split, self.crowd, self.void = split, crowd, void
        self.path = Path(root, "annotations", f"panoptic_{split}.json")
        layout = "COCO's layout: annotations/panoptic_<split>.json, annotations/panoptic_<split>/*.png, <split>/*.jpg"
        require(root, [self.path], layout)
        with collector_at_rest(), located(str(self.path)):
            content = read_json(self.path)
            images = by_id(content["images"], "images")
            self._names = named({entry["id"]: entry["name"] for entry in content["categories"]}, names)
            self._things = {entry["id"]: bool(entry["isthing"]) for entry in content["categories"]}
            self._pictures: dict[int, tuple[Picture, Path]] = {}
            self._rows: list[Prompt] = []
            for entry in content["annotations"]:
                image = get(entry, "image_id", int)
                if image not in images:
                    raise ValueError(f"images has no entry {image}, the image of an annotation.")
                labels = inside(self.path.with_suffix(""), get(entry, "file_name", str))
                self._pictures[image] = picture_of(images[image], Path(root, split)), labels
                self._rows += self._prompts(image, entry["segments_info"], absent, seed)
            del content, images
        self._last: tuple[int, np.ndarray] | None = None

    def _prompts(self, image: int, segments: list[dict[str, Any]], absent: int, seed: int) -> list[Prompt]:
        found: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for segment in segments:
            if segment["category_id"] not in self._names:
                raise ValueError(f"category_id {segment['category_id']} of image {image} is not in categories.")
            crowd = bool(segment.get("iscrowd", 0)) and self.crowd != "target"
            found[segment["category_id"]][crowd].append(get(segment, "id", int))
        prompts = [
            Prompt(image, category, tuple(alone), tuple(crowds) if self.crowd == "ignore" else ())
            for category, (alone, crowds) in sorted(found.items())
            if alone
        ]
        return prompts + [
            Prompt(image, category, (), ()) for category in missing(found, list(self._names), absent, image, seed)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def image_id(self, index: int) -> int:
        """COCO id of the image of a row."""
        return self._rows[index].image

    def sample(self, index: int) -> Sample:
        """The sample of a row; its label picture is read now, its picture later. Raises ValueError, naming the file."""
        row = self._rows[index]
        picture, path = self._pictures[row.image]
        if not (self._last and self._last[0] == row.image):  # an image's categories follow each other: read once
            self._last = row.image, segment_ids(path, picture.height, picture.width)
        ids = self._last[1]
        out = np.isin(ids, row.crowds)
        if self.void == "ignore":
            out |= ids == 0
        return Sample(
            id=f"coco_panoptic-{self.split}-{row.image}-{row.category}",
            image=picture.path,
            height=picture.height,
            width=picture.width,
            expression=self._names[row.category],
            targets=tuple(self._target(row, segments, ids, path) for segments in self._objects(row)),
            ignore=masks.encode(out) if out.any() else None,
            image_id=row.image,
            dataset="coco_panoptic",
            split=self.split,
        )

    def _objects(self, row: Prompt) -> list[tuple[int, ...]]:
        """The segments of each target."""
        if self._things[row.category]:
            return [(segment,) for segment in row.segments]
        return [row.segments] if row.segments else []

    def _target(self, row: Prompt, segments: tuple[int, ...], ids: np.ndarray, path: Path) -> Target:
        with located(f"{path}: segments {list(segments)} of {self.path.name}"):
            return target_of(masks.encode(np.isin(ids, segments)), label=self._names[row.category])


def segment_ids(path: Path, height: int, width: int) -> np.ndarray:
    """The segment of every pixel, `int32 (H, W)`. Raises ValueError if the file cannot be read or has another size."""
    try:
        with Image.open(path) as opened:
            colours = np.asarray(opened.convert("RGB"), dtype=np.int32)  # (H, W, 3)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read: {error}. Download it again.") from error
    if colours.shape[:2] != (height, width):
        raise ValueError(f"{path}: is {list(colours.shape[:2])} high and wide, its image {[height, width]}.")
    return colours @ np.array([1, 256, 65536], dtype=np.int32)

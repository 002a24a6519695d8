"""`Instances`: the images and annotations of a COCO-style `instances.json`, as far as some refs need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segmentation import masks
from segmentation.data.files import by_id, collector_at_rest, get, inside, located, read_json
from segmentation.data.refs import Ref
from segmentation.data.regions import box_of, mask_of, target_of
from segmentation.sample import Target

Crowd = Literal["skip", "ignore", "target"]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image entry of `instances.json`; sides in pixels."""

    path: Path
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class InstancesFile:
    """Everything in an `instances.json`: image and annotation entries by id, names of categories by id."""

    path: Path
    images: dict[Any, dict[str, Any]]
    annotations: dict[Any, dict[str, Any]]
    categories: dict[int, str]


def read_instances(path: Path) -> InstancesFile:
    """The file, all of it. Raises ValueError if it is damaged, lacks a list, or has an id twice."""
    content = read_json(path)
    with located(str(path)):
        return InstancesFile(
            path,
            by_id(content["images"], "images"),
            by_id(content["annotations"], "annotations"),
            {entry["id"]: entry["name"] for entry in content["categories"]},
        )


class Instances:
    """The images and annotations of an `instances.json` that some refs need. Masks stay as written until asked for.

    Args:
        source: the file, or what was read of it.
        folder: where its images lie; no `file_name` may lead out of it.
        refs: only what they name is kept, and all of it must be there.
        crowd: what an annotation of a crowd (`iscrowd`) is: `skip` nothing, as in ReLA, `ignore` pixels that do not
            count, as in COCO's evaluation, or `target` an object like others, as in the refer API.
        boxes: `annotated`, or drawn around the `mask` where a file's `bbox` cannot be relied on.

    Raises:
        ValueError: what a ref names is missing, or an entry lacks a field. The message names file, entry and field.
    """

    def __init__(
        self,
        source: Path | InstancesFile,
        folder: Path,
        refs: Sequence[Ref],
        crowd: Crowd = "target",
        boxes: Literal["annotated", "mask"] = "annotated",
    ) -> None:
        if crowd not in ("skip", "ignore", "target"):
            raise ValueError(f"data.crowd={crowd!r}; it is 'skip', 'ignore' or 'target'.")
        self.crowd, self.boxes = crowd, boxes
        with collector_at_rest():
            file = read_instances(source) if isinstance(source, Path) else source
            self.path = file.path
            self._categories = file.categories
            self._pictures = {ref.image: self._picture(file, ref, folder) for ref in refs}
            self._annotations = {
                number: self._annotation(file, ref, number) for ref in refs for number in ref.annotations
            }
            del file, source  # what is not kept goes before the collector counts it

    def picture(self, ref: Ref) -> Picture:
        """Path and size of a ref's image."""
        return self._pictures[ref.image]

    def targets(self, ref: Ref) -> tuple[Target, ...]:
        """A ref's objects: `bbox` [x, y, w, h] as a box, `segmentation` as a mask, the category's name as label.

        Raises:
            ValueError: a mask is empty, malformed, or not of its image's size. The message names file and annotation.
        """
        alone = [number for number in ref.annotations if self.crowd == "target" or not self._is_crowd(number)]
        if ref.annotations and not alone:
            raise ValueError(
                f"{self.path}: all objects of ref {ref.id} have iscrowd=1, and data.crowd={self.crowd} leaves none; "
                f"set data.crowd=target, or leave the ref out."
            )
        return tuple(self._target(ref, number) for number in alone)

    def ignored(self, ref: Ref) -> masks.RLE | None:
        """The crowds among a ref's objects, None if there are none or they are not to be ignored."""
        crowds = [number for number in ref.annotations if self._is_crowd(number)] if self.crowd == "ignore" else []
        if not crowds:
            return None
        picture = self.picture(ref)
        return masks.union([self._mask(ref, number) for number in crowds], picture.height, picture.width)

    def _is_crowd(self, number: int | str) -> bool:
        return bool(self._annotations[number].get("iscrowd", 0))

    def _mask(self, ref: Ref, number: int | str) -> masks.RLE:
        picture = self.picture(ref)
        with located(f"{self.path}: annotation {number} of ref {ref.id}"):
            return mask_of(self._annotations[number]["segmentation"], picture.height, picture.width)

    def _target(self, ref: Ref, number: int | str) -> Target:
        entry, picture, mask = self._annotations[number], self.picture(ref), self._mask(ref, number)
        with located(f"{self.path}: annotation {number} of ref {ref.id}"):
            box = box_of(entry["bbox"], picture.height, picture.width) if self.boxes == "annotated" else None
            return target_of(mask, box, self._categories.get(entry.get("category_id", -1)))

    def _picture(self, file: InstancesFile, ref: Ref, folder: Path) -> Picture:
        if ref.image not in file.images:
            raise ValueError(f"{self.path}: images has no entry {ref.image}, the image of ref {ref.id}.")
        entry = file.images[ref.image]
        with located(f"{self.path}: image {ref.image}"):
            return picture_of(entry, folder)

    def _annotation(self, file: InstancesFile, ref: Ref, number: int | str) -> dict[str, Any]:
        if number not in file.annotations:
            raise ValueError(f"{self.path}: annotations has no entry {number}, an object of ref {ref.id}.")
        entry = file.annotations[number]
        if entry.get("image_id") != ref.image:
            raise ValueError(
                f"{self.path}: annotation {number} is of image {entry.get('image_id')}, its ref {ref.id} of "
                f"image {ref.image}; refs and instances.json are not of the same release."
            )
        return entry


def picture_of(entry: dict[str, Any], folder: Path) -> Picture:
    """Path and size of an image entry. Raises KeyError, TypeError or ValueError, for `located` to explain."""
    height, width = get(entry, "height", int), get(entry, "width", int)
    if height < 1 or width < 1:
        raise ValueError(f"height {height} and width {width} are no size of an image.")
    return Picture(inside(folder, get(entry, "file_name", str)), height, width)

"""RefCOCO, RefCOCO+, RefCOCOg and RefCLEF from their official files.

```
<root>/<name>/refs(<split_by>).p                refs: an object's annotation, its split, the sentences said of it
<root>/<name>/instances.json                    COCO-style images, annotations (polygons or RLE) and categories
<root>/images/mscoco/images/train2014/*.jpg     (RefCLEF: <root>/images/saiapr_tc-12/*.jpg)
```

Files, fields and what a split name matches are those of github.com/lichengunc/refer. `Ref`, `Instances` and
`Expressions` serve every dataset of this layout; one that keeps its refs in another file only reads those itself.
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segmentation import masks
from segmentation.boxes import Box
from segmentation.data import safe_pickle
from segmentation.data.samples import Samples
from segmentation.sample import Sample, Target

COCO_IMAGES = "images/mscoco/images/train2014"
DATASETS: dict[str, tuple[str, tuple[str, ...]]] = {  # folder of the images; who split it, the usual split first
    "refcoco": (COCO_IMAGES, ("unc", "google")),
    "refcoco+": (COCO_IMAGES, ("unc",)),
    "refcocog": (COCO_IMAGES, ("umd", "google")),
    "refclef": ("images/saiapr_tc-12", ("unc", "berkeley")),
}

Sentences = Literal["each", "joined"]


@dataclass(frozen=True, slots=True)
class Ref:
    """What is referred to, none or several annotations of one image, and each sentence said of it with its id."""

    id: int
    split: str
    image: int
    annotations: tuple[int | str, ...]
    sentences: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image entry of `instances.json`; sides in pixels."""

    path: Path
    height: int
    width: int


class Instances:
    """The images and annotations of an `instances.json` that some refs need. Masks stay as written until asked for.

    Args:
        path: the file.
        folder: where its images lie; no `file_name` may lead out of it.
        refs: only what they name is kept, and all of it must be there.

    Raises:
        ValueError: what a ref names is missing, or an entry lacks a field. The message names file, entry and field.
    """

    def __init__(self, path: Path, folder: Path, refs: Sequence[Ref]) -> None:
        self.path = path
        with _collector_at_rest():
            content = _read_json(path)
            with _located(str(path)):
                pictures = {entry["id"]: entry for entry in content["images"]}
                annotations = {entry["id"]: entry for entry in content["annotations"]}
                self._categories = {entry["id"]: entry["name"] for entry in content["categories"]}
            self._pictures = {ref.image: self._picture(pictures, ref, folder) for ref in refs}
            self._annotations = {
                number: self._annotation(annotations, ref, number) for ref in refs for number in ref.annotations
            }
            del content, pictures, annotations  # what is not kept goes before the collector counts it

    def picture(self, ref: Ref) -> Picture:
        """Path and size of a ref's image."""
        return self._pictures[ref.image]

    def targets(self, ref: Ref) -> tuple[Target, ...]:
        """A ref's objects: `bbox` [x, y, w, h] as a box, `segmentation` as a mask, the category's name as label.

        Raises:
            ValueError: a mask is empty, malformed, or not of its image's size. The message names file and annotation.
        """
        return tuple(self._target(ref, annotation_id) for annotation_id in ref.annotations)

    def _target(self, ref: Ref, annotation_id: int | str) -> Target:
        entry, picture = self._annotations[annotation_id], self.picture(ref)
        with _located(f"{self.path}: annotation {annotation_id} of ref {ref.id}"):
            mask = mask_of(entry["segmentation"], picture.height, picture.width)
            if not masks.area(mask):
                raise ValueError("segmentation encloses no pixel of its image; data.skip_refs can leave the ref out.")
            return Target(_box(entry["bbox"]), mask, self._categories.get(entry.get("category_id")))

    def _picture(self, entries: dict[int, Any], ref: Ref, folder: Path) -> Picture:
        if ref.image not in entries:
            raise ValueError(f"{self.path}: images has no entry {ref.image}, the image of ref {ref.id}.")
        entry = entries[ref.image]
        with _located(f"{self.path}: image {ref.image}"):
            return Picture(inside(folder, entry["file_name"]), int(entry["height"]), int(entry["width"]))

    def _annotation(self, entries: dict[int | str, Any], ref: Ref, annotation_id: int | str) -> dict[str, Any]:
        if annotation_id not in entries:
            raise ValueError(f"{self.path}: annotations has no entry {annotation_id}, an object of ref {ref.id}.")
        entry = entries[annotation_id]
        if entry.get("image_id") != ref.image:
            raise ValueError(
                f"{self.path}: annotation {annotation_id} is of image {entry.get('image_id')}, its ref {ref.id} of "
                f"image {ref.image}; refs and instances.json are not of the same release."
            )
        return entry


class Expressions(Samples):
    """Samples of some refs: one a sentence, or one a ref with its sentences joined by "; ".

    Ids are `<prefix>-<the ref's own split>-<ref id>-<sentence id>` (joined: without the last), the same whichever split
    was asked for.
    """

    def __init__(
        self, dataset: str, prefix: str, refs: Sequence[Ref], instances: Instances, sentences: Sentences
    ) -> None:
        if sentences not in ("each", "joined"):
            raise ValueError(f"data.sentences={sentences!r}; it is 'each' or 'joined'.")
        self.dataset, self.prefix, self.instances = dataset, prefix, instances
        if sentences == "each":
            self._rows = [(ref, f"{ref.id}-{number}", text) for ref in refs for number, text in ref.sentences]
        else:
            self._rows = [(ref, f"{ref.id}", "; ".join(text for _, text in ref.sentences)) for ref in refs]

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, index: int) -> Sample:
        """The sample of a row; its masks are read now, its picture later."""
        ref, number, text = self._rows[index]
        picture = self.instances.picture(ref)
        return Sample(
            id=f"{self.prefix}-{ref.split}-{number}",
            image=picture.path,
            height=picture.height,
            width=picture.width,
            expression=text,
            targets=self.instances.targets(ref),
            image_id=ref.image,
            dataset=self.dataset,
            split=ref.split,
        )


class Refer(Expressions):
    """One split of RefCOCO, RefCOCO+, RefCOCOg or RefCLEF. Images and masks are read when a sample is.

    Args:
        root: the folder with `<name>/` and `images/`.
        name: refcoco, refcoco+, refcocog or refclef.
        split_by: whose splits: unc or google (refcoco), unc (refcoco+), umd or google (refcocog), unc or berkeley
            (refclef); None for the first of these.
        split: train, val, test, testA, testB, ...; `test` takes every test split there is, and `testA` also a RefCLEF
            ref that lies in testAB.
        sentences: one sample for each sentence, as papers report, or one a ref with its sentences joined.
        skip_refs: ids of refs to leave out, should the files hold some that cannot be used.

    Raises:
        ValueError: unknown name or split, an empty split, or files that do not agree with each other.
        FileNotFoundError: a file is not where the official layout has it.
        UnsafePickle: the refs file is more than plain data, or damaged.
    """

    def __init__(
        self,
        root: str | Path,
        name: str = "refcoco",
        split_by: str | None = None,
        split: str = "val",
        sentences: Sentences = "each",
        skip_refs: Sequence[int] = (),
    ) -> None:
        if name not in DATASETS:
            raise ValueError(f"data.name={name!r} is not a refer dataset; they are {', '.join(DATASETS)}.")
        images, splitters = DATASETS[name]
        split_by = split_by or splitters[0]
        if split_by not in splitters:
            raise ValueError(f"data.split_by={split_by!r}: {name} is split by {' or '.join(splitters)}.")
        refs_file = Path(root, name, f"refs({split_by}).p")
        instances_file = Path(root, name, "instances.json")
        for file in (refs_file, instances_file):
            if not file.is_file():
                raise FileNotFoundError(
                    f"{file}: no such file. data.root={root} needs the layout of github.com/lichengunc/refer: "
                    f"{name}/{refs_file.name}, {name}/instances.json and {images}/*.jpg."
                )
        skipped = set(skip_refs)
        refs = [ref for ref in in_split(_read_refs(refs_file), split, refs_file) if ref.id not in skipped]
        instances = Instances(instances_file, Path(root, images), refs)
        super().__init__(name, f"{name}-{split_by}", refs, instances, sentences)


def in_split(refs: Sequence[Ref], split: str, file: Path) -> list[Ref]:
    """The refs of a split, as the refer API has it: `test` is every test split, `testA` also testAB.

    Raises:
        ValueError: there are none; the message lists the splits there are.
    """

    def wanted(own: str) -> bool:
        if split == "test" or (split.startswith("test") and len(split) == 5):
            return own.startswith("test") and split[4:] in own[4:]
        return own == split

    found = [ref for ref in refs if wanted(ref.split)]
    if not found:
        there = ", ".join(f"{own} ({count} refs)" for own, count in Counter(ref.split for ref in refs).items())
        raise ValueError(f"data.split={split!r}: {file} has no ref of it; it has {there or 'no refs at all'}.")
    return found


def ref_of(entry: dict[str, Any]) -> Ref:
    """A ref of a `refs(...).p` entry. Of a sentence's texts it takes `sent`, the cleaned one, as LISA and others do."""
    annotations = _get(entry, "ann_id", int, str, list)
    return Ref(
        id=_get(entry, "ref_id", int),
        split=_get(entry, "split", str),
        image=_get(entry, "image_id", int),
        annotations=tuple(annotations) if isinstance(annotations, list) else (annotations,),
        sentences=tuple((_get(said, "sent_id", int), _get(said, "sent", str)) for said in entry["sentences"]),
    )


def mask_of(segmentation: Any, height: int, width: int) -> masks.RLE:
    """Mask of a COCO `segmentation`: polygons, an RLE compressed or not, or a list of such RLEs.

    Raises:
        ValueError: it is none of these, encloses nothing, or is an RLE of another size than its image.
    """
    parts = segmentation if isinstance(segmentation, list) else [segmentation]
    if parts and all(isinstance(part, dict) for part in parts):
        return masks.union([masks.from_uncompressed(part, height, width) for part in parts], height, width)
    if parts and all(isinstance(part, list) for part in parts):
        return masks.from_polygons(parts, height, width)
    kinds = sorted({type(part).__name__ for part in parts})
    raise ValueError(f"segmentation is neither polygons nor RLE but a list of {' and '.join(kinds) or 'nothing'}.")


def inside(folder: Path, name: str) -> Path:
    """`folder / name` for a name out of a file.

    Raises:
        ValueError: the name leads out of the folder. (A link inside it may: links are the user's own.)
    """
    path = Path(name)
    if not path.parts or path.anchor or ".." in path.parts or "\0" in name:
        raise ValueError(f"file_name {name!r} leads out of {folder}; it must be a plain relative path.")
    return folder / path


def _read_refs(path: Path) -> list[Ref]:
    entries = safe_pickle.load(path)
    if not isinstance(entries, list):
        raise ValueError(f"{path}: holds a {type(entries).__name__}; a list of refs was expected.")
    refs = []
    for number, entry in enumerate(entries):
        with _located(f"{path}: ref number {number}"):
            refs.append(ref_of(entry))
    return refs


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not complete JSON ({error}). Get the official file again.") from error


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No cyclic collection inside: it would walk millions of new lists again and again, a third of the JSON's time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _box(bbox: Sequence[float]) -> Box:
    x, y, width, height = map(float, bbox)
    if not (width > 0 and height > 0):
        raise ValueError(f"bbox {bbox} has no area.")
    return x, y, x + width, y + height


def _get(entry: dict[str, Any], key: str, *kinds: type) -> Any:
    value = entry[key]
    if not isinstance(value, kinds):
        raise TypeError(f"{key} is a {type(value).__name__}")
    return value


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Says where in which file a malformed entry is."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{where}: has no field {error}.") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error

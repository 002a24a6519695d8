"""RefCOCO, RefCOCO+, RefCOCOg, RefCLEF and RRSIS-D from their official files.

```
<root>/<name>/refs(<split_by>).p                refs: an object's annotation, its split, the sentences said of it
<root>/<name>/instances.json                    COCO-style images, annotations (polygons or RLE) and categories
<root>/images/mscoco/images/train2014/*.jpg     (RefCLEF: images/saiapr_tc-12, RRSIS-D: images/rrsisd/JPEGImages)
```

Files, fields and what a split name matches are those of github.com/lichengunc/refer, which RMSIN (RRSIS-D) follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmentation.data import safe_pickle
from segmentation.data.expressions import Expressions
from segmentation.data.files import get, located, require
from segmentation.data.instances import Instances
from segmentation.data.refs import Ref, Sentences, held_out, usable

COCO_IMAGES = "images/mscoco/images/train2014"


@dataclass(frozen=True, slots=True)
class Layout:
    """Folder of the images, who split the dataset (the usual split first), and whether the images are COCO's.

    RRSIS-D's boxes are drawn around the masks: its release does not say what its `bbox` holds, and RMSIN reads none.
    Some of its pictures are not of the annotated 800x800 (09976.jpg, 15324.jpg; RMSIN#12), and are brought to it, which
    is what RMSIN does.
    """

    images: str
    splitters: tuple[str, ...]
    of_coco: bool = True
    boxes_of_masks: bool = False
    resized: bool = False


DATASETS = {
    "refcoco": Layout(COCO_IMAGES, ("unc", "google")),
    "refcoco+": Layout(COCO_IMAGES, ("unc",)),
    "refcocog": Layout(COCO_IMAGES, ("umd", "google")),
    "refclef": Layout("images/saiapr_tc-12", ("unc", "berkeley"), of_coco=False),
    "rrsisd": Layout("images/rrsisd/JPEGImages", ("unc",), of_coco=False, boxes_of_masks=True, resized=True),
}


class Refer(Expressions):
    """One split of RefCOCO, RefCOCO+, RefCOCOg, RefCLEF or RRSIS-D. Images and masks are read when a sample is.

    Args:
        root: the folder with `<name>/` and `images/`.
        name: refcoco, refcoco+, refcocog, refclef or rrsisd.
        split_by: whose splits: unc or google (refcoco), unc (refcoco+, rrsisd), umd or google (refcocog), unc or
            berkeley (refclef); None for the first of these.
        split: train, val, test, testA, testB, ...; `test` takes every test split there is, and `testA` also a RefCLEF
            ref that lies in testAB.
        sentences: `each` is one sample a sentence, as papers report (RMSIN too); `first` is SegEarth-R1's RRSIS-D;
            `joined` is one sample a ref.
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
        layout = DATASETS[name]
        split_by = split_by or layout.splitters[0]
        if split_by not in layout.splitters:
            raise ValueError(f"data.split_by={split_by!r}: {name} is split by {' or '.join(layout.splitters)}.")
        refs_file, instances_file = Path(root, name, f"refs({split_by}).p"), Path(root, name, "instances.json")
        shown = f"{name}/{refs_file.name}, {name}/instances.json and {layout.images}/*.jpg"
        require(root, [refs_file, instances_file], f"the layout of github.com/lichengunc/refer: {shown}")
        entries = safe_pickle.load(refs_file)
        everyone = read_refs(entries, refs_file)
        refs = usable(in_split(everyone, split, refs_file), skip_refs, refs_file)
        boxes = "mask" if layout.boxes_of_masks else "annotated"
        instances = Instances(instances_file, Path(root, layout.images), refs, boxes=boxes)
        held = held_out(everyone)
        super().__init__(
            name, f"{name}-{split_by}", refs, instances, sentences, layout.of_coco, held, resized=layout.resized
        )


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


def read_refs(entries: Any, file: Path) -> list[Ref]:
    """The refs of a list of entries. Raises ValueError, which names file, entry and field."""
    if not isinstance(entries, list):
        raise ValueError(f"{file}: holds a {type(entries).__name__}; a list of refs was expected.")
    refs = []
    for number, entry in enumerate(entries):
        with located(f"{file}: ref number {number}"):
            refs.append(ref_of(entry))
    return refs


def ref_of(entry: dict[str, Any]) -> Ref:
    """A ref of a `refs(...).p` entry. Of a sentence's texts it takes `sent`, the cleaned one, as LISA and others do."""
    annotations = get(entry, "ann_id", int, str, list)
    return Ref(
        id=get(entry, "ref_id", int),
        split=get(entry, "split", str),
        image=get(entry, "image_id", int),
        annotations=tuple(annotations) if isinstance(annotations, list) else (annotations,),
        sentences=tuple((get(said, "sent_id", int), get(said, "sent", str)) for said in entry["sentences"]),
    )

"""COCO instances as category prompts: one sample for each image and category in it.

```
<root>/annotations/instances_<split>.json
<root>/<split>/*.jpg
```
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from segmentation import masks
from segmentation.data.categories import Names, missing, named
from segmentation.data.expressions import Expressions
from segmentation.data.files import collector_at_rest, located, require
from segmentation.data.instances import Crowd, Instances, InstancesFile, read_instances
from segmentation.data.refs import Ref

log = logging.getLogger(__name__)

SMALL = 16  # pixels of area, from which on an outline encloses some


class CocoInstances(Expressions):
    """One split of COCO's instances; every instance of the category is a target. Images and masks are read later.

    Annotations that show nothing are left out and named: two boxes of instances_train2017.json have no area
    (cocoapi#355), and polygons of a pixel or less enclose none, which COCO's loaders leave out, too.

    Args:
        root: the folder with `annotations/` and `<split>/`.
        split: train2017, val2017, train2014 or val2014.
        crowd: what annotations of crowds are: `ignore` pixels that do not count, as in COCO's evaluation, `skip`
            nothing, or `target`. An image with only a crowd of a category is not asked about it, unless `target`.
        absent: how many categories each image is asked about that it has nothing of (no target).
        names: `official`, or `plain` as said (the same, for things).
        seed: for the drawing of absent categories.

    Raises:
        ValueError: a malformed file.
        FileNotFoundError: the file is not there.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train2017",
        crowd: Crowd = "ignore",
        absent: int = 0,
        names: Names = "official",
        seed: int = 0,
    ) -> None:
        path = Path(root, "annotations", f"instances_{split}.json")
        require(root, [path], "COCO's layout: annotations/instances_<split>.json and <split>/*.jpg")
        with collector_at_rest():
            file = read_instances(path)
            refs = _refs(file, split, crowd, absent, named(file.categories, names), seed)
            instances = Instances(file, Path(root, split), refs, crowd)
            del file
        super().__init__("coco_instances", "coco_instances", refs, instances, "each")


def _refs(file: InstancesFile, split: str, crowd: Crowd, absent: int, names: dict[int, str], seed: int) -> list[Ref]:
    """A ref for each image and category: the image's id, and the category as the id of its one sentence."""
    found: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    empty = []
    for number, entry in file.annotations.items():
        with located(f"{file.path}: annotation {number}"):
            if entry["category_id"] not in names:
                raise ValueError(f"category_id {entry['category_id']} is not in categories.")
            if min(entry["bbox"][2:]) <= 0 or _shows_nothing(entry, file.images.get(entry["image_id"])):
                empty.append(number)
                continue
            found[entry["image_id"]][entry["category_id"]].append(number)
    if empty:
        log.warning("%s: left out, they enclose no pixel: annotations %s", file.path, ", ".join(map(str, empty)))
    refs = []
    for image in file.images:
        present = found.get(image, {})
        for category, numbers in sorted(present.items()):
            if crowd == "target" or not all(file.annotations[number].get("iscrowd", 0) for number in numbers):
                refs.append(Ref(image, split, image, tuple(numbers), ((category, names[category]),)))
        for category in missing(present, list(names), absent, image, seed):
            refs.append(Ref(image, split, image, (), ((category, names[category]),)))
    return refs


def _shows_nothing(entry: dict[str, Any], image: dict[str, Any] | None) -> bool:
    """Whether polygons are so small, or so few points, that no pixel is theirs; only small ones are drawn to see."""
    parts = entry["segmentation"]
    if not isinstance(parts, list) or not all(isinstance(part, list) for part in parts) or image is None:
        return False
    if all(len(part) < 6 for part in parts):
        return True
    small = min(entry.get("area", SMALL), math.prod(entry["bbox"][2:])) < SMALL
    return small and not masks.area(masks.from_polygons(parts, image["height"], image["width"]))

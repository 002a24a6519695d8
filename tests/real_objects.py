"""Real objects as Samples, for tests and benchmarks of formats: no image is opened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from segmentation import masks
from segmentation.sample import Sample, Target

SETS = {
    "refer_mini": "refer_mini/refcoco/instances.json",
    "coco128": "coco128/annotations/instances_train2017.json",
}
BLANK = Image.new("RGB", (1, 1))


def real_objects(annotations: Path) -> Iterator[Sample]:
    """A sample for each polygon annotation with a pixel, in COCO's layout."""
    targets, sizes = real_targets(annotations)
    for number, (image, target) in targets.items():
        yield Sample(str(number), BLANK, *sizes[image], target.label or "it", (target,))


def real_expressions(folder: Path) -> Iterator[Sample]:
    """A sample for each entry of gRefCOCO's layout: no target, one, or several."""
    targets, sizes = real_targets(folder / "instances.json")
    for entry in json.loads((folder / "grefs(unc).json").read_text()):
        meant = tuple(targets[number][1] for number in entry["ann_id"] if number in targets)
        said = entry["sentences"][0]["sent"]
        yield Sample(str(entry["ref_id"]), BLANK, *sizes[entry["image_id"]], said, meant)


def real_targets(annotations: Path) -> tuple[dict[int, tuple[int, Target]], dict[int, tuple[int, int]]]:
    """Image and target of each annotation; (height, width) of each image."""
    content = json.loads(annotations.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    names = {category["id"]: category["name"] for category in content.get("categories", ())}
    targets = {}
    for annotation in content["annotations"]:
        height, width = sizes[annotation["image_id"]]
        if annotation["iscrowd"]:
            continue
        rle = masks.from_polygons(annotation["segmentation"], height, width)
        box = masks.box(rle)
        if box:
            target = Target(box, rle, names.get(annotation["category_id"]))
            targets[annotation["id"]] = annotation["image_id"], target
    return targets, sizes

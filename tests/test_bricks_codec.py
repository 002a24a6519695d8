"""Bricks on real masks: what is lost, at how many of the real tokenizer's tokens."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from segmentation import masks
from segmentation.formats import BrickFormat
from segmentation.sample import Found, Sample, Target

COLUMNS = BrickFormat(scope="box", code="columns")


def real_masks(annotations: Path) -> list[masks.RLE]:
    content = json.loads(annotations.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    return [
        masks.from_polygons(annotation["segmentation"], *sizes[annotation["image_id"]])
        for annotation in content["annotations"]
        if not annotation["iscrowd"]
    ]


def around(rle: masks.RLE) -> Sample:
    height, width = rle["size"]
    box = masks.box(rle)
    assert box is not None
    return Sample("s", Image.new("RGB", (1, 1)), height, width, "it", (Target(box, rle),))


def read(form: BrickFormat, text: str, rle: masks.RLE) -> masks.RLE:
    prediction = form.parse(text, *rle["size"])
    assert isinstance(prediction, Found), prediction
    (instance,) = prediction.instances
    assert instance.mask is not None
    return instance.mask


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("form", "least", "most"),
    [
        (BrickFormat(), 0.965, 165),  # the paper reports 150 on average
        (BrickFormat(scope="box"), 0.960, 85),
        (COLUMNS, 0.970, 36),
        (BrickFormat(scope="box", code="columns", columns=24), 0.975, 55),
    ],
)
def test_real_refcoco_masks(real_data, form, least, most):
    tokenizer = AutoTokenizer.from_pretrained(real_data / "tokenizers" / "qwen2_5")
    tokenizer.add_tokens(list(form.new_tokens))
    ious, lengths = [], []
    rles = real_masks(real_data / "refer_mini" / "refcoco" / "instances.json")
    assert len(rles) == 67
    for rle in rles:
        text = form.encode(around(rle))
        ious.append(float(masks.iou_matrix([read(form, text, rle)], [rle])[0, 0]))
        lengths.append(len(tokenizer(text.split("<seg>")[1].split("</seg>")[0])["input_ids"]))
    assert np.mean(ious) >= least
    assert np.mean(lengths) <= most


@pytest.mark.realdata
@pytest.mark.parametrize("form", [BrickFormat(scope="box"), COLUMNS])
def test_no_real_object_vanishes(real_data, form):
    rles = real_masks(real_data / "coco128" / "annotations" / "instances_train2017.json")
    for rle in (rle for rle in rles if masks.area(rle)):
        assert masks.area(read(form, form.encode(around(rle)), rle)) > 0

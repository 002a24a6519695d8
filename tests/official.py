"""Small files in the layouts in which datasets are published, for the tests that read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segmentation import masks

HEIGHT, WIDTH = 48, 64
LEFT = (4.0, 8.0, 24.0, 40.0)
RIGHT = (34.0, 10.0, 60.0, 30.0)
MIDDLE = (28.0, 20.0, 32.0, 44.0)


def bbox(box: tuple[float, ...]) -> list[float]:
    """A box as COCO writes it."""
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def polygon(box: tuple[float, ...]) -> list[float]:
    """A box as a COCO polygon."""
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def rle(box: tuple[float, ...]) -> masks.RLE:
    return masks.from_box(box, HEIGHT, WIDTH)


def photo(path: Path, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """A picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def label(path: Path, *boxes: tuple[float, ...], value: int = 255) -> Path:
    """A label picture that is black but for some boxes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for box in boxes:
        x1, y1, x2, y2 = map(int, box)
        pixels[y1:y2, x1:x2] = value
    Image.fromarray(pixels).save(path)
    return path


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


Edit = Callable[[Any], None]


def nothing(_: Any) -> None:
    """An edit that changes nothing."""


def write_grefcoco(root: Path, edit: Edit = nothing) -> Path:
    """Two images of two objects, one a crowd. Refs: both, and the left (train); none, and an object with a crowd."""
    image = photo(root / "images/mscoco/images/train2014/COCO_train2014_000000000007.jpg")
    photo(image.with_name("COCO_train2014_000000000008.jpg"))

    def annotation(number: int, picture: int, box: tuple[float, ...], crowd: int = 0) -> dict:
        segmentation: Any = rle(box) if crowd else [polygon(box)]
        shape = {"bbox": bbox(box), "segmentation": segmentation, "iscrowd": crowd}
        return {"id": number, "image_id": picture, "category_id": 1, **shape}

    def ref(number: int, picture: int, split: str, ids: list[int], *texts: str) -> dict:
        said = [{"sent_id": 10 * number + k, "sent": text, "raw": text} for k, text in enumerate(texts)]
        entry = {"ref_id": number, "image_id": picture, "split": split, "ann_id": ids, "sentences": said}
        return entry | ({"no_target": True} if ids == [-1] else {})

    content = {
        "refs": [
            ref(1, 7, "train", [71, 72], "both cups", "the two cups"),
            ref(2, 7, "train", [71], "left cup"),
            ref(3, 8, "val", [-1], "the dog"),
            ref(4, 8, "val", [81, 82], "all cups"),
        ],
        "instances": {
            "images": [
                {"id": number, "file_name": f"COCO_train2014_{number:012d}.jpg", "height": HEIGHT, "width": WIDTH}
                for number in (7, 8)
            ],
            "annotations": [
                annotation(71, 7, LEFT),
                annotation(72, 7, RIGHT),
                annotation(81, 8, LEFT),
                annotation(82, 8, RIGHT, 1),
            ],
            "categories": [{"id": 1, "name": "cup"}],
        },
    }
    edit(content)
    write(root / "grefcoco/grefs(unc).json", content["refs"])
    write(root / "grefcoco/instances.json", content["instances"])
    return root


def write_reasonseg(root: Path, edit: Edit = nothing) -> Path:
    """Two val files: `a`, a sentence in two paraphrases with every kind of shape, and `b`, a phrase."""

    def shape(name: str, box: tuple[float, ...]) -> dict:
        x1, y1, x2, y2 = box
        points = [[x1, y1], [x2 - 1, y1], [x2 - 1, y2 - 1], [x1, y2 - 1]]
        return {"label": name, "labels": [name], "shape_type": "polygon", "points": points, "flags": {}}

    flag = {"label": "flag", "shape_type": "polygon", "points": [[1.0, 1.0], [2.0, 2.0]]}
    content = {
        "a": {
            "text": ["What can one drink from?", "What holds the caf\xe9?"],
            "is_sentence": True,
            "shapes": [shape("target", MIDDLE), shape("ignore", (26, 16, 36, 47)), shape("target", LEFT), flag],
        },
        "b": {"text": ["the cup"], "is_sentence": False, "shapes": [shape("target", RIGHT)]},
    }
    edit(content)
    for name, entry in content.items():
        photo(root / f"ReasonSeg/val/{name}.jpg")
        text = json.dumps(entry, ensure_ascii=False)
        (root / f"ReasonSeg/val/{name}.json").write_bytes(text.encode("cp1252"))
    return root


def write_muse(root: Path, edit: Edit = nothing) -> Path:
    """A train2014 image with a question that two objects answer, and a train2017 image with one for each of two."""
    images = root / "images/mscoco/images"
    photo(images / "train2014/COCO_train2014_000000000007.jpg")
    photo(images / "train2017/000000000009.jpg")
    left = {"bbox": bbox(LEFT), "segmentation": [polygon(LEFT)], "category_name": "cup", "rephrased_name": "red cup"}
    right = {"segmentation": rle(RIGHT), "category_name": "bowl"}
    size = {"height": HEIGHT, "width": WIDTH, "ann_list": [left, right]}
    content = [
        {
            "file_name": "COCO_train2014_000000000007.jpg",
            **size,
            "questions": ["What do I eat and drink from?"],
            "answers": [[left, right]],
        },
        {
            "coco_url": "http://images.cocodataset.org/train2017/000000000009.jpg",
            **size,
            "questions": ["What is for soup?", "What is for tea?"],
            "answers": [[right], [left]],
        },
    ]
    edit(content)
    write(root / "muse/MUSE_train.json", content)
    return root


def write_earthreason(root: Path, edit: Edit = nothing) -> Path:
    """Two val images, one of whose label pictures is black."""
    folder = root / "rs_reason_seg/RSReasonSeg/val"
    content = {
        "0001": {"questions": ["Where do planes land?", "Where is the runway?"], "answer": ["On the runway."]},
        "0002": {"questions": ["Where do ships land?"], "answer": []},
    }
    edit(content)
    for name, entry in content.items():
        photo(folder / f"images/{name}.png")
        label(folder / f"labels/{name}.png", *([LEFT] if name == "0001" else []), value=1)
        write(folder / f"QAs/{name}.json", entry)
    return root


def write_qwen3_vl_seg(root: Path, edit: Edit = nothing, name: str = "cors.json") -> Path:
    """Three records: two dogs, one of them as a picture; a description with one mask; and nothing found."""
    photo(root / "sa_1.jpg")
    label(root / "masks/right.png", RIGHT)

    def box(of: tuple[float, ...]) -> list[int]:
        x1, y1, x2, y2 = of
        return [round(1000 * v / side) for v, side in zip((x1, y1, x2, y2), (WIDTH, HEIGHT) * 2, strict=True)]

    def record(asked: str, answer: list, mask: Any) -> dict:
        turns = [{"from": "human", "value": f"<image>\n{asked}"}, {"from": "gpt", "value": json.dumps(answer)}]
        return {"image": "sa_1.jpg", "conversations": turns, "mask": mask}

    token = "<mask_start><mask_token><mask_end>"
    first, second = ({"bbox_2d": box(b), "label": "dog", "mask": token} for b in (LEFT, RIGHT))
    category = "Locate and segment every instance that belongs to the following categories {}, report bbox coordinates "
    content = [
        record(
            category.format('"dog", "cat"') + "and masks in JSON format.",
            [first, second],
            [rle(LEFT), "masks/right.png"],
        ),
        record(
            'Locate and segment the object that matches the description "the "big" dog", report bbox coordinates and '
            "masks in JSON format.",
            [first],
            [polygon(LEFT)],
        ),
        record(category.format('"cow"') + "and masks in JSON format.", [], []),
    ]
    edit(content)
    if name.endswith(".jsonl"):
        (root / name).write_text("\n".join(json.dumps(entry) for entry in content))
    else:
        write(root / name, content)
    return root


def write_coco(root: Path, edit: Edit = nothing) -> Path:
    """Image 7 has two cups, a crowd of cups and one of dogs, 9 a dog. Panoptic adds walls, one of two segments."""
    ids = {101: LEFT, 102: RIGHT, 103: MIDDLE}
    images = [{"id": number, "file_name": f"{number:012d}.jpg", "height": HEIGHT, "width": WIDTH} for number in (7, 9)]
    things = [{"id": 1, "name": "cup", "isthing": 1}, {"id": 2, "name": "dog", "isthing": 1}]
    stuff = [{"id": 3, "name": "wall-other-merged", "isthing": 0}, {"id": 4, "name": "floor-wood", "isthing": 0}]

    def annotation(number: int, image: int, category: int, box: tuple[float, ...], crowd: int = 0) -> dict:
        segmentation: Any = rle(box) if crowd else [polygon(box)]
        shape = {"bbox": bbox(box), "segmentation": segmentation, "iscrowd": crowd}
        return {"id": number, "image_id": image, "category_id": category, **shape}

    def segment(number: int, category: int, crowd: int = 0) -> dict:
        return {"id": number, "category_id": category, "iscrowd": crowd, "area": 1, "bbox": [0, 0, 1, 1]}

    content = {
        "instances": {
            "images": images,
            "categories": things,
            "annotations": [
                annotation(1, 7, 1, LEFT),
                annotation(2, 7, 1, RIGHT),
                annotation(3, 7, 1, MIDDLE, 1),
                annotation(4, 7, 2, (0, 0, 3, 3), 1),
                annotation(5, 9, 2, LEFT),
            ],
        },
        "panoptic": {
            "images": images,
            "categories": things + stuff,
            "annotations": [
                {
                    "image_id": 7,
                    "file_name": "000000000007.png",
                    "segments_info": [segment(101, 1), segment(102, 1), segment(103, 1, 1), segment(70_000, 3)],
                },
                {
                    "image_id": 9,
                    "file_name": "000000000009.png",
                    "segments_info": [segment(101, 3), segment(102, 3), segment(103, 2)],
                },
            ],
        },
    }
    edit(content)
    for kind, entry in content.items():
        write(root / f"annotations/{kind}_train2017.json", entry)
    for number in (7, 9):
        photo(root / f"train2017/{number:012d}.jpg")
        colours = np.zeros((HEIGHT, WIDTH), np.int64)
        if number == 7:
            colours[:4] = 70_000
        for identity, box in ids.items():
            x1, y1, x2, y2 = map(int, box)
            colours[y1:y2, x1:x2] = identity
        picture = np.stack([colours % 256, colours // 256 % 256, colours // 65536], -1).astype(np.uint8)
        path = root / f"annotations/panoptic_train2017/{number:012d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return root


def write_llava(root: Path, edit: Edit = nothing) -> Path:
    """A conversation of two questions about a COCO image, one about another image, and one about none."""
    photo(root / "coco/train2017/000000000009.jpg")
    photo(root / "gqa/images/1.jpg")
    human, gpt = ({"from": name, "value": ""} for name in ("human", "gpt"))
    first = [human | {"value": "<image>\nWhat is on the left?"}, gpt | {"value": "A cup."}]
    second = [human | {"value": "And right?"}, gpt | {"value": "A bowl."}]
    content = [
        {"id": "9", "image": "coco/train2017/000000000009.jpg", "conversations": first + second},
        {"id": "1", "image": "gqa/images/1.jpg", "conversations": [human | {"value": "Is it red?\n<image>"}, first[1]]},
        {"id": "x", "conversations": [human | {"value": "Hello."}, first[1]]},
    ]
    edit(content)
    write(root / "llava.json", content)
    return root


def write_pope(root: Path, edit: Edit = nothing) -> Path:
    """Three questions about an image."""
    photo(root / "images/mscoco/images/val2014/COCO_val2014_000000000007.jpg")
    asked = {"image": "COCO_val2014_000000000007.jpg", "text": "Is there a cup in the image?"}
    content = [{"question_id": number, **asked, "label": label} for number, label in enumerate(("yes", "no", "no"), 1)]
    edit(content)
    (root / "coco_pope_random.json").write_text("\n".join(json.dumps(entry) for entry in content) + "\n")
    return root

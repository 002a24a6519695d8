import io
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from segmentation.data.check import BrokenData, check
from segmentation.data.refcoco_m import RefCOCOM
from segmentation.sample import BrokenImage
from tests.official import HEIGHT, LEFT, RIGHT, WIDTH, bbox, rle


def jpeg(value: int) -> dict:
    content = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (value, 0, 0)).save(content, "PNG")
    return {"bytes": content.getvalue(), "path": f"{value}.png"}


def said(number: int, image: int, box: tuple[float, ...], *sentences: str) -> dict:
    texts = {"category": "cup", "supercategory": "kitchen", "label": "cup", "sentences": list(sentences)}
    return {"id": number, "image_id": image, **texts, "bbox": bbox(box), "mask": dict(rle(box))}


def rows() -> list[dict]:
    """Three images, the first with two objects."""
    return [
        {
            "image": jpeg(number),
            "image_id": number,
            "file_name": f"COCO_train2014_{number:012d}.jpg",
            "samples": [said(10 * number, number, LEFT, "left", "the left cup")]
            + ([said(10 * number + 1, number, RIGHT, "right")] if number == 7 else []),
        }
        for number in (7, 8, 9)
    ]


def write(root: Path, content: list[dict], per_group: int = 2) -> Path:
    path = root / "refcoco-m/data/validation-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), path, row_group_size=per_group)
    return root


def test_every_sentence_of_every_object_is_a_sample(tmp_path):
    data = RefCOCOM(write(tmp_path, rows()))
    assert [s.id for s in data] == [
        f"refcoco_m-validation-{end}" for end in ("70-0", "70-1", "71-0", "80-0", "80-1", "90-0", "90-1")
    ]
    assert [s.expression for s in data[:3]] == ["left", "the left cup", "right"]
    assert (data[2].mask, data[2].targets[0].box, data[2].targets[0].label) == (rle(RIGHT), RIGHT, "cup")
    assert [s.image_id for s in data] == [data.image_id(i) for i in range(7)] == [7, 7, 7, 8, 8, 9, 9]
    check(data)
    assert len(RefCOCOM(tmp_path, sentences="joined")) == 4


def test_each_sample_has_the_picture_of_its_row_in_any_order(tmp_path):
    data = RefCOCOM(write(tmp_path, rows()))
    for index in (6, 0, 3, 5, 2):
        picture = data[index].image
        assert isinstance(picture, Image.Image) and np.asarray(picture)[0, 0, 0] == data.image_id(index)


def test_the_check_reaches_the_end_though_pictures_are_in_no_file_of_their_own(tmp_path):
    content = rows()
    content[2]["samples"][0]["bbox"] = [0, 0, 0, 0]
    with pytest.raises(BrokenData, match=r"2 of 7 .*\n- .*sample 90 of image 9: bbox \[0\.0, .* has no area"):
        check(RefCOCOM(write(tmp_path, content)), opened=14)


def test_pictures_are_not_opened_on_loading(tmp_path):
    content = rows()
    content[1]["image"]["bytes"] = content[1]["image"]["bytes"][:100]
    data = RefCOCOM(write(tmp_path, content))
    assert data[0].image_id == 7
    with pytest.raises(BrokenImage, match=r"validation-00000-of-00001\.parquet: image of row 1 of row group 0: cannot"):
        data[3]


def test_what_cannot_be_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"validation-\*\.parquet: no such file.*moondream/refcoco-m"):
        RefCOCOM(tmp_path)
    content = rows()
    content[2]["samples"][0]["id"] = 70
    with pytest.raises(ValueError, match=r"row 0 of row group 1: id 70 is also that of another sample"):
        RefCOCOM(write(tmp_path, content))
    content = rows()
    content[0]["samples"][0]["mask"]["size"] = [WIDTH, HEIGHT]
    with pytest.raises(ValueError, match=r"sample 70 of image 7: the mask is \[64, 48\] high and wide"):
        RefCOCOM(write(tmp_path, content))[0]
    path = tmp_path / "refcoco-m/data/validation-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="not a whole parquet file"):
        RefCOCOM(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"image_id": [7]}), path)
    with pytest.raises(ValueError, match="has no field 'samples'"):
        RefCOCOM(tmp_path)

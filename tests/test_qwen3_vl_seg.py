import json

import pytest
from PIL import Image

from segmentation import masks
from segmentation.data.check import check
from segmentation.data.qwen3_vl_seg import Qwen3VLSeg, expression_of
from segmentation.sample import BrokenImage
from tests.official import HEIGHT, LEFT, RIGHT, WIDTH, polygon, rle, write_qwen3_vl_seg


@pytest.mark.parametrize("file", ["cors.json", "cors.jsonl"])
def test_categories_descriptions_and_nothing_found(tmp_path, file):
    data = Qwen3VLSeg(write_qwen3_vl_seg(tmp_path, name=file), file)
    assert [s.id for s in data] == [f"sa1b_ors-train-{number}" for number in range(3)]
    assert [s.expression for s in data] == ["dog, cat", 'the "big" dog', "cow"]
    both, one, none = data
    assert both.mask == masks.union([rle(LEFT), rle(RIGHT)], HEIGHT, WIDTH)
    assert [target.label for target in both.targets] == ["dog", "dog"]
    assert both.targets[1].box == pytest.approx(RIGHT, abs=0.05)
    assert one.mask == rle(LEFT) and none.targets == ()
    assert (one.image_id, data.image_id(0)) == (None, None)
    check(data)


@pytest.mark.parametrize("mask", [rle(LEFT), [polygon(LEFT)], [rle(LEFT)], "masks/left.png"])
def test_one_object_may_have_its_mask_without_a_list(tmp_path, mask):
    from tests.official import label

    label(tmp_path / "masks/left.png", LEFT)
    root = write_qwen3_vl_seg(tmp_path, lambda content: content[1].update(mask=mask))
    assert Qwen3VLSeg(root, "cors.json")[1].mask == rle(LEFT)


def boxes(*written):
    def edit(content):
        content[1]["conversations"][1]["value"] = json.dumps([{"bbox_2d": box, "label": "dog"} for box in written])

    return edit


def test_boxes_may_be_pixels(tmp_path):
    root = write_qwen3_vl_seg(tmp_path, boxes(list(LEFT)))
    assert Qwen3VLSeg(root, "cors.json", "pixels")[1].targets[0].box == LEFT
    with pytest.raises(
        ValueError, match=r"record 1: bbox_2d \[4\.0, .*does not fit its mask.*data\.frame=relative1000"
    ):
        Qwen3VLSeg(root, "cors.json")[1]


def turn(number, value):
    return lambda content: content[1]["conversations"][number].update(value=value)


def record(**changes):
    return lambda content: content[1].update(changes)


LOADING = [
    (turn(1, "[{"), "the value of gpt is not complete JSON"),
    (turn(1, '["dog"]'), "the value of gpt is not a list of objects"),
    (turn(0, "<image>\n "), "asks for nothing"),
    (record(mask=[]), "mask holds 0 masks for 1 objects"),
    (record(mask=[rle(LEFT)] * 2), "mask holds 2 masks for 1 objects"),
    (record(image="../sa_1.jpg"), "leads out of"),
    (record(conversations=[]), "conversations are from"),
    (record(image=3), "image is a int"),
    (record(id="0"), "id '0' is also that of another record"),
]


@pytest.mark.parametrize(("edit", "said"), LOADING, ids=[said[-30:] for _, said in LOADING])
@pytest.mark.parametrize("file", ["cors.json", "cors.jsonl"])
def test_a_malformed_record_is_named(tmp_path, edit, said, file):
    with pytest.raises(ValueError, match=rf"{file}: record 1: .*{said}"):
        Qwen3VLSeg(write_qwen3_vl_seg(tmp_path, edit, file), file)


SAMPLES = [
    (record(mask=["../right.png"]), "leads out of"),
    (record(mask=["masks/none.png"]), r"none\.png: no such file"),
    (record(mask=[masks.from_box(LEFT, 9, 9)]), r"the mask is \[9, 9\]"),
    (boxes([100, 100, 100, 200]), "has no area"),
    (boxes([1, 2, 3]), "not enough values"),
]


@pytest.mark.parametrize(("edit", "said"), SAMPLES, ids=[said[-30:] for _, said in SAMPLES])
def test_a_mask_or_box_that_cannot_be_is_named(tmp_path, edit, said):
    data = Qwen3VLSeg(write_qwen3_vl_seg(tmp_path, edit), "cors.json")
    with pytest.raises(ValueError, match=rf"cors\.json: record 1: .*{said}"):
        data[1]


def test_a_box_in_pixels_outside_the_image(tmp_path):
    root = write_qwen3_vl_seg(tmp_path, boxes([4, 8, 900, 40]))
    with pytest.raises(ValueError, match="far outside its image of 64x48"):
        Qwen3VLSeg(root, "cors.json", "pixels")[1]


def test_a_damaged_line_is_named(tmp_path):
    root = write_qwen3_vl_seg(tmp_path, name="cors.jsonl")
    path = root / "cors.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"cors\.jsonl: record 2: "):
        Qwen3VLSeg(root, "cors.jsonl")


def test_wrong_arguments(tmp_path):
    root = write_qwen3_vl_seg(tmp_path)
    with pytest.raises(ValueError, match=r"data\.frame='units'; it is 'relative1000' or 'pixels'"):
        Qwen3VLSeg(root, "cors.json", "units")  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileNotFoundError, match=r"ders\.json: no such file"):
        Qwen3VLSeg(root, "ders.json")
    with pytest.raises(ValueError, match="leads out of"):
        Qwen3VLSeg(root, "../cors.json")
    (root / "cors.json").write_text("{}")
    with pytest.raises(ValueError, match=r"cors\.json: holds a dict; a list was expected"):
        Qwen3VLSeg(root, "cors.json")


def test_a_missing_image_is_a_broken_image(tmp_path):
    root = write_qwen3_vl_seg(tmp_path)
    (root / "sa_1.jpg").unlink()
    with pytest.raises(BrokenImage, match=r"sa_1\.jpg: no such file"):
        Qwen3VLSeg(root, "cors.json")[0]
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "sa_1.jpg")
    assert Qwen3VLSeg(root, "cors.json")[0].width == WIDTH


@pytest.mark.parametrize(
    ("asked", "expression"),
    [
        ("<image>\nLocate and segment the tongue, report bbox coordinates and mask in JSON format.", "the tongue"),
        ("<image>Which dog is asleep?", "Which dog is asleep?"),
        ('Say "dog"', 'Say "dog"'),
    ],
)
def test_prompts_in_other_words(asked, expression):
    assert expression_of(asked) == expression

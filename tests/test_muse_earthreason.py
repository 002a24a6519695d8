import json

import pytest
from PIL import Image

from segmentation import masks
from segmentation.data.check import BrokenData, check
from segmentation.data.earthreason import EarthReason
from segmentation.data.muse import Muse
from segmentation.sample import BrokenImage
from tests.official import HEIGHT, LEFT, RIGHT, WIDTH, label, rle, write_earthreason, write_muse


def test_muse_has_a_sample_for_each_question(tmp_path):
    data = Muse(write_muse(tmp_path), "train")
    assert [s.id for s in data] == ["muse-train-0-0", "muse-train-1-0", "muse-train-1-1"]
    assert [target.label for target in data[0].targets] == ["red cup", "bowl"]
    assert [target.box for target in data[0].targets] == [LEFT, RIGHT]
    assert data[0].mask == masks.union([rle(LEFT), rle(RIGHT)], HEIGHT, WIDTH)
    assert [s.targets[0].label for s in data[1:]] == ["bowl", "red cup"]
    assert [s.image_id for s in data] == [data.image_id(i) for i in range(3)] == [7, 9, 9]
    check(data)


def test_muse_takes_val2017_where_the_url_says_so_and_either_name_of_the_file(tmp_path):
    def val(content):
        content[1]["coco_url"] = "http://images.cocodataset.org/val2017/000000000009.jpg"

    root = write_muse(tmp_path, val)
    assert Muse(root, "train")[1].image == root / "images/mscoco/images/val2017/000000000009.jpg"
    (root / "muse/MUSE_train.json").rename(root / "muse/muse_train.json")
    assert len(Muse(root, "train")) == 3


def item(number, **changes):
    return lambda content: content[number].update(changes)


def answer(**changes):
    return lambda content: content[1]["answers"][0][0].update(changes)


MUSE = [
    (item(0, answers=[]), r"item 0: 1 questions but 0 answers.*data\.skip_items=\[0\]"),
    (item(0, answers=[[]]), r"item 0: question 0 is empty, or its answer names no object.*data\.skip_items=\[0\]"),
    (item(0, questions=[""]), "item 0: question 0 is empty"),
    (item(0, file_name="../x.jpg"), r"item 0: file_name '\.\./x\.jpg' leads out of"),
    (item(0, height="48"), "item 0: height is a str, '48'; it must be int"),
    (lambda content: content[1].pop("coco_url"), "item 1: has no field 'coco_url'"),
]


@pytest.mark.parametrize(("edit", "said"), MUSE, ids=[said[:40] for _, said in MUSE])
def test_a_malformed_item_of_muse_is_named(tmp_path, edit, said):
    with pytest.raises(ValueError, match=rf"MUSE_train\.json: {said}"):
        Muse(write_muse(tmp_path, edit), "train")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (answer(segmentation=masks.from_box(LEFT, 10, 10)), r"the mask is \[10, 10\] high and wide"),
        (answer(segmentation=[[0, 0, 500, 0, 500, 9]]), "far outside"),
        (answer(bbox=[0, 0, 0, 0]), "has no area"),
        (answer(segmentation=masks.empty(HEIGHT, WIDTH)), "encloses no pixel"),
    ],
)
def test_a_malformed_answer_of_muse_is_named(tmp_path, edit, said):
    with pytest.raises(ValueError, match=rf"MUSE_train\.json: item 1: answer 0 of question 0: .*{said}"):
        Muse(write_muse(tmp_path, edit), "train")[1]


def test_items_of_muse_can_be_skipped(tmp_path):
    assert [s.id for s in Muse(write_muse(tmp_path, item(0, answers=[])), "train", skip_items=[0])] == [
        "muse-train-1-0",
        "muse-train-1-1",
    ]


def test_a_wrong_split_and_a_missing_file_of_muse(tmp_path):
    with pytest.raises(ValueError, match=r"data\.split='test'; it is one of train, val, test_less, test_many"):
        Muse(tmp_path, "test")
    with pytest.raises(FileNotFoundError, match=r"muse_test_less\.json: no such file"):
        Muse(tmp_path, "test_less")


def test_earthreason_has_a_target_or_none(tmp_path):
    data = EarthReason(write_earthreason(tmp_path))
    assert [s.id for s in data] == ["earthreason-val-0001-0", "earthreason-val-0002-0"]
    assert (data[0].targets[0].box, data[0].mask) == (LEFT, rle(LEFT))
    assert data[1].targets == () and data[1].expression == "Where do ships land?"
    assert (data[0].image_id, data.image_id(0)) == (None, None)
    assert len(EarthReason(tmp_path, sentences="each")) == 3
    check(data)


FOLDER = "rs_reason_seg/RSReasonSeg/val"


def test_earthreason_is_joined_by_name_or_by_order(tmp_path):
    root = write_earthreason(tmp_path)
    (root / FOLDER / "QAs/0002.json").rename(root / FOLDER / "QAs/0003.json")
    with pytest.raises(ValueError, match=r"0002\.png, 0002\.png and 0003\.json are not of one name; data\.join=order"):
        EarthReason(root)
    assert EarthReason(root, join="order")[1].expression == "Where do ships land?"
    (root / FOLDER / "QAs/0003.json").unlink()
    with pytest.raises(ValueError, match="2 images, 2 labels and 1 QAs"):
        EarthReason(root, join="order")


def test_a_label_picture_that_cannot_be_used_is_named(tmp_path):
    root = write_earthreason(tmp_path)
    path = root / FOLDER / "labels/0001.png"
    Image.new("L", (5, 5)).save(path)
    with pytest.raises(ValueError, match=r"0001\.png: the mask is \[5, 5\] high and wide, its image \[48, 64\]"):
        EarthReason(root)[0]
    path.write_bytes(b"none")
    with pytest.raises(ValueError, match=r"labels/0001\.png: cannot be read"):
        EarthReason(root)[0]
    data = EarthReason(root)
    path.unlink()
    with pytest.raises(ValueError, match=r"labels/0001\.png: no such file"):
        data[0]
    with pytest.raises(BrokenData, match="1 of 2 samples"):
        check(data)
    label(path, RIGHT)
    (root / FOLDER / "images/0001.png").unlink()
    with pytest.raises(BrokenImage, match=r"images/0001\.png: no such file"):
        data[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [({"questions": []}, "questions is empty"), ({"questions": "Where?"}, "questions is a str")],
)
def test_a_malformed_file_of_questions_is_named(tmp_path, change, said):
    with pytest.raises(ValueError, match=rf"QAs/0001\.json: {said}"):
        EarthReason(write_earthreason(tmp_path, lambda content: content["0001"].update(change)))


def test_wrong_options_and_a_missing_folder_of_earthreason(tmp_path):
    with pytest.raises(ValueError, match=r"data\.split='dev'"):
        EarthReason(tmp_path, "dev")
    with pytest.raises(ValueError, match=r"data\.join='both'"):
        EarthReason(tmp_path, join="both")  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileNotFoundError, match=r"no \.jpg or \.jpeg or \.png files.*SegEarth-R1's layout"):
        EarthReason(tmp_path)


def test_of_a_dataset_that_reads_a_file_a_sample_only_some_are_looked_at(tmp_path):
    root = write_earthreason(tmp_path)
    questions = root / FOLDER / "QAs/0001.json"
    entry = json.loads(questions.read_text())
    questions.write_text(json.dumps(entry | {"questions": [f"Where is {i}?" for i in range(50)]}))
    (root / FOLDER / "labels/0002.png").write_bytes(b"none")
    data = EarthReason(root, sentences="each")
    check(data, opened=2)
    with pytest.raises(BrokenData, match="1 of 51 samples"):
        check(data, opened=102)

import json

import numpy as np
import pytest
from PIL import Image

from segmentation import masks
from segmentation.data.check import Opened, check
from segmentation.data.reasonseg import ReasonSeg
from segmentation.sample import BrokenImage, open_image
from tests.official import HEIGHT, LEFT, MIDDLE, RIGHT, WIDTH, rle, write_reasonseg


def area(*boxes) -> np.ndarray:
    return np.any([masks.decode(rle(box)) for box in boxes], 0)


def test_what_is_evaluated_is_the_first_text_of_each_file(tmp_path):
    data = ReasonSeg(write_reasonseg(tmp_path))
    assert [s.id for s in data] == ["reasonseg-val-a-0", "reasonseg-val-b-0"]
    assert [s.expression for s in data] == ["What can one drink from?", "the cup"]
    assert (data[0].height, data[0].width, data[0].image_id, data.image_id(0)) == (HEIGHT, WIDTH, None, None)
    check(data)


def test_paraphrases_each_or_joined_and_cp1252(tmp_path):
    root = write_reasonseg(tmp_path)
    each = ReasonSeg(root, sentences="each")
    assert [s.id for s in each] == ["reasonseg-val-a-0", "reasonseg-val-a-1", "reasonseg-val-b-0"]
    assert each[1].expression == "What holds the caf\xe9?"
    joined = ReasonSeg(root, sentences="joined")
    assert joined[0].id == "reasonseg-val-a" and joined[0].expression.count("; ") == 1


def test_small_shapes_cover_large_ones_and_flags_are_left_out(tmp_path):
    sample = ReasonSeg(write_reasonseg(tmp_path))[0]
    around = (26.0, 16.0, 36.0, 47.0)
    assert sample.mask and sample.ignore
    assert np.array_equal(masks.decode(sample.mask), area(LEFT, MIDDLE))
    assert np.array_equal(masks.decode(sample.ignore), area(around) & ~area(MIDDLE))
    assert sample.targets[0].box == (LEFT[0], LEFT[1], MIDDLE[2], MIDDLE[3])


def test_polygons_are_drawn_with_their_outline(tmp_path):
    def thin(content):
        content["b"]["shapes"] = [{"label": "target", "points": [[2, 3], [40, 5], [60, 40]]}]

    sample = ReasonSeg(write_reasonseg(tmp_path, thin))[1]
    assert sample.mask
    drawn = masks.decode(sample.mask)
    for (x1, y1), (x2, y2) in (((2, 3), (40, 5)), ((40, 5), (60, 40)), ((2, 3), (60, 40))):
        assert drawn[y1, x1] and drawn[y2, x2] and drawn[(y1 + y2) // 2, (x1 + x2) // 2]
    assert masks.area(sample.mask) == 711  # 684 without the outline


def test_of_regions_of_one_size_the_earlier_is_on_top(tmp_path):
    def same(content):
        square = [[10, 10], [30, 10], [30, 30], [10, 30]]
        content["b"]["shapes"] = [{"label": label, "points": square} for label in ("target", "ignore")]

    sample = ReasonSeg(write_reasonseg(tmp_path, same))[1]
    assert sample.mask and masks.area(sample.mask) == 21 * 21 and sample.ignore is None


def test_a_small_region_to_ignore_covers_a_large_target(tmp_path):
    def swap(content):
        for shape in content["a"]["shapes"][:2]:
            shape["label"] = {"target": "ignore", "ignore": "target"}[shape["label"]]

    sample = ReasonSeg(write_reasonseg(tmp_path, swap))[0]
    assert sample.ignore and np.array_equal(masks.decode(sample.ignore), area(MIDDLE))


def test_regions_to_ignore_are_dropped_background_or_target(tmp_path):
    root = write_reasonseg(tmp_path)
    dropped, background, target = (ReasonSeg(root, ignore=how)[0] for how in ("drop", "background", "target"))
    assert dropped.ignore and background.ignore is None and target.ignore is None
    assert dropped.mask == background.mask
    assert target.mask and np.array_equal(masks.decode(target.mask), area(LEFT, (26.0, 16.0, 36.0, 47.0)))
    assert ReasonSeg(root)[1].ignore is None, "b has nothing to ignore"


def test_short_and_long_queries(tmp_path):
    root = write_reasonseg(tmp_path)
    assert [s.id for s in ReasonSeg(root, queries="short")] == ["reasonseg-val-b-0"]
    assert [s.id for s in ReasonSeg(root, queries="long")] == ["reasonseg-val-a-0"]


def test_the_size_is_that_of_the_image(tmp_path):
    root = write_reasonseg(tmp_path)
    Image.new("RGB", (WIDTH + 30, HEIGHT)).save(root / "ReasonSeg/val/b.jpg")
    assert ReasonSeg(root)[1].width == WIDTH + 30


@pytest.mark.parametrize("held", [1, 3, 6, 8])
def test_pictures_are_upright_as_they_were_when_their_regions_were_drawn(tmp_path, held):
    root = write_reasonseg(tmp_path)
    upright = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    upright[area(LEFT, MIDDLE)] = 255
    stored = Image.fromarray(upright)
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = stored.transpose(turns[held]) if held in turns else stored
    exif = Image.Exif()
    exif[0x0112] = held
    stored.save(root / "ReasonSeg/val/a.jpg", exif=exif, quality=100)
    data = ReasonSeg(root)
    sample = data[0]
    assert (sample.height, sample.width) == (HEIGHT, WIDTH) and sample.mask
    bright = np.asarray(open_image(sample).convert("L")) > 127
    assert (bright == masks.decode(sample.mask).astype(bool)).mean() > 0.99
    check(data)


def test_a_missing_image_is_a_broken_image_and_can_be_skipped(tmp_path):
    root = write_reasonseg(tmp_path)
    (root / "ReasonSeg/val/a.jpg").unlink()
    data = ReasonSeg(root)
    with pytest.raises(BrokenImage, match=r"a\.jpg: no such file; check data\.root"):
        data[0]
    with pytest.raises(BrokenImage):
        Opened(data)[0]
    opened = Opened(data, "skip")
    assert opened[0].id == "reasonseg-val-b-0" and "a.jpg" in opened.skipped["number 0"]
    (root / "ReasonSeg/val/a.jpg").write_bytes(b"no picture")
    with pytest.raises(BrokenImage, match=r"a\.jpg: cannot be read"):
        ReasonSeg(root)[0]


def in_a(**changes):
    return lambda content: content["a"].update(changes)


def points(value):
    return lambda content: content["a"]["shapes"][0].update(points=value)


LOADING = [
    (in_a(text=[]), r"text \[\] holds no expression"),
    (in_a(text=["x", " "]), "holds no expression, or an empty one"),
    (in_a(shapes=[{"label": 3}]), "label is a int, 3; it must be str"),
    (in_a(shapes=[{"points": []}]), "has no field 'label'"),
    (points([[1, 2], [3, 4]]), r"shapes\[0\]\.points is no polygon"),
    (points([[1, 2, 3]] * 3), r"shapes\[0\]\.points is no polygon"),
    (points([[1, 2], [3, 4], [float("nan"), 3]]), r"shapes\[0\]\.points is no polygon"),
    (points([["a", 2]] * 3), "could not convert"),
    (lambda content: content.update(a=[]), "TypeError|list indices"),
]


@pytest.mark.parametrize(("edit", "said"), LOADING, ids=[said[-30:] for _, said in LOADING])
def test_a_malformed_file_is_named(tmp_path, edit, said):
    with pytest.raises(ValueError, match=rf"ReasonSeg/val/a\.json: .*({said})"):
        ReasonSeg(write_reasonseg(tmp_path, edit))


def test_a_file_that_is_not_json_is_named(tmp_path):
    root = write_reasonseg(tmp_path)
    (root / "ReasonSeg/val/a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json: not complete JSON"):
        ReasonSeg(root)


def test_a_polygon_outside_the_image_and_a_file_without_target(tmp_path):
    root = write_reasonseg(tmp_path / "1", points([[400, 5], [450, 5], [450, 9]]))
    with pytest.raises(ValueError, match=r"a\.json: polygon 0 of shapes reaches .* far outside its image of 64x48"):
        ReasonSeg(root)[0]
    root = write_reasonseg(tmp_path / "2", in_a(shapes=[]))
    with pytest.raises(ValueError, match=r"a\.json: no shape is a target.*data\.skip=\[a\]"):
        ReasonSeg(root)[0]
    assert [s.id for s in ReasonSeg(root, skip=["a"])] == ["reasonseg-val-b-0"]


@pytest.mark.parametrize("wrong", [{"split": "test2"}, {"ignore": "no"}, {"queries": "some"}, {"sentences": "last"}])
def test_a_wrong_option_is_named(tmp_path, wrong):
    with pytest.raises(ValueError, match=rf"data\.{next(iter(wrong))}="):
        ReasonSeg(write_reasonseg(tmp_path), **wrong)


def test_a_missing_folder_shows_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"needs LISA's layout: ReasonSeg/train/<name>\.jpg"):
        ReasonSeg(tmp_path, "train")


@pytest.mark.realdata
def test_real_annotations(real_data, tmp_path):
    (tmp_path / "ReasonSeg").mkdir()
    (tmp_path / "ReasonSeg/train").mkdir()
    for file in (real_data / "reasonseg_json").glob("*.json"):
        content = json.loads(file.read_text(encoding="cp1252"))
        corners = np.array([point for shape in content["shapes"] for point in shape["points"]]).max(0)
        (tmp_path / "ReasonSeg/train" / file.name).write_bytes(file.read_bytes())
        size = int(corners[0]) + 1, int(corners[1]) + 1
        Image.new("RGB", size).save(tmp_path / f"ReasonSeg/train/{file.stem}.jpg")
    data = ReasonSeg(tmp_path, "train", sentences="each")
    assert len(data) == 7 and len(ReasonSeg(tmp_path, "train")) == 2
    phrase, sentence = data[0], data[1]
    assert phrase.expression.startswith("the equipment that") and phrase.ignore is None
    assert phrase.targets[0].box == (4.0, 3529.0, 3186.0, 5016.0)
    assert sentence.ignore and sentence.mask
    assert masks.shared_area(sentence.ignore, sentence.mask) == 0 < masks.area(sentence.ignore)
    assert sentence.targets[0].box == (3546.0, 2143.0, 4088.0, 2666.0)


def test_right_is_not_painted(tmp_path):
    sample = ReasonSeg(write_reasonseg(tmp_path))[0]
    assert sample.mask and masks.shared_area(sample.mask, rle(RIGHT)) == 0

import pytest
from PIL import Image

from segmentation import masks
from segmentation.data.categories import missing, named, plain
from segmentation.data.check import check
from segmentation.data.coco_instances import CocoInstances
from segmentation.data.coco_panoptic import CocoPanoptic
from tests.official import HEIGHT, LEFT, MIDDLE, RIGHT, WIDTH, rle, write_coco

BOTH = [CocoInstances, CocoPanoptic]


def said(data) -> list[tuple[int, str, int]]:
    return [(s.image_id, s.expression, len(s.targets)) for s in data]


def test_instances_are_asked_for_by_category(tmp_path):
    data = CocoInstances(write_coco(tmp_path))
    assert said(data) == [(7, "cup", 2), (9, "dog", 1)]
    assert [s.id for s in data] == ["coco_instances-train2017-7-1", "coco_instances-train2017-9-2"]
    assert [target.box for target in data[0].targets] == [LEFT, RIGHT]
    assert data[0].image == tmp_path / "train2017/000000000007.jpg"
    check(data)


def test_crowds_of_instances_are_ignored_skipped_or_targets(tmp_path):
    root = write_coco(tmp_path)
    assert CocoInstances(root)[0].ignore == rle(MIDDLE)
    assert CocoInstances(root, crowd="skip")[0].ignore is None
    assert said(CocoInstances(root, crowd="target")) == [(7, "cup", 3), (7, "dog", 1), (9, "dog", 1)]


def test_annotations_without_area_are_left_out_and_named(tmp_path, caplog):
    def flat(content):
        content["instances"]["annotations"][0]["bbox"][3] = 0.0

    root = write_coco(tmp_path, flat)
    data = CocoInstances(root)
    assert said(data) == [(7, "cup", 1), (9, "dog", 1)]
    assert "they enclose no pixel: annotations 1" in caplog.text
    check(data)


@pytest.mark.parametrize("outline", [[4.1, 4.1, 4.4, 4.1, 4.4, 4.4], [4.1, 4.1, 30.4, 40.4]], ids=["speck", "line"])
def test_outlines_without_a_pixel_are_left_out_and_named(tmp_path, caplog, outline):
    def small(content):
        content["instances"]["annotations"][0] |= {"segmentation": [outline], "bbox": [4.1, 4.1, 0.3, 0.3], "area": 0.1}

    data = CocoInstances(write_coco(tmp_path, small))
    assert said(data) == [(7, "cup", 1), (9, "dog", 1)]
    assert "they enclose no pixel: annotations 1" in caplog.text
    check(data)


def test_panoptic_has_things_each_and_stuff_as_one(tmp_path):
    data = CocoPanoptic(write_coco(tmp_path))
    assert said(data) == [(7, "cup", 2), (7, "wall", 1), (9, "dog", 1), (9, "wall", 1)]
    assert data[0].id == "coco_panoptic-train2017-7-1"
    assert [target.mask for target in data[0].targets] == [rle(LEFT), rle(RIGHT)]
    assert data[1].mask == rle((0, 0, WIDTH, 4)), "70000 = 112 + 256 * 17 + 65536"
    assert data[3].mask == masks.union([rle(LEFT), rle(RIGHT)], HEIGHT, WIDTH)
    assert [data.image_id(i) for i in range(4)] == [7, 7, 9, 9]
    assert CocoPanoptic(tmp_path, names="official")[1].expression == "wall-other-merged"
    check(data)


def test_crowds_and_void_of_panoptic(tmp_path):
    root = write_coco(tmp_path)
    assert CocoPanoptic(root)[0].ignore == rle(MIDDLE)
    assert CocoPanoptic(root, crowd="skip")[0].ignore is None
    assert said(CocoPanoptic(root, crowd="target"))[0] == (7, "cup", 3)
    void = CocoPanoptic(root, crowd="skip", void="ignore")[0].ignore
    assert void and masks.area(void) == HEIGHT * WIDTH - sum(
        masks.area(rle(box)) for box in (LEFT, RIGHT, MIDDLE, (0, 0, WIDTH, 4))
    )


@pytest.mark.parametrize("kind", BOTH)
def test_absent_categories_are_no_target_and_the_same_each_time(tmp_path, kind):
    data = kind(write_coco(tmp_path), absent=1)
    none = [s for s in data if not s.targets]
    assert {s.image_id for s in none} <= {7, 9} and none
    there = {7: {"cup", "dog"}, 9: {"dog"}} if kind is CocoInstances else {7: {"cup", "wall"}, 9: {"dog", "wall"}}
    assert all(s.expression not in there[s.image_id or 0] for s in none)
    assert said(data) == said(kind(tmp_path, absent=1))
    assert len({s.id for s in data}) == len(data)


def test_missing_is_drawn_by_image_and_seed():
    drawn = {seed: [missing([1], range(1, 80), 3, image, seed) for image in range(5)] for seed in (0, 1)}
    assert drawn[0] == [missing([1], range(1, 80), 3, image, 0) for image in range(5)] != drawn[1]
    assert len({tuple(numbers) for numbers in drawn[0]}) == 5 and not any(1 in numbers for numbers in drawn[0])
    assert missing([1], [1, 2], 5, 0, 0) == [2]


def test_names_as_said():
    assert [plain(name) for name in ("wall-other-merged", "floor-wood", "door-stuff", "traffic light")] == [
        "wall",
        "floor wood",
        "door",
        "traffic light",
    ]
    with pytest.raises(ValueError, match=r"two categories are called 'wall'; data\.names=official"):
        named({1: "wall-other-merged", 2: "wall"}, "plain")
    assert named({1: "wall-other-merged", 2: "wall"}, "official")[1] == "wall-other-merged"
    with pytest.raises(ValueError, match=r"data\.names='short'"):
        named({}, "short")  # pyright: ignore[reportArgumentType]


def instances(**changes):
    return lambda content: content["instances"]["annotations"][0].update(changes)


def panoptic(**changes):
    return lambda content: content["panoptic"]["annotations"][0].update(changes)


LOADING = [
    (CocoInstances, instances(category_id=9), r"annotation 1: category_id 9 is not in categories"),
    (CocoInstances, instances(id=2), "annotations has two entries of id 2"),
    (CocoInstances, lambda content: content["instances"].pop("categories"), "has no field 'categories'"),
    (CocoPanoptic, panoptic(image_id=5), "images has no entry 5"),
    (CocoPanoptic, panoptic(file_name="../x.png"), r"file_name '\.\./x\.png' leads out of"),
    (CocoPanoptic, panoptic(segments_info=[{"id": 1, "category_id": 8}]), "category_id 8 of image 7 is not in"),
    (CocoPanoptic, lambda content: content["panoptic"]["images"][0].update(width=0), "height 48 and width 0"),
]


@pytest.mark.parametrize(("kind", "edit", "said"), LOADING, ids=[said[-30:] for _, _, said in LOADING])
def test_a_malformed_file_is_named(tmp_path, kind, edit, said):
    with pytest.raises(ValueError, match=rf"(instances|panoptic)_train2017\.json: {said}"):
        kind(write_coco(tmp_path, edit))


def test_a_label_picture_that_cannot_be_used_is_named(tmp_path):
    root = write_coco(tmp_path)
    path = root / "annotations/panoptic_train2017/000000000007.png"
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    with pytest.raises(ValueError, match=r"000000000007\.png: segments \[101\] .* encloses no pixel"):
        CocoPanoptic(root)[0]
    Image.new("RGB", (5, 5)).save(path)
    with pytest.raises(ValueError, match=r"000000000007\.png: is \[5, 5\] high and wide, its image \[48, 64\]"):
        CocoPanoptic(root)[0]
    path.unlink()
    with pytest.raises(ValueError, match=r"000000000007\.png: cannot be read"):
        CocoPanoptic(root)[0]


@pytest.mark.parametrize("kind", BOTH)
def test_wrong_options_and_a_missing_file(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match=r"_train2017\.json: no such file.*COCO's layout"):
        kind(tmp_path)
    with pytest.raises(ValueError, match=r"data\.crowd='drop'"):
        kind(write_coco(tmp_path), crowd="drop")
    with pytest.raises(ValueError, match=r"data\.void='drop'"):
        CocoPanoptic(tmp_path, void="drop")  # pyright: ignore[reportArgumentType]


@pytest.mark.realdata
def test_real_instances(real_data, tmp_path):
    (tmp_path / "annotations").symlink_to(real_data / "coco128/annotations")
    (tmp_path / "train2017").symlink_to(real_data / "coco128/images/train2017")
    data = CocoInstances(tmp_path, absent=2)
    check(data, opened=20)
    asked = CocoInstances(tmp_path)
    assert sum(len(s.targets) for s in CocoInstances(tmp_path, crowd="target")) == 939
    assert sum(len(s.targets) for s in asked) == 929
    assert 0 < sum(s.ignore is not None for s in asked) <= 10
    assert len(data) == len(asked) + 2 * 128

import json

import numpy as np
import pytest

from configs.strict import locate
from segmentation import masks
from segmentation.data.check import check
from segmentation.data.grefcoco import GRefCOCO
from segmentation.data.refer import Refer
from tests.official import HEIGHT, LEFT, RIGHT, WIDTH, polygon, rle, write_grefcoco
from tests.test_refer import write_refer


def test_one_object_several_or_none(tmp_path):
    data = GRefCOCO(write_grefcoco(tmp_path), "train")
    assert [s.id for s in data] == ["grefcoco-unc-train-1-10", "grefcoco-unc-train-1-11", "grefcoco-unc-train-2-20"]
    assert [target.box for target in data[0].targets] == [LEFT, RIGHT]
    assert data[0].mask == masks.union([rle(LEFT), rle(RIGHT)], HEIGHT, WIDTH)
    assert [target.box for target in data[2].targets] == [LEFT]
    none = GRefCOCO(tmp_path, "val")[0]
    assert (none.expression, none.targets, none.mask) == ("the dog", (), masks.empty(HEIGHT, WIDTH))
    check(data)


def test_sentences_each_first_or_joined(tmp_path):
    root = write_grefcoco(tmp_path)
    said = {how: [s.expression for s in GRefCOCO(root, "train", how)] for how in ("each", "first", "joined")}
    assert said == {
        "each": ["both cups", "the two cups", "left cup"],
        "first": ["both cups", "left cup"],
        "joined": ["both cups; the two cups", "left cup"],
    }
    assert [s.id for s in GRefCOCO(root, "train", "joined")] == ["grefcoco-unc-train-1", "grefcoco-unc-train-2"]
    assert GRefCOCO(root, "train", "first")[0].id == GRefCOCO(root, "train", "each")[0].id


def test_a_crowd_is_skipped_ignored_or_a_target(tmp_path):
    root = write_grefcoco(tmp_path)
    skipped, ignored, target = (GRefCOCO(root, "val", crowd=crowd)[1] for crowd in ("skip", "ignore", "target"))
    assert [len(s.targets) for s in (skipped, ignored, target)] == [1, 1, 2]
    assert (skipped.ignore, ignored.ignore, target.ignore) == (None, rle(RIGHT), None)
    with pytest.raises(ValueError, match=r"data\.crowd='drop'; it is 'skip', 'ignore' or 'target'"):
        GRefCOCO(root, "val", crowd="drop")  # pyright: ignore[reportArgumentType]


def test_a_ref_of_crowds_alone_is_not_taken_for_no_target(tmp_path):
    root = write_grefcoco(tmp_path, lambda content: content["refs"][3].update(ann_id=[82]))
    with pytest.raises(ValueError, match=r"instances\.json: all objects of ref 4 have iscrowd=1.*data\.crowd=target"):
        GRefCOCO(root, "val")[1]


def in_ref(number, **changes):
    return lambda content: content["refs"][number].update(changes)


def again(kind, number):
    def edit(content):
        entries = content[kind] if kind == "refs" else content["instances"][kind]
        entries.append(entries[number])

    return edit


def same_sentence(content):
    content["refs"][0]["sentences"][1]["sent_id"] = 10


WRONG = [
    (in_ref(0, ann_id=[71, -1]), r"grefs\(unc\)\.json: ref number 0: ann_id \[71, -1\].*data\.skip_refs=\[1\]"),
    (in_ref(0, no_target=True), r"ref number 0: ann_id \[71, 72\] and no_target True"),
    (in_ref(0, ann_id=[]), r"ref number 0: ann_id \[\] and no_target False"),
    (in_ref(0, ann_id=[81]), r"instances\.json: annotation 81 is of image 8, its ref 1 of image 7"),
    (again("refs", 0), r"grefs\(unc\)\.json: ref_id 1 appears twice.*data\.skip_refs=\[1\]"),
    (same_sentence, r"grefs\(unc\)\.json: ref 1: its sent_id are \[10, 10\], one of them twice"),
    (again("images", 0), r"instances\.json: images has two entries of id 7"),
    (again("annotations", 3), r"instances\.json: annotations has two entries of id 82"),
    (lambda content: content.update(refs={"refs": []}), r"grefs\(unc\)\.json: holds a dict; a list was expected"),
    (in_ref(0, ref_id=True), r"ref number 0: ref_id is a bool, True; it must be int"),
]


@pytest.mark.parametrize(("edit", "said"), WRONG, ids=[said[-30:] for _, said in WRONG])
def test_what_cannot_be_is_named(tmp_path, edit, said):
    with pytest.raises(ValueError, match=said):
        GRefCOCO(write_grefcoco(tmp_path, edit), "train")


def test_a_ref_that_is_skipped_may_be_wrong(tmp_path):
    root = write_grefcoco(tmp_path, again("refs", 1))
    assert [s.id for s in GRefCOCO(root, "train", "first", skip_refs=[2])] == ["grefcoco-unc-train-1-10"]


def test_a_missing_file_shows_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"grefs\(unc\)\.json: no such file.*gRefCOCO: grefcoco/grefs"):
        GRefCOCO(tmp_path)


def in_shape(**changes):
    return lambda content: content["instances"]["annotations"][0].update(changes)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            in_shape(segmentation=[[4, 8, 200, 8, 200, 40]]),
            r"a polygon reaches from \(4, 8\) to \(200, 40\), far outside",
        ),
        (in_shape(segmentation=[[-20, 8, 20, 8, 20, 40]]), "a polygon .* far outside its image of 64x48"),
        (in_shape(bbox=[4, 8, 20, 100]), r"bbox \[4, 8, 20, 100\] reaches .* to \(24, 108\), far outside"),
        (in_shape(bbox=[float("nan"), 8, 20, 10]), r"bbox \[nan, 8, 20, 10\] .* far outside"),
    ],
)
def test_what_lies_outside_its_image_is_an_error(tmp_path, edit, said):
    with pytest.raises(ValueError, match=rf"instances\.json: annotation 71 of ref 1: {said}"):
        GRefCOCO(write_grefcoco(tmp_path, edit), "train")[0]


def test_a_polygon_without_points_is_passed_over(tmp_path):
    root = write_grefcoco(tmp_path, in_shape(segmentation=[[], polygon(LEFT), [4, 8, 5, 9]]))
    assert GRefCOCO(root, "train")[2].mask == rle(LEFT)


def test_a_file_that_is_not_utf_8_is_named(tmp_path):
    root = write_grefcoco(tmp_path)
    (root / "grefcoco/instances.json").write_bytes(b'{"caf\xe9": 1}')
    with pytest.raises(ValueError, match=r"instances\.json: not complete JSON \(invalid unicode"):
        GRefCOCO(root)


def test_a_slip_over_the_border_is_clipped(tmp_path):
    edge = [[4.0, 8, 65, 8, 65, 49, 4, 49]]
    mask = GRefCOCO(write_grefcoco(tmp_path, in_shape(segmentation=edge)), "train")[2].mask
    assert mask == masks.from_box((4, 8, 64, 48), HEIGHT, WIDTH)


def test_images_of_val_and_test_are_known_to_every_split(tmp_path):
    assert GRefCOCO(write_grefcoco(tmp_path), "train").held_out == {8}
    assert GRefCOCO(tmp_path, "val").held_out == {8}
    assert [GRefCOCO(tmp_path, "train").image_id(i) for i in range(3)] == [7, 7, 7]


def test_only_coco_images_have_an_image_id(tmp_path):
    for name, of_coco in (("refcoco+", True), ("refclef", False), ("rrsisd", False)):
        data = Refer(write_refer(tmp_path / name, name), name)
        assert (data[0].image_id is not None, data.image_id(0) is not None, bool(data.held_out)) == (of_coco,) * 3


def test_rrsisd_has_its_boxes_from_the_masks(tmp_path):
    def xyxy(_, instances):
        for entry in instances["annotations"]:
            entry["bbox"] = [10, 20, 34, 40]

    data = Refer(write_refer(tmp_path, "rrsisd", edit=xyxy), "rrsisd")
    assert {s.targets[0].box for s in data} == {(10.0, 20.0, 34.0, 40.0)}


@pytest.mark.realdata
def test_real_annotations_in_grefcocos_layout(real_data, tmp_path):
    (tmp_path / "images/mscoco/images").mkdir(parents=True)
    (tmp_path / "images/mscoco/images/train2014").symlink_to(real_data / "coco128/images/train2017")
    (tmp_path / "grefcoco").symlink_to(real_data / "gref_mini/grefcoco")
    entries = json.loads((tmp_path / "grefcoco/grefs(unc).json").read_text())
    total = several = nothing = 0
    for split in ("train", "val", "testA", "testB"):
        data = GRefCOCO(tmp_path, split)
        check(data, opened=8)
        assert len(data) == sum(len(entry["sentences"]) for entry in entries if entry["split"] == split)
        refs = list(GRefCOCO(tmp_path, split, "first"))
        several += sum(len(s.targets) > 1 for s in refs)
        nothing += sum(not s.targets for s in refs)
        total += len(data)
    assert (total, several, nothing) == (543, 196, 128)


COUNTS = [  # refs and sentences of shared/facts/datasets.md, from printed counts and the published tables
    ("refcoco", "unc", "train", 42_404, 120_624),
    ("refcoco", "unc", "val", 3_811, 10_834),
    ("refcoco", "unc", "testA", 1_975, 5_657),
    ("refcoco", "unc", "testB", 1_810, 5_095),
    ("refcoco+", "unc", "train", 42_278, 120_191),
    ("refcoco+", "unc", "val", 3_805, 10_758),
    ("refcoco+", "unc", "testA", 1_975, 5_726),
    ("refcoco+", "unc", "testB", 1_798, 4_889),
    ("refcocog", "umd", "train", 42_226, 80_512),
    ("refcocog", "umd", "val", 2_573, 4_896),
    ("refcocog", "umd", "test", 5_023, 9_602),
]


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize(("name", "by", "split", "refs", "sentences"), COUNTS)
def test_full_files_have_the_published_counts(real_data, name, by, split, refs, sentences):
    if not (real_data / f"full/{name}/refs({by}).p").is_file():
        pytest.skip(f"{real_data}/full/{name} does not hold the official files")
    root = real_data / "full"
    assert len(Refer(root, name, by, split)) == sentences
    assert len(Refer(root, name, by, split, sentences="joined")) == refs


@pytest.mark.realdata
@pytest.mark.slow
def test_full_grefcoco_has_the_published_counts(real_data):
    if not (real_data / "full/grefcoco").is_dir():
        pytest.skip(f"{real_data}/full/grefcoco does not hold the official files")
    counts = {
        split: len(GRefCOCO(real_data / "full", split, sentences="joined"))
        for split in ("train", "val", "testA", "testB")
    }
    assert counts == {"train": 78_930, "val": 8_163, "testA": 6_266, "testB": 4_618}
    assert len(GRefCOCO(real_data / "full", "train")) == 209_344


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "options", "count"),
    [
        ("reasonseg.ReasonSeg", {"split": "train"}, 239),
        ("reasonseg.ReasonSeg", {"split": "val"}, 200),
        ("reasonseg.ReasonSeg", {"split": "test"}, 779),
        ("refcoco_m.RefCOCOM", {}, 5_598),
        ("refcoco_m.RefCOCOM", {"sentences": "joined"}, 2_080),
    ],
)
def test_other_full_files_have_the_published_counts(real_data, dataset, options, count):
    try:
        data = locate(f"segmentation.data.{dataset}", "data")(real_data / "full", **options)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert len(data) == count


def test_masks_of_both_objects_do_not_overlap(tmp_path):
    mask = GRefCOCO(write_grefcoco(tmp_path), "train")[0].mask
    assert mask is not None
    drawn = masks.decode(mask)
    assert np.array_equal(drawn, masks.decode(rle(LEFT)) | masks.decode(rle(RIGHT)))

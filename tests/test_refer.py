import csv
import gc
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmentation import boxes, masks
from segmentation.data import safe_pickle
from segmentation.data.check import check
from segmentation.data.export import export
from segmentation.data.expressions import Expressions
from segmentation.data.instances import Instances
from segmentation.data.jsonl import Jsonl
from segmentation.data.refer import DATASETS, Refer
from segmentation.data.refs import Ref
from segmentation.sample import BrokenImage, open_image
from tests.bench.bench_data import WORK, measure, write_full_size

HEIGHT, WIDTH = 48, 64
BOX = (10.0, 20.0, 34.0, 40.0)  # every object fills it
POLYGON = [[10, 20, 34, 20, 34, 40, 10, 40]]
RLE = masks.from_box(BOX, HEIGHT, WIDTH)
RUNS = {"size": [HEIGHT, WIDTH], "counts": [10 * 48 + 20, *([20, 28] * 23), 20, 30 * 48 + 8]}
HALVES = [masks.from_box(box, HEIGHT, WIDTH) for box in ([10, 20, 34, 30], [10, 30, 34, 40])]
SEGMENTATIONS = [POLYGON, RLE, RUNS, HALVES, [RLE]]


def write_refer(
    root: Path,
    name: str = "refcoco",
    split_by: str = "unc",
    edit: Callable[[list, dict], None] = lambda refs, inst: None,
) -> Path:
    """A small dataset in the official layout: 5 images with an object each, every mask written differently.

    Each object has a ref with two sentences in each of val, train and testA. `edit` changes refs and instances first.
    """
    images = root / DATASETS[name].images
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    instances: dict = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cup"}]}
    refs, numbers = [], count(1)
    for i, segmentation in enumerate(SEGMENTATIONS):
        file_name = f"COCO_train2014_{i:012d}.jpg"
        Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(images / file_name)
        instances["images"].append({"id": 100 + i, "file_name": file_name, "height": HEIGHT, "width": WIDTH})
        instances["annotations"].append(
            {
                "id": 200 + i,
                "image_id": 100 + i,
                "category_id": 3,
                "bbox": [10, 20, 24, 20],
                "segmentation": segmentation,
            }
        )
        for split in ("val", "train", "testA"):
            number = next(numbers)
            sentences = [
                {"sent_id": 10 * number + k, "sent": text, "raw": text.upper(), "tokens": text.split()}
                for k, text in enumerate(["the cup", f"cup number {i}"])
            ]
            ids = {"ref_id": number, "ann_id": 200 + i, "image_id": 100 + i, "category_id": 3}
            refs.append({**ids, "split": split, "file_name": f"{file_name[:-4]}_{number}.jpg", "sentences": sentences})
    edit(refs, instances)
    (root / name).mkdir()
    (root / name / f"refs({split_by}).p").write_bytes(pickle.dumps(refs, 2))
    (root / name / "instances.json").write_text(json.dumps(instances))
    return root


def test_every_sentence_is_a_sample(tmp_path):
    data = Refer(write_refer(tmp_path), split="val")
    assert len(data) == 10
    assert [s.id for s in data[:3]] == ["refcoco-unc-val-1-10", "refcoco-unc-val-1-11", "refcoco-unc-val-4-40"]
    assert [s.expression for s in data[:2]] == ["the cup", "cup number 0"]
    assert data[-1].id == list(data)[-1].id == "refcoco-unc-val-13-131"
    assert len({s.id for s in data}) == 10
    first = data[0]
    assert (first.dataset, first.split, first.image_id) == ("refcoco", "val", 100)
    assert (first.height, first.width) == open_image(first).size[::-1] == (HEIGHT, WIDTH)
    assert (first.targets[0].box, first.targets[0].label) == (BOX, "cup")
    with pytest.raises(IndexError):
        data[10]


def test_joined_gives_a_sample_for_each_ref(tmp_path):
    data = Refer(write_refer(tmp_path), split="val", sentences="joined")
    assert [s.id for s in data] == [f"refcoco-unc-val-{number}" for number in (1, 4, 7, 10, 13)]
    assert data[0].expression == "the cup; cup number 0"


def test_polygons_and_every_form_of_rle_are_the_same_mask(tmp_path):
    filled = np.zeros((HEIGHT, WIDTH), bool)
    filled[20:40, 10:34] = True
    data = Refer(write_refer(tmp_path), split="val", sentences="joined")
    assert len(data) == len(SEGMENTATIONS)
    for sample in data:
        assert sample.mask is not None and np.array_equal(masks.decode(sample.mask), filled)


def test_a_split_name_matches_what_the_refer_api_matches(tmp_path):
    def splits(refs, _):
        for ref, split in zip(refs, ["train", "val", "testA", "testB", "testAB", "testBC", "testC"], strict=False):
            ref["split"] = split
        del refs[7:]

    root = write_refer(tmp_path, "refclef", edit=splits)
    own = {
        split: sorted({sample.split for sample in Refer(root, "refclef", split=split)})
        for split in ("train", "val", "test", "testA", "testB", "testC", "testAB")
    }
    assert own == {
        "train": ["train"],
        "val": ["val"],
        "test": ["testA", "testAB", "testB", "testBC", "testC"],
        "testA": ["testA", "testAB"],
        "testB": ["testAB", "testB", "testBC"],
        "testC": ["testBC", "testC"],
        "testAB": ["testAB"],
    }
    assert {s.id for s in Refer(root, "refclef", split="testA")} < {s.id for s in Refer(root, "refclef", split="test")}


@pytest.mark.parametrize(
    ("name", "split_by"), [(name, split_by) for name, layout in DATASETS.items() for split_by in layout.splitters]
)
def test_every_dataset_is_found_where_the_refer_api_puts_it(tmp_path, name, split_by):
    data = Refer(write_refer(tmp_path, name, split_by), name, split_by, "train")
    check(data)
    folder = {"refclef": "saiapr_tc-12", "rrsisd": "rrsisd/JPEGImages"}.get(name, "mscoco/images/train2014")
    assert data[0].image == tmp_path / "images" / folder / "COCO_train2014_000000000000.jpg"
    assert data[0].id == f"{name}-{split_by}-train-2-20"


def test_a_picture_of_rrsisd_is_brought_to_its_annotated_size(tmp_path):
    data = Refer(write_refer(tmp_path, "rrsisd"), "rrsisd", split="train")
    assert isinstance(data[0].image, Path)
    with Image.open(data[0].image) as picture:
        larger = picture.resize((WIDTH, HEIGHT + 1))
    larger.save(data[0].image)
    check(data)
    assert open_image(data[0]).size == (WIDTH, HEIGHT)
    export(data, tmp_path / "rrsisd.jsonl", tmp_path)
    again = Jsonl(tmp_path, "rrsisd.jsonl")
    check(again)
    assert [again[0].targets, again[0].height] == [data[0].targets, HEIGHT]
    with pytest.raises(BrokenImage, match="its annotation says"):
        open_image(replace(data[0], resized=False))


def test_refcocog_is_split_by_umd_unless_told(tmp_path):
    assert Refer(write_refer(tmp_path, "refcocog", "umd"), "refcocog")[0].id.startswith("refcocog-umd-val")


def test_refs_can_be_left_out(tmp_path):
    data = Refer(write_refer(tmp_path), split="val", sentences="joined", skip_refs=[1, 13])
    assert [s.id for s in data] == [f"refcoco-unc-val-{number}" for number in (4, 7, 10)]


def test_a_ref_may_mean_several_objects_or_none(tmp_path):
    def share_an_image(_, instances):
        instances["annotations"][1]["image_id"] = 100

    root = write_refer(tmp_path, edit=share_an_image)
    refs = [Ref(1, "val", 100, (200, 201), ((5, "both cups"),)), Ref(2, "val", 100, (), ((6, "the dog"),))]
    instances = Instances(root / "refcoco/instances.json", root / DATASETS["refcoco"].images, refs)
    both, none = Expressions("grefcoco", "grefcoco-unc", refs, instances, "each")
    assert len(both.targets) == 2 and both.id == "grefcoco-unc-val-1-5"
    assert none.targets == () and none.mask == masks.empty(HEIGHT, WIDTH)


def test_neither_images_nor_other_splits_annotations_are_read_on_loading(tmp_path):
    def no_train_annotation(refs, instances):
        refs[1]["ann_id"] = 999

    root = write_refer(tmp_path, edit=no_train_annotation)
    for image in root.glob("images/**/*.jpg"):
        image.unlink()
    assert len(Refer(root, split="val")) == len(list(Refer(root, split="val")))
    with pytest.raises(ValueError, match="999"):
        Refer(root, split="train")


def test_the_garbage_collector_is_left_as_it_was(tmp_path):
    root = write_refer(tmp_path)
    gc.disable()
    Refer(root)
    assert not gc.isenabled()
    gc.enable()
    Refer(root)
    assert gc.isenabled()


WRONG_ARGUMENTS = [
    ({"name": "refcoc"}, ValueError, r"data\.name='refcoc' .*refcoco, refcoco\+, refcocog, refclef, rrsisd"),
    ({"split_by": "umd"}, ValueError, r"data\.split_by='umd'.*unc or google"),
    ({"split": "vall"}, ValueError, r"data\.split='vall'.*val \(5 refs\), train \(5 refs\), testA \(5 refs\)"),
    ({"split": "testB"}, ValueError, r"data\.split='testB'.*has no ref of it"),
    ({"split": ""}, ValueError, r"data\.split=''"),
    ({"sentences": "all"}, ValueError, r"data\.sentences='all'.*'each', 'first' or 'joined'"),
    ({"name": "refcoco+"}, FileNotFoundError, r"refcoco\+/refs\(unc\)\.p: no such file.*refcoco\+/instances\.json"),
    ({"split_by": "google"}, FileNotFoundError, r"refs\(google\)\.p: no such file.*images/mscoco/images/train2014"),
]


@pytest.mark.parametrize(("arguments", "error", "said"), WRONG_ARGUMENTS, ids=lambda value: str(value)[:30])
def test_a_wrong_argument_is_an_error_that_names_a_right_one(tmp_path, arguments, error, said):
    with pytest.raises(error, match=said):
        Refer(write_refer(tmp_path), **arguments)


def test_a_missing_root_is_an_error_that_shows_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.root=.*nowhere needs the layout .*refcoco/refs\(unc\)\.p"):
        Refer(tmp_path / "nowhere")


def set_in(where: str, key: str, value: object):
    """An edit of the first ref, image or annotation; without `value` (...) the field goes."""

    def edit(refs, instances):
        entry = refs[0] if where == "refs" else instances[where][0]
        if value is ...:
            del entry[key]
        else:
            entry[key] = value

    return edit


FILE = r"refcoco/instances\.json: "
LOADING = [
    (set_in("refs", "ann_id", 999), FILE + "annotations has no entry 999, an object of ref 1"),
    (set_in("refs", "image_id", 999), FILE + "images has no entry 999, the image of ref 1"),
    (set_in("refs", "image_id", 101), FILE + r"annotation 200 is of image 100, its ref 1 of image 101"),
    (set_in("refs", "sentences", ...), r"refs\(unc\)\.p: ref number 0: has no field 'sentences'"),
    (set_in("refs", "ref_id", "1"), r"refs\(unc\)\.p: ref number 0: ref_id is a str"),
    (set_in("refs", "sentences", [3]), r"refs\(unc\)\.p: ref number 0: .*int"),
    (lambda refs, _: refs.insert(0, "ref"), r"refs\(unc\)\.p: ref number 0: "),
    (lambda refs, _: refs.clear(), r"data\.split='val'.*no refs at all"),
    (lambda _, instances: instances.pop("annotations"), FILE + "has no field 'annotations'"),
    (set_in("images", "height", ...), FILE + "image 100: has no field 'height'"),
    (set_in("images", "file_name", "../../../secret.jpg"), FILE + r"image 100: file_name '\.\./.* leads out of"),
    (set_in("images", "file_name", "a/../../secret.jpg"), "leads out of"),
    (set_in("images", "file_name", "/etc/passwd"), "leads out of"),
    (set_in("images", "file_name", "a\0.jpg"), "leads out of"),
    (set_in("images", "file_name", ""), "leads out of"),
]


@pytest.mark.parametrize(("edit", "said"), LOADING, ids=[said[-40:] for _, said in LOADING])
def test_files_that_do_not_agree_are_an_error_on_loading(tmp_path, edit, said):
    with pytest.raises(ValueError, match=said):
        Refer(write_refer(tmp_path, edit=edit))


def rle(**changes: object) -> dict:
    return {**RUNS, **changes}


SAMPLES = [
    (rle(size=[24, 128]), r"the mask is \[24, 128\] high and wide, its image \[48, 64\]"),
    ([rle(size=[96, 64])], r"the mask is \[96, 64\]"),
    (masks.from_box(BOX, 40, 64), r"the mask is \[40, 64\]"),
    (rle(counts=[10, 20]), "runs cover 30 of the 3072 pixels"),
    (rle(counts=[10, -20, 3082]), "a run of -20 pixels"),
    (rle(counts=RLE["counts"] + "P"), "counts are cut short"),
    (rle(counts=RLE["counts"] + "\n"), r"the character '\\n'"),
    (rle(counts=RLE["counts"][:-3]), r"runs cover \d+ of the 3072 pixels"),
    ({"size": [HEIGHT, WIDTH]}, r"a mask is \{'size': .*, not \{'size'"),
    (masks.empty(HEIGHT, WIDTH), "segmentation encloses no pixel"),
    ([[1, 1, 1.2, 1.2, 1.1, 1]], "segmentation encloses no pixel"),
    ([[1, 1, 2, 2]], "no polygon has 3 points"),
    ([[1, 1, 2, 2, 3, 3, 4]], "odd number of coordinates"),
    ([[1, 1, 2, float("nan"), 3, 3]], "not a number"),
    ([[1, 1, 2, 1e12, 3, 3]], "far outside"),
    ([], "neither polygons nor RLE but a list of nothing"),
    ([POLYGON[0], RLE], "neither polygons nor RLE but a list of dict and list"),
    (None, "neither polygons nor RLE but a list of NoneType"),
]


@pytest.mark.parametrize(("segmentation", "said"), SAMPLES, ids=[said[-40:] for _, said in SAMPLES])
def test_a_mask_that_cannot_be_is_an_error_that_names_its_annotation(tmp_path, segmentation, said):
    data = Refer(write_refer(tmp_path, edit=set_in("annotations", "segmentation", segmentation)))
    with pytest.raises(ValueError, match=rf"{FILE}annotation 200 of ref 1: .*({said})"):
        data[0]
    with pytest.raises(ValueError, match="2 of 10 samples cannot be used"):
        check(data)


@pytest.mark.parametrize("bbox", [[10, 20, 0, 5], [10, 20, 5, float("nan")], [1, 2, 3], None, ["a"] * 4])
def test_a_box_without_area_is_an_error_that_names_its_annotation(tmp_path, bbox):
    data = Refer(write_refer(tmp_path, edit=set_in("annotations", "bbox", bbox)))
    with pytest.raises(ValueError, match="annotation 200 of ref 1: "):
        data[0]


def test_an_unknown_category_leaves_the_label_out(tmp_path):
    assert Refer(write_refer(tmp_path, edit=set_in("annotations", "category_id", 77)))[0].targets[0].label is None


def test_damaged_files_are_named(tmp_path):
    root = write_refer(tmp_path)
    instances, refs = root / "refcoco/instances.json", root / "refcoco/refs(unc).p"
    whole = instances.read_bytes()
    instances.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"instances\.json: not complete JSON"):
        Refer(root)
    instances.write_bytes(whole)
    refs.write_bytes(pickle.dumps({"refs": []}))
    with pytest.raises(ValueError, match="holds a dict; a list of refs was expected"):
        Refer(root)
    refs.write_bytes(pickle.dumps([print]))
    with pytest.raises(safe_pickle.UnsafePickle, match=r"builtins\.print"):
        Refer(root)


@pytest.mark.realdata
@pytest.mark.parametrize("split", ["val", "testA", "testB"])
def test_real_expressions_are_all_there_with_their_published_boxes(real_data, split):
    data = Refer(real_data / "refer_mini", split=split)
    with open(real_data / f"refcoco_csv/refcoco_unc_{split}.csv") as file:
        published = {(int(row["ref_id"]), int(row["sent_id"])): row for row in csv.DictReader(file)}
    raw = safe_pickle.load(real_data / "refer_mini/refcoco/refs(unc).p")
    assert len(data) == sum(len(ref["sentences"]) for ref in raw if ref["split"] == split) > 0
    unmatched = 0
    for sample in data:
        ref_id = int(sample.id.split("-")[3])
        rows = [row for (ref, _), row in published.items() if ref == ref_id]
        unmatched += not any(row["sent"] == sample.expression for row in rows)
        x, y, width, height = json.loads(rows[0]["bbox"])
        assert sample.targets[0].box == pytest.approx((x, y, x + width, y + height), abs=0.01)
        assert sample.image_id == int(rows[0]["img_id"])
    assert unmatched == 0


@pytest.mark.realdata
def test_real_masks_fill_their_boxes_and_real_images_open(real_data):
    root = real_data / "refer_mini"
    assert sum(len(Refer(root, split=split)) for split in ("val", "testA", "testB")) == 190
    assert len(Refer(root, split="test")) == 89
    agreement = []
    for split in ("val", "test"):
        data = Refer(root, split=split, sentences="joined")
        check(data, opened=len(data))
        for sample in data:
            assert sample.mask is not None
            mask_box = masks.box(sample.mask)
            assert mask_box is not None
            agreement.append(boxes.iou_matrix([sample.targets[0].box], [mask_box])[0, 0])
    assert len(agreement) == 67
    assert min(agreement) > 0.9 and np.mean(agreement) > 0.98


@pytest.mark.slow
def test_files_of_refcocos_true_size_load_in_ten_seconds_and_two_gigabytes(tmp_path):
    write_full_size(tmp_path)
    samples, seconds, mebibytes = measure(tmp_path, WORK["RefCOCO: files to a dataset"])
    assert samples == 142_210
    assert seconds <= 10 and mebibytes < 2 * 2**10, (seconds, mebibytes)

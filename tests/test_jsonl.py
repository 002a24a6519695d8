import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from segmentation import masks
from segmentation.data.check import check
from segmentation.data.export import export
from segmentation.data.export import main as export_main
from segmentation.data.grefcoco import GRefCOCO
from segmentation.data.jsonl import Jsonl
from segmentation.data.reasonseg import ReasonSeg
from segmentation.data.scenes import Scenes
from segmentation.sample import BrokenImage, Sample, Target, open_image
from tests.official import HEIGHT, LEFT, WIDTH, photo, rle, write_grefcoco, write_reasonseg

ROOT = Path(__file__).parents[1]


def same(first: Sample, second: Sample) -> None:
    assert (first.id, first.expression, first.targets, first.ignore, first.image_id, first.dataset, first.split) == (
        second.id,
        second.expression,
        second.targets,
        second.ignore,
        second.image_id,
        second.dataset,
        second.split,
    )
    assert open_image(first).tobytes() == open_image(second).tobytes()


@pytest.mark.parametrize("kind", ["grefcoco", "reasonseg"])
def test_what_is_exported_comes_back(tmp_path, kind):
    if kind == "grefcoco":
        data = GRefCOCO(write_grefcoco(tmp_path), "val", crowd="ignore")
    else:
        data = ReasonSeg(write_reasonseg(tmp_path), sentences="each")
    assert export(data, tmp_path / "out.jsonl", tmp_path) == len(data)
    back = Jsonl(tmp_path, "out.jsonl")
    assert len(back) == len(data)
    for first, second in zip(data, back, strict=True):
        same(first, second)
        assert first.image == second.image
    assert [back.image_id(i) for i in range(len(back))] == [s.image_id for s in data]
    check(back)


def test_pictures_in_memory_are_saved_once_beside_the_output(tmp_path):
    scenes = Scenes("val", length=3)
    twice = [*scenes, scenes[0]]
    with pytest.raises(ValueError, match=r"line 4: id 'scenes-val-0-0-.*' is also that of line 1"):
        export(twice, tmp_path / "out.jsonl", tmp_path)
        Jsonl(tmp_path, "out.jsonl")
    assert len(list((tmp_path / "out_images").iterdir())) == 3
    export(scenes, tmp_path / "out.jsonl", tmp_path)
    for first, second in zip(scenes, Jsonl(tmp_path, "out.jsonl"), strict=True):
        same(first, second)


def test_an_image_outside_the_root_is_an_error_and_leaves_no_file(tmp_path):
    data = GRefCOCO(write_grefcoco(tmp_path / "a"), "val")
    with pytest.raises(ValueError, match=r"000000000008\.jpg \(sample .*\) does not lie in root=.*/b"):
        export(data, tmp_path / "out.jsonl", tmp_path / "b")
    assert not (tmp_path / "out.jsonl").exists()


def test_the_command_writes_any_configured_dataset(tmp_path, capsys):
    write_grefcoco(tmp_path)
    export_main(["data=grefcoco", f"data.root={tmp_path}", "data.split=val", f"output={tmp_path}/gref.jsonl"])
    assert capsys.readouterr().out == f"2 samples in {tmp_path}/gref.jsonl\n"
    assert [s.id for s in Jsonl(tmp_path, "gref.jsonl")] == [s.id for s in GRefCOCO(tmp_path, "val")]
    export_main(["benchmark=scenes_val", "benchmark.length=2", f"output={tmp_path}/scenes.jsonl"])
    assert len(Jsonl(tmp_path, "scenes.jsonl")) == 2
    parts = ["~data.parts.refcoco", "~data.parts.refcoco_plus", "~data.parts.refcocog", "data.length=3"]
    export_main(["data=mixture", f"data.root={tmp_path}", *parts, f"output={tmp_path}/mixed.jsonl"])
    assert len(Jsonl(tmp_path, "mixed.jsonl")) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data=grefcoco"], "usage: python -m segmentation.data.export"),
        (["output=x"], "usage:"),
        (["data=scenes", "benchmark=scenes_val", "output=x"], "usage:"),
        (["data=grefcoco", "output=x"], r"data\.root: no value; give one: data\.root="),
        (["data=grefcoc", "output=x"], "nearest valid one is .grefcoco"),
        (["data=grefcoco", "data.root=/nowhere", "output=x"], r"grefs\(unc\)\.json: no such file"),
        (["data=scenes", "data.split=dev", "output=x"], r"data\.split='dev'"),
        (["data=scenes", "data.spilt=val", "output=x"], r"nearest valid one is .data\.split"),
    ],
)
def test_a_wrong_command_is_explained(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        export_main(arguments)
    assert end.value.code == 2 and re.search(said, capsys.readouterr().err)


def test_the_module_runs_without_torch(tmp_path):
    code = "import sys; import segmentation.data.export, segmentation.data.check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    done = subprocess.run([sys.executable, "-m", "segmentation.data.export"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage:")


def line(**changes) -> dict:
    target = {"box": list(LEFT), "mask": rle(LEFT), "label": "cup"}
    entry = {"id": "a", "image": "a.png", "height": HEIGHT, "width": WIDTH, "expression": "cup", "targets": [target]}
    return {key: value for key, value in {**entry, **changes}.items() if value is not ...}


def written(root: Path, *lines: object) -> Path:
    photo(root / "a.png")
    (root / "x.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return root


def test_a_line_needs_no_more_than_it_says(tmp_path):
    boxes_only = line(id="b", targets=[{"box": list(LEFT)}])
    data = Jsonl(written(tmp_path, line(), boxes_only, line(id="c", targets=[])), "x.jsonl")
    assert [s.targets for s in data] == [(Target(LEFT, rle(LEFT), "cup"),), (Target(LEFT),), ()]
    assert data[0].mask == rle(LEFT) and data[1].mask is None and data[0].dataset == ""


def turned(path: Path) -> bytes:
    """A photo stored lying on its side; its pixels as a viewer shows them."""
    upright = Image.open(photo(path))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    return upright.tobytes()


def test_pictures_are_upright_unless_pixels_are_meant_as_stored(tmp_path):
    root = written(tmp_path, line())
    shown = turned(root / "a.png")
    assert open_image(Jsonl(root, "x.jsonl")[0]).tobytes() == shown
    with pytest.raises(BrokenImage, match=f"the image is {HEIGHT}x{WIDTH}, its annotation says {WIDTH}x{HEIGHT}"):
        open_image(Jsonl(root, "x.jsonl", upright=False)[0])
    lying = line(height=WIDTH, width=HEIGHT, targets=[])
    (root / "x.jsonl").write_text(json.dumps(lying))
    assert open_image(Jsonl(root, "x.jsonl", upright=False)[0]).size == (HEIGHT, WIDTH)
    with pytest.raises(BrokenImage, match=r"Its EXIF turns it; .*upright=false"):
        open_image(Jsonl(root, "x.jsonl")[0])


def test_an_export_keeps_pixels_as_its_dataset_reads_them(tmp_path):
    turned(tmp_path / "a.png")
    stored = Sample("a", tmp_path / "a.png", WIDTH, HEIGHT, "cup")
    export([stored], tmp_path / "x.jsonl", tmp_path)
    (back,) = Jsonl(tmp_path, "x.jsonl")
    assert back.image != stored.image and open_image(back).tobytes() == open_image(stored).tobytes()


def test_a_split_of_a_file_and_what_it_holds_out(tmp_path):
    lines = [line(id=f"{n}", split=split, image_id=n) for n, split in enumerate(["train", "val", "testA", "train"])]
    root = written(tmp_path, *lines, line(id="x", image_id=4), line(id="y", split="val"))
    train = Jsonl(root, "x.jsonl", "train")
    assert (
        [s.id for s in train] == ["0", "3"] and {1, 2} < train.held_out and len(train.held_out) == 3
    )  # "y" by its file
    assert [train.image_id(i) for i in (0, 1)] == [0, 3]
    everything = Jsonl(root, "x.jsonl")
    assert len(everything) == 6 and everything.image_id(5) is None
    with pytest.raises(
        ValueError, match=r"data\.split='test': .*x\.jsonl has no line of it; it has , testA, train, val"
    ):
        Jsonl(root, "x.jsonl", "test")


def test_blank_lines_are_passed_over_and_errors_still_count_them(tmp_path):
    root = written(tmp_path, line(), line(id="b", height=0))
    path = root / "x.jsonl"
    path.write_text("\n" + path.read_text())
    with pytest.raises(ValueError, match=r"x\.jsonl: line 3: height 0"):
        Jsonl(root, "x.jsonl")


LOADING = [
    ([], "holds a list; an object was expected"),
    (line(image=...), "has no field 'image'"),
    (line(height="48"), "height is a str, '48'; it must be int"),
    (line(targets={}), "targets is a dict"),
    (line(image_id="7"), "image_id is a str"),
    (line(expresion="x"), "'expresion' is no field of a sample; they are dataset, expression"),
]
SAMPLES = [
    (line(image="../a.png"), "leads out of"),
    (line(targets=[{"box": [1, 2, 1, 3]}]), "has no area"),
    (line(targets=[{"box": [1, 2, float("inf"), 3]}]), "has no area"),
    (line(targets=[{"box": [1, 2, 300, 3]}]), "far outside"),
    (line(targets=[{"mask": rle(LEFT)}]), "has no field 'box'"),
    (line(targets=[{"box": [1, 2, 3, 4], "labels": "x"}]), "'labels' is no field of a target"),
    (line(targets=[{"box": [1, 2, 3, 4], "mask": masks.empty(HEIGHT, WIDTH)}]), "mask encloses no pixel"),
    (line(targets=[{"box": [1, 2, 3, 4], "mask": masks.empty(4, 4)}]), r"the mask is \[4, 4\]"),
    (line(ignore=masks.empty(4, 4)), r"the mask is \[4, 4\]"),
]


@pytest.mark.parametrize(("wrong", "said"), LOADING, ids=[said[-30:] for _, said in LOADING])
def test_a_line_that_is_no_sample_is_named_on_loading(tmp_path, wrong, said):
    with pytest.raises(ValueError, match=rf"x\.jsonl: line 2: .*{said}"):
        Jsonl(written(tmp_path, line(id="0"), wrong), "x.jsonl")


@pytest.mark.parametrize(("wrong", "said"), SAMPLES, ids=[said[-30:] for _, said in SAMPLES])
def test_a_region_that_cannot_be_is_named(tmp_path, wrong, said):
    with pytest.raises(ValueError, match=rf"x\.jsonl: line 1: .*{said}"):
        Jsonl(written(tmp_path, wrong), "x.jsonl")[0]


def test_a_damaged_or_missing_file_is_named(tmp_path):
    (written(tmp_path, line()) / "x.jsonl").write_text('{"id": ')
    with pytest.raises(ValueError, match=r"x\.jsonl: line 1: not complete JSON"):
        Jsonl(tmp_path, "x.jsonl")
    with pytest.raises(FileNotFoundError, match=r"y\.jsonl: no such file"):
        Jsonl(tmp_path, "y.jsonl")
    with pytest.raises(ValueError, match="leads out of"):
        Jsonl(tmp_path, "/etc/passwd")
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png")

"""evaluation/predict.py: what it is asked, what it answers, what it writes, and what it never overwrites."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import ConfigError
from configs.entry import _quoted
from evaluation import predict
from evaluation.jobs import RESULTS, due, make_jobs
from rollouts.rows import question
from segmentation import masks
from segmentation.panels import PREDICTED
from segmentation.sample import BrokenImage
from tests.runs import ROOT, environment
from tests.taught import some_scenes
from tests.test_overlay import count


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """The scenes that the policy knows, a file that is cut short, and asked.csv about all of them and a missing one."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for number, scene in enumerate(some_scenes()):
        assert isinstance(scene.image, Image.Image)
        scene.image.save(folder / f"photo{number}.png")
        rows.append((f"photo{number}.png", scene.expression))
    (folder / "cut.png").write_bytes((folder / "photo0.png").read_bytes()[:200])
    with (folder / "asked.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("image", "expression"), ("cut.png", "it"), rows[0], ("gone.png", "it"), rows[1], rows[2]]
        )
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """predict.py in this process, which has imported what takes so long; its exit status."""
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments)])
    try:
        predict.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def test_a_batch_with_broken_pictures(photos, taught, tmp_path):
    command = [sys.executable, "evaluation/predict.py", f"model.path={taught}", f"batch={photos}/asked.csv"]
    done = subprocess.run(
        [*command, f"output_dir={tmp_path}", "batch_size=2", "max_tokens=64"],
        cwd=ROOT,
        env=environment(),
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1, done.stderr
    assert "2 of 5 pictures could not be read" in done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert all(any(line.startswith(f"{photos}/{name}") for line in lines) for name in ("cut.png", "gone.png"))
    for number, (scene, said) in enumerate(zip(some_scenes(), ("found", "found", "no_target"), strict=True)):
        (file,) = tmp_path.glob(f"photo{number}--*.json")
        answer = json.loads(file.read_text())
        assert (answer["state"], answer["expression"]) == (said, scene.expression)
        assert len(answer["boxes"]) == len(scene.targets)
        for box, target in zip(answer["boxes"], sorted(target.box for target in scene.targets), strict=True):
            assert box == pytest.approx(target, abs=2)
        painted = np.asarray(Image.open(tmp_path / answer["mask_file"]))
        assert painted.shape == (64, 64) and set(np.unique(painted)) <= {0, 255}
        assert (painted > 0).sum() == masks.area(answer["mask"])
        assert (masks.decode(answer["mask"]) == (painted > 0)).all()
        assert (count(tmp_path / answer["overlay_file"], PREDICTED) > 1000) == bool(scene.targets)
        assert any(line.startswith(f"{photos}/photo{number}.png") and said.replace("_", " ") in line for line in lines)
    assert len([*tmp_path.glob("*.overlay.png")]) == 3


def test_results_are_replaced_and_kept_only_when_asked(photos, taught, tmp_path, monkeypatch, capsys):
    asked = [f"model.path={taught}", f"image={photos}/photo[01].png", "expression=the man's hat, left", "max_tokens=12"]
    assert run(monkeypatch, *asked, f"output_dir={tmp_path}") == 0
    first = tmp_path / "photo0--the-man-s-hat-left.json"
    assert json.loads(first.read_text())["expression"] == "the man's hat, left"
    wanted = first.read_bytes()
    first.write_text(json.dumps(json.loads(wanted) | {"text": "mine"}))
    (tmp_path / "photo1--the-man-s-hat-left.json").unlink()
    capsys.readouterr()
    assert run(monkeypatch, *asked, f"output_dir={tmp_path}") == 2
    told = capsys.readouterr().err
    assert "photo0--the-man-s-hat-left.json" in told and "existing=replace" in told
    assert run(monkeypatch, *asked, f"output_dir={tmp_path}", "existing=keep") == 0
    assert json.loads(first.read_text())["text"] == "mine"
    assert (tmp_path / "photo1--the-man-s-hat-left.json").exists()
    first.write_text(json.dumps(json.loads(wanted) | {"expression": "the man's hat (left)"}))
    capsys.readouterr()
    assert run(monkeypatch, *asked, f"output_dir={tmp_path}", "existing=keep") == 2
    assert 'is of "the man\'s hat (left)" about' in capsys.readouterr().err
    stale = tmp_path / "photo0--the-man-s-hat-left.mask.png"
    stale.write_bytes(b"old")
    assert run(monkeypatch, *asked, f"output_dir={tmp_path}", "existing=replace") == 0
    assert first.read_bytes() == wanted
    assert not stale.exists() or stale.read_bytes() != b"old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image=nowhere.jpg", "expression=it"], "image=nowhere.jpg: no such file or folder"),
        (["image=nowhere.jpg"], "image, expression: no value"),
        (["expression=it"], "image, expression: no value"),
        (["image=tests", "expression=it"], "image=tests: no picture in this folder"),
        (["image=rl/pictures", "expression="], "expression: empty"),
        (["batch=nowhere.csv"], "batch=nowhere.csv: no such file"),
        (["batch=nowhere.txt"], "it is a .csv or a .jsonl"),
        (["batch=nowhere.csv", "expression=it"], "give it alone"),
        (["image=rl/pictures", "expression=it", "existing=kep"], "the nearest valid one is 'keep'"),
        (["image=rl/pictures", "expression=it", "model.path=outputs/nowhere"], "model.path=outputs/nowhere: no such"),
        (["image=rl/pictures", "expression=it", "engine=vlm"], "the nearest valid one is 'vllm'"),
        (["image=rl/pictures", "expression=it", "format=bricks"], "its vocabulary lacks"),
    ],
)
def test_what_cannot_be_done_is_said_before_a_model_is_loaded(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert run(monkeypatch, *arguments, f"output_dir={tmp_path / 'out'}") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "image,text\nx.png,it\n", "its first line names no column expression"),
        ("a.csv", "image,expression\nx.png,it\nx.png,\n", r"line 3: expression is ''"),
        ("a.csv", "image,expression\n", "no line in it"),
        ("a.jsonl", '{"image": "x.png", "expression": "it"}\n\n{"image": 3}\n', "line 3: image is 3"),
        ("a.jsonl", '{"image": "x.png",\n', "line 1: not JSON"),
        ("a.jsonl", "[]\n", "line 1: a list; an object"),
    ],
)
def test_a_broken_batch_names_its_line(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        make_jobs(None, None, str(tmp_path / name))


def test_names_differ_and_fit_file_systems(tmp_path):
    lines = [("a/x.png", "It!"), ("b/x.png", "it"), ("a/x.png", "人" * 200), ("y" * 240 + ".png", "../..")]
    text = "".join(json.dumps({"image": image, "expression": asked}) + "\n" for image, asked in lines)
    (tmp_path / "asked.jsonl").write_text(text)
    jobs = make_jobs(None, None, str(tmp_path / "asked.jsonl"))
    assert [job.image for job in jobs] == [tmp_path / image for image, _ in lines]
    assert jobs[0].name == "x--it" and jobs[1].name == "x--it-2"
    assert all(len(f"{job.name}{end}".encode()) < 255 and "/" not in job.name for job in jobs for end in RESULTS)
    (tmp_path / "x--it-2.overlay.png").touch()
    with pytest.raises(ConfigError, match=r"x--it-2\.overlay\.png is already there"):
        due(jobs, tmp_path, "stop")
    (tmp_path / "x--it.json").write_text(json.dumps({"image": str(tmp_path / "a/x.png"), "expression": "It!"}))
    assert due(jobs, tmp_path, "keep") == jobs[1:]
    (tmp_path / "x--it.json").write_text("{")
    with pytest.raises(ConfigError, match=r"x--it\.json is no result of predict\.py"):
        due(jobs, tmp_path, "keep")


def test_a_picture_is_turned_upright_and_a_text_file_is_none(tmp_path):
    picture, turned = Image.new("RGB", (40, 20), "red"), Image.Exif()
    picture.paste("blue", (0, 0, 10, 20))
    turned[0x0112] = 6  # the camera was held on its side
    picture.save(tmp_path / "x.jpg", exif=turned, quality=95)
    asked = question(tmp_path / "x.jpg", "it", "x")
    assert (asked.width, asked.height) == (20, 40) and isinstance(asked.image, Image.Image)
    pixels = np.asarray(asked.image)  # (H, W, 3)
    assert pixels[3, 10, 2] > 200 and pixels[35, 10, 0] > 200
    (tmp_path / "y.jpg").write_text("no picture")
    with pytest.raises(BrokenImage, match=r"y\.jpg: cannot be read"):
        question(tmp_path / "y.jpg", "it", "y")


@pytest.mark.parametrize("text", ["the man's hat, left", "[a, b]", "3", "null", "a\\", "\\'", "x=y (1)", 'say "x"'])
def test_an_expression_is_text_as_it_stands(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(_quoted(f"expression={text}", ["expression"]))
    assert parsed.value() == text

"""evaluation/report.py: which answers are shown, and what stands in the page."""

import base64
import dataclasses
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import ConfigError
from evaluation.cards import words
from evaluation.folder import Evaluation, read_folder
from evaluation.gallery import KINDS, choose, totals
from evaluation.page import page
from evaluation.report import named, trainer_state
from segmentation import masks
from segmentation.data.grefcoco import GRefCOCO
from segmentation.data.scenes import Scenes
from segmentation.sample import Found, Invalid, NoTarget
from tests.evaluated import BENCHMARK, EVIL, attacked, evaluate_twice, evaluated


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return evaluate_twice(tmp_path_factory.mktemp("evaluated"))


@pytest.fixture(scope="module")
def evaluations(folders) -> list[Evaluation]:
    return [read_folder(folder) for folder in folders]


class Tags(HTMLParser):
    """The tags of a page, and the sources of its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.pictures: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has a handler: {name}={value}"
            if name == "src":
                self.pictures.append(value or "")
            if name == "href":
                self.addresses.append(value or "")


def test_each_kind_has_the_answers_that_are_of_it(evaluations):
    for evaluation in evaluations:
        counted = totals(evaluation)
        told = Counter()
        for index, asked in enumerate(evaluation.samples):
            said = evaluation.records[asked.id].prediction
            iou = evaluation.rows[index].iou or 0
            told["invalid"] += isinstance(said, Invalid)
            told["false-no-target"] += bool(asked.targets) and isinstance(said, NoTarget)
            told["missed-no-target"] += not asked.targets and isinstance(said, Found)
            told["worst"] += bool(asked.targets) and isinstance(said, Found) and iou < 0.5
            told["best"] += bool(asked.targets) and isinstance(said, Found) and iou >= 0.5
            told["small"] += bool(asked.targets) and masks.area(asked.mask or masks.empty(64, 64)) < 1024
        assert counted == {name: told[name] for name in KINDS} and all(counted.values())


def test_the_first_of_each_kind_are_shown_and_each_sample_once(evaluations):
    cards = choose(evaluations, shown=3)
    ids = [card.sample.id for card in cards]
    assert len(set(ids)) == len(ids)
    for number, evaluation in enumerate(evaluations):
        answers = [card.answers[number] for card in cards]
        assert all(one.evaluation == number for one in answers)
        for name in KINDS:
            assert sum(name in one.kinds for one in answers) == min(3, totals(evaluation)[name])
        found = sorted(
            row.iou or 0.0 for row in evaluation.rows if row.targeted and row.state == "found"
        )  # what was found, from worst to best
        assert sorted(one.row.iou or 0.0 for one in answers if "worst" in one.kinds) == found[:3]
        assert sorted(one.row.iou or 0.0 for one in answers if "best" in one.kinds) == found[-3:]


def test_evaluations_of_other_samples_have_cards_of_their_own(evaluations, tmp_path):
    other = read_folder(evaluated(tmp_path / "c", Scenes("testB", length=20), 0.4, {}), Scenes("testB", length=20))
    cards = choose([*evaluations, other], shown=2)
    assert {len(card.answers) for card in cards if card.sample.split == "val"} == {2}
    assert {one.evaluation for card in cards if card.sample.split == "testB" for one in card.answers} == {2}


def test_texts_and_expressions_stay_text(evaluations):
    text = attacked(evaluations)
    tags = Tags(text)
    assert (tags.seen["script"], tags.seen["title"], tags.seen["i"]) == (1, 1, 2)  # <i>: a text was cut in both
    assert all(source.startswith("data:image/webp;base64,") for source in tags.pictures)
    assert tags.addresses == ["data:,"]  # of the icon: nothing is fetched
    assert words(EVIL) in text and "\\u202e" in text and "\\ud800" in text and "\\x00" in text
    assert "\u202e" not in text and "\x00" not in text
    assert not re.search(r"https?://", text)


def test_numbers_are_those_of_the_metrics_and_printed_once(evaluations, folders):
    text = attacked(evaluations)
    for folder in folders:
        metrics = json.loads((folder / "metrics.json").read_text())
        for name, interval in metrics["intervals"].items():
            if interval:
                low, high = interval
                assert f"{metrics[name]:.4f} <small>{low:.4f} to {high:.4f}</small>" in text
                assert text.count(f'<th scope="row">{name}</th>') == 1
    assert "cIoU_large" not in text  # scenes have none


def test_pictures_are_tinted_where_the_mask_lies(evaluations):
    asked = next(one for one in evaluations[0].samples if one.targets)
    html = page("t", [evaluations[0]], ["a"], "<svg></svg>", shown=60, side=128, training="a/run <1>")
    assert "<h2>Training a/run &lt;1&gt;</h2>" in html
    (card,) = re.findall(rf'<article class="card">(?:(?!</article>).)*{asked.id}.*?</article>', html, re.DOTALL)
    data = re.findall(r"base64,([^\"]+)", card)[0]
    picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    assert picture.size == (128, 128)
    drawn = np.asarray(picture).astype(int)
    plain = np.asarray(asked.image.convert("RGB").resize((128, 128), Image.Resampling.NEAREST)).astype(int)
    greener = (drawn[..., 1] - drawn[..., 0]) - (plain[..., 1] - plain[..., 0])
    inside = np.asarray(Image.fromarray(masks.decode(asked.mask or masks.empty(64, 64))).resize((128, 128)))
    assert greener[inside].mean() > 25 > abs(greener[~inside].mean()) * 5


def test_a_broken_image_is_a_card_like_any_other(evaluations, tmp_path):
    samples = [dataclasses.replace(one, image=tmp_path / "gone.jpg") for one in evaluations[0].samples]
    html = page("t", [dataclasses.replace(evaluations[0], samples=samples)], ["a"], "", shown=2, side=64)
    assert "no such file; check data.root" in html and "<img" not in html


def test_metrics_of_other_predictions_and_foreign_benchmarks_are_refused(folders, tmp_path):
    def copy(name: str, **changes: object) -> Path:
        (tmp_path / name).mkdir()
        for file in ("predictions.jsonl", "run.json", "metrics.json"):
            content = (folders[0] / file).read_text()
            (tmp_path / name / file).write_text(json.dumps(changes[file[:-5]]) if file[:-5] in changes else content)
        return tmp_path / name

    metrics = json.loads((folders[0] / "metrics.json").read_text())
    with pytest.raises(ConfigError, match=r"cIoU=0\.25, its predictions score 0\.\d+. Score them again"):
        read_folder(copy("a", metrics=metrics | {"cIoU": 0.25}))
    with pytest.raises(ConfigError, match="names no whole protocol"):
        read_folder(copy("b", metrics={key: metrics[key] for key in metrics if key != "empty_pixels"}))
    sentinel = tmp_path / "sentinel"
    bad = {"_target_": "os.system", "command": f"touch {sentinel}"}
    through = bad | {"_target_": "segmentation.data.jsonl.json.codecs.os.system"}
    for number, section in enumerate(
        (bad, through, {**BENCHMARK, "kinds": bad}, {"_target_": "segmentation.data.scenes.Thing"})
    ):
        with pytest.raises((ConfigError, ValueError), match=r"names no dataset of segmentation\.data|cannot get"):
            read_folder(copy(f"bad{number}", run={"benchmark": section}))
    assert not sentinel.exists()
    with pytest.raises(ConfigError, match=r"has no predictions\.jsonl"):
        read_folder(tmp_path / "nowhere")


def test_names_are_as_short_as_tells_them_apart():
    assert named([Path("out/a/eval"), Path("out/b/eval")]) == ["a/eval", "b/eval"]
    assert named([Path("out/eval")]) == ["eval"]
    assert named([Path(".")]) == [Path.cwd().name]
    with pytest.raises(ConfigError, match="one folder twice"):
        named([Path("a"), Path("a")])


def test_the_curves_are_those_of_the_last_checkpoint(tmp_path):
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert trainer_state(tmp_path).parent.name == "checkpoint-10"
    with pytest.raises(ConfigError, match=r"no trainer_state\.json"):
        trainer_state(tmp_path / "checkpoint-11")


@pytest.mark.realdata
def test_real_images(tmp_path, real_data):
    (tmp_path / "images/mscoco/images").mkdir(parents=True)
    (tmp_path / "images/mscoco/images/train2014").symlink_to(real_data / "coco128/images/train2017")
    (tmp_path / "grefcoco").symlink_to(real_data / "gref_mini/grefcoco")
    samples = GRefCOCO(tmp_path, "val")
    section = {"_target_": "segmentation.data.grefcoco.GRefCOCO", "root": str(tmp_path), "split": "val"}
    evaluation = read_folder(evaluated(tmp_path / "out", samples, 0.3, {"benchmark": section}))
    html = page("gRefCOCO", [evaluation], ["out"], "", shown=6, side=320)
    assert len(choose([evaluation], 6)) > 15
    assert 100_000 < len(html) < 2_000_000

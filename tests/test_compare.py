"""evaluation/compare.py: two predictions files of one benchmark, compared pair by pair."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.compare import compare
from evaluation.intervals import figure_gains
from evaluation.predictions import BadPredictions, PredictionWriter, Record
from evaluation.score import score_file
from segmentation import masks
from segmentation.data.scenes import Scenes
from segmentation.metrics import Evaluator
from segmentation.protocols import Lisa, Rela
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample
from tests.runs import ROOT

COUNT = 40


def answer(asked: Sample, quality: int, painted: bool = True) -> Prediction:
    """A right answer (2), one that misses two thirds of each box (1), or an invalid one (0)."""
    if quality == 0:
        return Invalid("no box")
    if not asked.targets:
        return NoTarget() if quality == 2 else Found((Instance((0.0, 0.0, 9.0, 9.0), masks.empty(64, 64)),))
    instances = []
    for target in asked.targets:
        x1, y1, x2, y2 = target.box
        box = target.box if quality == 2 else (x1, y1, x1 + (x2 - x1) / 3, y2)
        mask = target.mask if quality == 2 else masks.from_box(box, 64, 64)
        instances.append(Instance(box, mask if painted else None))
    return Found(tuple(instances))


def write(path: Path, samples: list[Sample], qualities: list[int], painted: bool = True) -> Path:
    with PredictionWriter(path, {}) as writer:
        for asked, quality in zip(samples, qualities, strict=True):
            writer.write(Record.of(asked, answer(asked, quality, painted), "text", 3))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[list[Sample], Path, Path]:
    """One sample in four gets better, one in eight worse, the rest stays. The second file is in another order."""
    samples = list(Scenes("val", length=COUNT))
    before = [(1, 2, 2, 2, 0, 2, 1, 2)[index % 8] for index in range(COUNT)]
    after = [(2, 2, 0, 2, 2, 2, 1, 2)[index % 8] for index in range(COUNT)]
    first = write(tmp_path / "a" / "predictions.jsonl", samples, before)
    return samples, first, write(tmp_path / "b" / "predictions.jsonl", samples[::-1], after[::-1])


def test_figures_before_and_after_and_their_paired_interval(files):
    samples, before, after = files
    comparison = compare(before, after, samples, Rela())
    evaluators = Evaluator(Rela()), Evaluator(Rela())
    was, now = (score_file(path, samples, one) for path, one in zip((before, after), evaluators, strict=True))
    gains = figure_gains(evaluators[0].rows, evaluators[1].rows, Rela())
    assert comparison["figures"].keys() == gains.keys()
    for name, figure in comparison["figures"].items():
        assert (figure["before"], figure["after"]) == (was[name], now[name])
        gain = gains[name]
        if gain:
            assert figure["difference"] == pytest.approx(now[name] - was[name], abs=1e-12)
            assert figure["interval"] == [gain.low, gain.high]
    assert comparison["figures"]["invalid_rate"]["difference"] == 0
    assert (comparison["protocol"], comparison["ignore"], comparison["empty_pixels"]) == ("rela", "drop", 0)
    assert comparison["n_expected"] == comparison["n_scored"] == COUNT


def test_every_sample_is_a_win_a_loss_or_a_tie(files):
    samples, before, after = files
    comparison = compare(before, after, samples, Rela())
    assert (comparison["n_wins"], comparison["n_losses"], comparison["n_ties"]) == (10, 5, 25)
    assert {change["id"] for change in comparison["wins"]} == {samples[i].id for i in range(COUNT) if i % 8 in (0, 4)}
    assert {change["id"] for change in comparison["losses"]} == {samples[i].id for i in range(COUNT) if i % 8 == 2}
    for changes, sign in ((comparison["wins"], 1), (comparison["losses"], -1)):
        differences = [sign * change["difference"] for change in changes]
        assert differences == sorted(differences, reverse=True) and differences[-1] > 0
        assert all(change["difference"] == change["after"] - change["before"] for change in changes)
    assert comparison["losses"][0]["states"][1] == "invalid"
    assert comparison["losses"][0]["expression"] == next(
        asked.expression for asked in samples if asked.id == comparison["losses"][0]["id"]
    )
    back = compare(after, before, samples, Rela())
    assert [change["id"] for change in back["losses"]] == [change["id"] for change in comparison["wins"]]


def test_without_masks_boxes_decide(tmp_path: Path):
    samples = list(Scenes("val", length=COUNT))
    before = write(tmp_path / "a" / "predictions.jsonl", samples, [1] * COUNT, painted=False)
    after = write(tmp_path / "b" / "predictions.jsonl", samples, [2] * COUNT, painted=False)
    comparison = compare(before, after, samples, Lisa())
    assert comparison["by"].startswith("box IoU")
    assert comparison["n_wins"] == COUNT  # also those without target: from a false alarm to NoTarget
    assert comparison["figures"]["gIoU"] == {"before": None, "after": None, "difference": None, "interval": None}


def test_without_masks_and_boxes_there_is_nothing_to_compare(tmp_path: Path):
    samples = [asked for asked in Scenes("val", length=COUNT) if asked.targets]
    for name in "ab":
        with PredictionWriter(tmp_path / name / "predictions.jsonl", {}) as writer:
            for asked in samples:
                writer.write(Record.of(asked, Found((Instance(None),)), "[SEG]", 1))
    before, after = (tmp_path / name / "predictions.jsonl" for name in "ab")
    with pytest.raises(ValueError, match="with a decoder that paints them"):
        compare(before, after, samples, Lisa())


def test_a_file_of_another_benchmark_is_an_error(files):
    samples, before, after = files
    with pytest.raises(BadPredictions, match="3 samples are predicted and not in the dataset"):
        compare(before, after, samples[3:], Lisa())


def test_compare_is_a_command(files):
    samples, before, after = files
    command = [
        sys.executable,
        "evaluation/compare.py",
        f"before={before}",
        f"after={after}",
        f"benchmark.length={COUNT}",
    ]
    run = subprocess.run(
        [*command, "protocol=rela", "shown=2"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        check=True,
        capture_output=True,
        text=True,
    )
    expected = compare(before, after, samples, Rela())
    assert json.loads(after.with_name("comparison.json").read_text()) == expected
    assert "10 wins, 5 losses, 25 ties" in run.stdout
    assert run.stdout.count("wins: +") == run.stdout.count("losses: -") == 2
    assert f"{expected['figures']['gIoU']['difference']:+.4f}" in run.stdout

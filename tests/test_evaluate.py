"""evaluation/evaluate.py: every sample answered once, by either engine, and every number reproducible."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from evaluation.predictions import read_predictions
from segmentation.data.export import export
from segmentation.data.scenes import Scenes
from segmentation.sample import Invalid
from tests.runs import BASE, ROOT, command, environment, launch
from tests.taught import some_scenes

LIGHT = "import sys, evaluation.score, segmentation.data.refer, rewards.box_iou; sys.exit('torch' in sys.modules)"
SMALL = ["benchmark=scenes_val", "benchmark.length=10", "max_tokens=48", "batch_size=4", f"model.path={BASE}"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The folder of an evaluation by one process with the transformers engine."""
    folder = tmp_path_factory.mktemp("evaluated")
    launch("evaluation/evaluate.py", *SMALL, f"output_dir={folder}", "overlays=0")
    return folder


def test_two_processes_answer_every_sample_once_and_score_reproduces(tmp_path):
    launch("evaluation/evaluate.py", *SMALL, f"output_dir={tmp_path}", processes=2)
    records = list(read_predictions(tmp_path / "predictions.jsonl"))
    assert len({record.id for record in records}) == 10
    metrics = (tmp_path / "metrics.json").read_bytes()
    assert json.loads(metrics)["n_expected"] == json.loads(metrics)["n_scored"] == 10
    assert (tmp_path / "overlays.png").stat().st_size > 10_000
    predictions = f"predictions={tmp_path}/predictions.jsonl"
    launch("evaluation/score.py", predictions, *SMALL[:2], "output=again.json")
    assert (tmp_path / "again.json").read_bytes() == metrics


def test_a_second_start_generates_nothing_again(evaluated, tmp_path):
    folder = shutil.copytree(evaluated, tmp_path / "again")
    path = folder / "predictions.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:7]) + lines[7][:20])  # killed within the eighth line
    launch("evaluation/evaluate.py", *SMALL, f"output_dir={folder}", "overlays=0")
    assert path.read_bytes().splitlines(keepends=True)[:7] == lines[:7]
    assert sorted(path.read_bytes().splitlines()) == sorted(b"".join(lines).splitlines())


@pytest.mark.vllm
def test_the_vllm_engine_writes_the_same_texts(evaluated, tmp_path):
    launch("evaluation/evaluate.py", *SMALL, f"output_dir={tmp_path}", "engine=vllm", "overlays=0")
    by_transformers, by_vllm = (
        {record.id: record.text for record in read_predictions(folder / "predictions.jsonl")}
        for folder in (evaluated, tmp_path)
    )
    assert by_transformers.keys() == by_vllm.keys()
    assert sum(by_vllm[key] == text for key, text in by_transformers.items()) >= 9


def test_reading_data_and_scoring_do_without_torch():
    assert subprocess.run([sys.executable, "-c", LIGHT], cwd=ROOT).returncode == 0


@pytest.mark.slow
def test_one_two_and_three_processes_and_a_kill_between_give_the_same_metrics(taught, tmp_path):
    data = tmp_path / "data"
    samples = [*some_scenes(), *Scenes("testA", length=21)]
    export(samples, data / "asked.jsonl", data)
    pictures = sorted(data.rglob("*.png"))
    pictures[5].write_bytes(pictures[5].read_bytes()[:60])
    pictures[6].unlink()
    asked = ["benchmark=jsonl", f"benchmark.root={data}", "benchmark.file=asked.jsonl", "on_broken_image=count"]
    asked += [f"model.path={taught}", "max_tokens=40", "batch_size=1", "overlays=0"]
    launch("evaluation/evaluate.py", *asked, f"output_dir={tmp_path}/one")
    metrics = json.loads((tmp_path / "one/metrics.json").read_text())
    assert metrics["n_expected"] == metrics["n_scored"] == len(samples)
    records = list(read_predictions(tmp_path / "one/predictions.jsonl"))
    reasons = [record.prediction.reason for record in records if isinstance(record.prediction, Invalid)]
    broken = [reason for reason in reasons if reason.startswith("broken image: ")]
    assert len(broken) == 2 < len(reasons) < len(samples)  # some texts are invalid, and some answers are not

    several = command("evaluation/evaluate.py", *asked, f"output_dir={tmp_path}/several", processes=2)
    killed = subprocess.Popen(several, cwd=ROOT, env=environment(), start_new_session=True)
    parts = [tmp_path / f"several/predictions-{number}-of-2.jsonl" for number in range(2)]
    while not all(part.exists() and part.stat().st_size for part in parts):
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    before = b"".join(part.read_bytes() for part in parts).splitlines(keepends=True)
    whole = {line for line in before if line.endswith(b"\n")}
    assert 2 <= len(whole) < len(samples) and not (tmp_path / "several/metrics.json").exists()
    launch("evaluation/evaluate.py", *asked, f"output_dir={tmp_path}/several", processes=3)
    after = (tmp_path / "several/predictions.jsonl").read_bytes().splitlines(keepends=True)
    assert whole <= set(after) and len(after) == len(samples)
    assert (tmp_path / "several/metrics.json").read_bytes() == (tmp_path / "one/metrics.json").read_bytes()

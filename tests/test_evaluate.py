"""evaluation/evaluate.py: every sample answered once, by either engine, and every number reproducible."""

import json
import shutil
import subprocess
import sys

import pytest

from evaluation.predictions import read_predictions
from tests.runs import BASE, ROOT, launch

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

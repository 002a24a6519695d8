"""evaluation/evaluate.py: every sample answered once, by either engine, and every number reproducible."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import cast

import pytest
from accelerate import PartialState
from hydra import compose, initialize_config_dir
from PIL import Image

from configs import ConfigError
from evaluation.benchmarks import Benchmark
from evaluation.evaluate import answer_all
from evaluation.predictions import BadPredictions, gather, read_predictions
from evaluation.score import score_file, write_metrics
from rollouts.answers import Answers
from segmentation.data.export import export
from segmentation.data.reasonseg import ReasonSeg
from segmentation.data.samples import Samples
from segmentation.data.scenes import Scenes
from segmentation.metrics import Evaluator
from segmentation.protocols import Lisa
from segmentation.sample import Invalid, open_image
from tests.official import write_reasonseg
from tests.runs import BASE, ROOT, command, environment, launch
from tests.taught import some_scenes

RUN = {"checkpoint": "taught"}
LIGHT = "import sys, evaluation.score, segmentation.data.refer, rewards.box_iou; sys.exit('torch' in sys.modules)"
SMALL = ["benchmark=scenes_val", "benchmark.length=10", "max_tokens=48", "batch_size=4", f"model.path={BASE}"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The folder of an evaluation by one process with the transformers engine."""
    folder = tmp_path_factory.mktemp("evaluated")
    launch("evaluation/evaluate.py", *SMALL, f"output_dir={folder}")
    return folder


def test_every_sample_is_answered_once_and_score_reproduces(evaluated):
    records = list(read_predictions(evaluated / "predictions.jsonl"))
    assert len({record.id for record in records}) == 10
    metrics = (evaluated / "metrics.json").read_bytes()
    assert json.loads(metrics)["n_expected"] == json.loads(metrics)["n_scored"] == 10
    assert (evaluated / "overlays.png").stat().st_size > 10_000
    predictions = f"predictions={evaluated}/predictions.jsonl"
    launch("evaluation/score.py", predictions, *SMALL[:2], "output=again.json")
    assert (evaluated / "again.json").read_bytes() == metrics


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


def share(policy, benchmark, cfg, number: int, count: int) -> None:
    """What process `number` of `count` answers, in this process."""
    place = {"process_index": number, "num_processes": count, "is_main_process": number == 0}
    state = SimpleNamespace(**place, wait_for_everyone=lambda: None)
    answer_all(policy, benchmark, Lisa(), cfg, cast(PartialState, state), RUN)


def test_one_two_and_three_shares_and_a_run_cut_short_score_alike(taught, tmp_path, monkeypatch):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        chosen = [f"model.path={taught}", "max_tokens=40", "batch_size=3", "on_broken_image=count"]
        cfg = compose("evaluate", chosen)
    samples = [*some_scenes(), *Scenes("testA", length=6)]
    samples[4] = dataclasses.replace(samples[4], image=tmp_path / "gone.png")
    policy, written = Answers(cfg), []
    for count in (1, 2, 3):
        benchmark = Benchmark({}, cast(Samples, samples), tmp_path / str(count))
        if count == 3:  # the first process is stopped after a batch, and only then started with the others
            monkeypatch.setattr(policy, "generate", stopping(policy.generate))
            with pytest.raises(KeyboardInterrupt):
                share(policy, benchmark, cfg, 0, 1)
            monkeypatch.undo()
        for number in range(count):
            share(policy, benchmark, cfg, number, count)
        path = gather(benchmark.folder, RUN)  # the first process does so, once the others are through
        write_metrics(score_file(path, samples, Evaluator(Lisa())), benchmark.folder / "metrics.json")
        written.append((benchmark.folder / "metrics.json").read_bytes())
    metrics = json.loads(written[0])
    assert metrics["n_expected"] == metrics["n_scored"] == 9 and metrics["n_found"] and metrics["n_invalid"]
    assert written[0] == written[1] == written[2]


def test_a_broken_image_is_asked_again_once_it_is_mended(taught, tmp_path):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        cfg = compose("evaluate", [f"model.path={taught}", "max_tokens=40", "on_broken_image=count"])
    samples, policy = some_scenes(), Answers(cfg)
    picture, where = open_image(samples[0]), tmp_path / "late.png"
    samples[0] = dataclasses.replace(samples[0], image=where)
    benchmark = Benchmark({}, cast(Samples, samples), tmp_path / "out")
    share(policy, benchmark, cfg, 0, 1)
    before = {record.id: record.text for record in read_predictions(tmp_path / "out/predictions.jsonl")}
    assert before[samples[0].id] == ""
    picture.save(where)
    share(policy, benchmark, cfg, 0, 1)
    after = {record.id: record.text for record in read_predictions(tmp_path / "out/predictions.jsonl")}
    assert after.pop(samples[0].id) and after == {key: before[key] for key in after}


def test_answers_to_other_words_are_not_taken_for_answers_to_these(taught, tmp_path):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        cfg = compose("evaluate", [f"model.path={taught}", "max_tokens=40"])
    samples, policy = some_scenes(), Answers(cfg)
    share(policy, Benchmark({}, cast(Samples, samples), tmp_path), cfg, 0, 1)
    samples[1] = dataclasses.replace(samples[1], expression="another thing")
    for again in (
        lambda: share(policy, Benchmark({}, cast(Samples, samples), tmp_path), cfg, 0, 1),
        lambda: score_file(tmp_path / "predictions.jsonl", samples, Evaluator(Lisa())),
    ):
        with pytest.raises(BadPredictions, match=rf"{samples[1].id} was asked '.*', the dataset says 'another thing'"):
            again()


def test_a_strip_that_no_processor_takes_is_a_broken_image(taught, tmp_path):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        cfg = compose("evaluate", [f"model.path={taught}", "max_tokens=80", "on_broken_image=count"])
    samples = some_scenes()[:2]
    Image.new("RGB", (2100, 10)).save(tmp_path / "strip.png")
    samples[0] = dataclasses.replace(samples[0], image=tmp_path / "strip.png", height=10, width=2100, targets=())
    share(Answers(cfg), Benchmark({}, cast(Samples, samples), tmp_path / "out"), cfg, 0, 1)
    first, second = read_predictions(tmp_path / "out/predictions.jsonl")
    assert isinstance(first.prediction, Invalid) and "strip.png" in first.prediction.reason
    assert not isinstance(second.prediction, Invalid)


def test_where_only_the_image_has_the_size_broken_ones_cannot_be_counted(tmp_path):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        cfg = compose("evaluate", [f"model.path={BASE}", "on_broken_image=count"])
    root = write_reasonseg(tmp_path)
    next(root.rglob("b.jpg")).unlink()
    with pytest.raises(ConfigError, match=r"b\.jpg.* Only the image says how large"):
        share(Answers(cfg), Benchmark({}, ReasonSeg(root), tmp_path / "out"), cfg, 0, 1)


def test_another_training_of_the_same_name_is_another_policy(evaluated, taught, tmp_path):
    model = shutil.copytree(BASE, tmp_path / "policy")
    asked = [*SMALL[:-1], f"model.path={model}", f"output_dir={tmp_path}/out", "overlays=0"]
    launch("evaluation/evaluate.py", *asked)
    shutil.copytree(taught, model, dirs_exist_ok=True)
    done = subprocess.run(
        command("evaluation/evaluate.py", *asked), cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode and "holds the predictions of another run (weights differ" in done.stderr
    other = subprocess.run(
        command("evaluation/evaluate.py", *SMALL, f"output_dir={evaluated}", "model.dtype=bfloat16"),
        cwd=ROOT, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert other.returncode and "another run (dtype differ" in other.stderr


def stopping(generate):
    """`generate` that is stopped when it is called again."""
    calls = iter([generate])

    def once(*arguments):
        try:
            return next(calls)(*arguments)
        except StopIteration:
            raise KeyboardInterrupt from None

    return once


@pytest.mark.distributed
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


@pytest.mark.vllm
@pytest.mark.distributed
def test_engines_of_two_processes_start_together_though_one_has_nothing_to_answer(evaluated, tmp_path):
    asked = [*SMALL, "engine=vllm", f"output_dir={tmp_path}", "overlays=0"]
    launch("evaluation/evaluate.py", *asked, processes=2)
    path = tmp_path / "predictions.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert {record.id for record in read_predictions(path)} == {
        record.id for record in read_predictions(evaluated / "predictions.jsonl")
    }
    path.write_bytes(b"".join(lines[:-1]))
    launch("evaluation/evaluate.py", *asked, processes=2)
    assert path.read_bytes().splitlines(keepends=True) == lines

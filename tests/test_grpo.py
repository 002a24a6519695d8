"""rl/grpo.py with the real engine: what the engine and the trainer see is the same, and a killed run goes on."""

import os
import signal
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file

from configs import ConfigError
from sft.checkpoints import WHOLE, last_checkpoint, resume_from
from tests.runs import BASE, QUICK_GRPO, ROOT, command, environment, history, launch

# The base model's answers are all invalid, which no real reward tells apart.
LOTTERY = "+rewards.lottery={_target_: tests.runs.lottery, weight: 1.0}"


@pytest.mark.vllm
def test_vllm_and_the_trainer_agree_and_the_policy_learns(tmp_path):
    moved = ["trainer.learning_rate=1e-3", "trainer.warmup_steps=0", "trainer.max_steps=4", LOTTERY]
    large = "trainer.per_device_train_batch_size=128"  # prompts of more tokens than vLLM reads at once, 4,096
    launch("rl/grpo.py", f"model.path={BASE}", f"output_dir={tmp_path}", *QUICK_GRPO, large, *moved)
    logged = [line for line in history(tmp_path) if "reward" in line]
    assert len(logged) == 4
    for line in logged:
        # From the second step on completions come from weights that were synced after an update.
        assert line["sampling/sampling_logp_difference/mean"] <= 0.001
        assert line["grad_norm"] > 0
        assert line["states/found"] + line["states/no_target"] + line["states/invalid"] == pytest.approx(1)
        assert {"rewards/format/mean", "rewards/box_iou/mean", "rewards/mask_iou/mean"} <= line.keys()
    assert (tmp_path / "policy" / "model.safetensors").exists()
    assert (tmp_path / "run.yaml").exists()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Six steps of GRPO with the transformers engine, to compare others with."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    launch("rl/grpo.py", *_six_steps(folder))
    return folder


def _six_steps(folder):
    fixed = ["rollouts=transformers", "trainer.max_steps=6", "trainer.save_steps=2", "trainer.learning_rate=1e-4"]
    return [f"model.path={BASE}", f"output_dir={folder}", *QUICK_GRPO, *fixed, LOTTERY]


def test_a_killed_run_resumes_and_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    running = subprocess.Popen(
        command("rl/grpo.py", *_six_steps(tmp_path)),
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while last_checkpoint(tmp_path) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert last_checkpoint(tmp_path), "no checkpoint was written before the kill"
    torn = tmp_path / "checkpoint-5"  # killed while it was being written: no mark, half a file
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    launch("rl/grpo.py", *_six_steps(tmp_path), "resume=true")
    expected = load_file(uninterrupted / "policy" / "model.safetensors")
    resumed = load_file(tmp_path / "policy" / "model.safetensors")
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    losses = [[line["loss"] for line in history(folder) if "loss" in line] for folder in (uninterrupted, tmp_path)]
    assert losses[0] == losses[1]


def test_a_second_run_does_not_mix_with_the_first(uninterrupted):
    with pytest.raises(ConfigError, match="resume=true"):
        resume_from(uninterrupted, resume=False)


def test_checkpoints_count_only_when_whole(tmp_path):
    for step, whole in ((2, True), (10, True), (12, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            (folder / WHOLE).touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path / "nothing") is None

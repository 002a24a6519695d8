"""The two engines agree, on both model families."""

import json
import subprocess
import sys

import pytest
import torch

from sft.small_base.build import qwen3_vl
from tests.runs import BASE, ROOT, environment


@pytest.mark.vllm
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_same_texts_and_log_probabilities(family, tmp_path):
    path = ROOT / BASE
    if family == "qwen3_vl":
        torch.manual_seed(0)
        model, processor = qwen3_vl()
        for parameter in model.parameters():
            parameter.data *= 3  # random weights are nearly indifferent between tokens; these have opinions
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        path = tmp_path
    command = [sys.executable, "-m", "rollouts.parity", str(path), "--samples", "64", "--max-tokens", "32"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    parity = json.loads(done.stdout.splitlines()[-1])
    assert parity["same"] >= 0.95, parity
    assert parity["gap"] <= 0.01, parity


@pytest.mark.vllm
@pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU engine's way of taking weights")
def test_new_weights_reach_every_part_of_the_engine():
    command = [sys.executable, "tests/sync_run.py", BASE]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for part, ((gap_before, stale_before), (gap_after, stale_after)) in found["parts"].items():
        assert gap_after < 1e-4 < gap_before, part
        assert not stale_after, part
        assert bool(stale_before) == (part in ("visual", "self_attn", "mlp")), part  # those have matrices among the few
    assert found["encoded"] == found["pictures"]  # once, for all completions about it

"""Rollouts that this machine or launcher cannot do are refused before a model is loaded."""

import pytest
import torch
from trl import GRPOConfig

from rollouts.guards import check_rollouts

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="what a CPU cannot do")


def _arguments(folder, **settings):
    common = {"output_dir": str(folder), "use_cpu": True, "bf16": False, "report_to": "none", "use_vllm": True}
    return GRPOConfig(**common, **settings)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"vllm_mode": "server"}, "rollouts=vllm_server needs CUDA"),
        ({"vllm_tensor_parallel_size": 2}, "vllm_tensor_parallel_size=2"),
        ({"vllm_enable_sleep_mode": True}, "vllm_enable_sleep_mode=true"),
    ],
)
def test_what_vllm_on_a_cpu_cannot_do(tmp_path, setting, said):
    with pytest.raises(ValueError, match=said):
        check_rollouts(_arguments(tmp_path, **setting))
    check_rollouts(_arguments(tmp_path))


@pytest.mark.parametrize(("version", "said"), [("1", "fsdp_version=1"), ("2", "would run DDP")])
def test_fsdp_that_would_be_something_else(tmp_path, monkeypatch, version, said):
    arguments = _arguments(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", version)
    with pytest.raises(ValueError, match=said):
        check_rollouts(arguments)

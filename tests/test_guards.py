"""Rollouts that this machine or launcher cannot do are refused before a model is loaded."""

from types import SimpleNamespace

import pytest
import torch
from trl import GRPOConfig

from configs import ConfigError
from rollouts.guards import check_launcher, check_precision, check_rollouts, check_trained

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
def test_fsdp_that_would_be_something_else(monkeypatch, version, said):
    check_launcher()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", version)
    with pytest.raises(ValueError, match=said):
        check_launcher()


def test_a_server_that_would_remember_pictures_of_another_encoder(tmp_path):
    with pytest.raises(ValueError, match="freeze_vision=false: the server would go on"):
        check_rollouts(_arguments(tmp_path, vllm_mode="server"), freeze_vision=False)


def test_a_vision_encoder_that_no_adapter_would_change():
    for lora, freeze in ((None, False), (None, True), ({"r": 4}, True)):
        check_trained({"lora": lora, "freeze_vision": freeze})
    with pytest.raises(ConfigError, match="adapters are of the language model alone"):
        check_trained({"lora": {"r": 4}, "freeze_vision": False})


def test_sixteen_bits_are_too_few_to_train_all_weights_in(monkeypatch):
    model = SimpleNamespace(dtype=torch.bfloat16)
    with pytest.raises(ConfigError, match=r"model\.dtype=bfloat16: with model\.lora=null most updates"):
        check_precision(model, lora=False)
    check_precision(model, lora=True)
    model.dtype = torch.float32
    check_precision(model, lora=False)
    model.dtype = torch.bfloat16
    for launcher in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"):
        with monkeypatch.context() as launched:
            launched.setenv(launcher, "true")
            check_precision(model, lora=False)

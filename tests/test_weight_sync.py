"""What the engine is sent: the names it knows, `W + delta`, and a base that no sync changes."""

import pytest
import torch
from accelerate import Accelerator
from peft import get_peft_model
from trl.distributed import DistributedBackend

from configs import ConfigError
from rollouts.plain_weights import plain_weights
from rollouts.sections import make_lora
from sft.small_base.build import qwen2_5_vl


def whole() -> DistributedBackend:
    """A backend without shards: this process has every parameter."""
    return DistributedBackend(Accelerator(cpu=True))


def adapted(dtype):
    torch.manual_seed(0)
    plain, _ = qwen2_5_vl()
    plain = plain.to(dtype)
    names = [name for name, _ in plain.named_parameters()]
    lora = make_lora({"r": 4, "lora_alpha": 8})
    assert lora is not None
    model = get_peft_model(plain, lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model, names


def test_names_and_values_are_those_of_the_merged_model():
    model, names = adapted(torch.float32)
    sent = {name: tensor.clone() for name, tensor in plain_weights(model, whole())}
    assert list(sent) == names
    merged = model.merge_and_unload().state_dict()
    for name, tensor in sent.items():
        torch.testing.assert_close(tensor, merged[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("key", ["use_dora", "lora_bias"])
def test_adapters_that_are_more_than_a_delta_are_refused(key):
    with pytest.raises(ConfigError, match=f"model.lora.{key}=True: not supported"):
        make_lora({"r": 4, "lora_alpha": 8, key: True})


def test_200_syncs_leave_a_bfloat16_base_bit_for_bit():
    model, _ = adapted(torch.bfloat16)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    first = {name: tensor.clone() for name, tensor in plain_weights(model, whole())}
    for _ in range(198):
        list(plain_weights(model, whole()))
    last = dict(plain_weights(model, whole()))
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert all(torch.equal(first[name], tensor) for name, tensor in last.items())
    changed = [name for name in first if f"base_model.model.{name}" not in before]  # the wrapped ones have .base_layer
    assert changed


def test_without_an_adapter_parameters_are_sent_as_they_are():
    plain, _ = qwen2_5_vl()
    sent = dict(plain_weights(plain, whole()))
    assert sent.keys() == dict(plain.named_parameters()).keys()

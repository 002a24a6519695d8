"""A policy's weights as its plain directory names them, whole, one at a time, wherever the parts of them lie.

With LoRA they are `W + delta` copies and the base is left as it is: merging in place and taking out again rounds a
bfloat16 base further away each time (trl#6688). Under ZeRO-3 and FSDP2 a weight and its adapters are gathered for as
long as it is looked at: no process holds the whole model, so that all of them must go through all weights together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.distributed.tensor import DTensor
from trl.distributed import DistributedBackend

WRAPPERS = ("base_model.model.", "_checkpoint_wrapped_module.", "modules_to_save.default.", ".base_layer")


def plain_weights(model: Any, shards: DistributedBackend) -> Iterator[tuple[str, Tensor]]:
    """Name and weight of each parameter; a tied one comes once.

    Args:
        model: a transformers model or a PeftModel around it, not inside of accelerate's or DeepSpeed's wrappers.
        shards: how the parameters are split (`trl.distributed`); FSDP1 is not supported.

    Returns:
        Weights are valid until the next one is asked for, and may be the parameters themselves.
    """
    adapters: dict[str, Any] = {}
    prefix = None
    if isinstance(model, PeftModel):
        adapters = {name: part for name, part in model.named_modules() if isinstance(part, LoraLayer)}
        prefix = str(model.base_model.prefix)
    for name, parameter in model.named_parameters():
        if "original_module" in name or (prefix is not None and prefix in name):
            continue
        owner = adapters.get(name.rpartition(".base_layer.")[0])
        with shards.gather_params(list(owner.parameters()) if owner is not None else [parameter]), torch.no_grad():
            weight = _whole(parameter.data)
            if owner is not None and name.endswith("base_layer.weight"):
                for adapter in owner.active_adapters:
                    delta = _whole(owner.get_delta_weight(adapter))
                    weight = (weight.float() + delta.float()).to(weight.dtype)
            yield plain_name(name), weight


def plain_name(name: str) -> str:
    """A parameter's name in the model that was loaded."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def whole_state(model: Any, shards: DistributedBackend, keep: bool) -> dict[str, Tensor]:
    """All plain weights, copied to the CPU; nothing where they are not to be kept. Every process calls it."""
    state = {}
    for name, weight in plain_weights(model, shards):
        if keep:
            state[name] = weight.detach().to("cpu", copy=True)
    return state


def _whole(weight: Tensor) -> Tensor:
    return weight.full_tensor() if isinstance(weight, DTensor) else weight

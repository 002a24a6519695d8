"""Run by test_distributed.py on two processes: 200 times through the weights of a bfloat16 LoRA policy in two halves.

accelerate launch --config_file configs/launch/cpu.yaml tests/drift_run.py
"""

import json
import os
from types import SimpleNamespace
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"

import deepspeed
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from trl.distributed import DistributedBackend

from rollouts.device import prepare_deepspeed
from rollouts.plain_weights import plain_weights
from tests.test_weight_sync import adapted

SYNCS = 200


def main() -> None:
    """Print which of this process's parts changed, and which weights are not those of a model that is whole."""
    prepare_deepspeed()
    deepspeed.init_distributed("gloo", verbose=False)
    for kind, split in {"zero3": under_zero3, "fsdp2": under_fsdp2}.items():
        model, names = adapted(torch.bfloat16)
        expected = {name: weight.clone() for name, weight in plain_weights(model, _backend(None, None))}
        shards, part = split(model)
        before = {name: part(parameter).clone() for name, parameter in model.named_parameters()}
        other: set[str] = set()
        for turn in range(SYNCS):
            seen = 0
            for name, weight in plain_weights(model, shards):
                seen += 1
                if turn in (0, SYNCS - 1) and not torch.equal(weight, expected[name]):
                    other.add(name)
            assert seen == len(names)
        parameters = dict(model.named_parameters())
        told = {
            "rank": dist.get_rank(),
            "kind": kind,
            "here": sum(one.numel() for one in before.values()) / sum(one.numel() for one in expected.values()),
            "drifted": [name for name, one in before.items() if not torch.equal(one, part(parameters[name]))],
            "other": sorted(other),
        }
        every: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(every, told)
        if not dist.get_rank():  # one process prints: two may write into each other's lines
            print(*map(json.dumps, every), sep="\n", flush=True)
    dist.destroy_process_group()


def under_zero3(model: Any) -> tuple[DistributedBackend, Any]:
    """How the model's parameters are gathered from now on, and this process's part of one."""
    deepspeed.zero.Init(module=model, config_dict_or_path={"train_batch_size": 2, "zero_optimization": {"stage": 3}})
    return _backend(SimpleNamespace(zero_stage=3), None), lambda parameter: parameter.ds_tensor


def under_fsdp2(model: Any) -> tuple[DistributedBackend, Any]:
    """As `under_zero3`."""
    for layer in model.get_base_model().model.language_model.layers:
        fully_shard(layer)
    fully_shard(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return _backend(None, SimpleNamespace(fsdp_version=2)), lambda parameter: parameter.data.to_local()


def _backend(zero: Any, fsdp: Any) -> DistributedBackend:
    accelerator: Any = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=zero, fsdp_plugin=fsdp))
    return DistributedBackend(accelerator)


if __name__ == "__main__":
    main()

"""Settings of rollouts that cannot work, or would train on something wrong: said before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from trl import GRPOConfig

from configs import ConfigError
from rollouts.device import under_deepspeed, under_fsdp
from rollouts.policy import Model


def check_launcher() -> None:
    """Raises ValueError for a launcher that would not do what it says.

    FSDP1 hands out weights merged with the adapter in place, which drifts (trl#6688).
    """
    if under_fsdp() and os.environ.get("FSDP_VERSION", "1") == "1":
        raise ValueError("fsdp_version=1 is not supported: use configs/launch/fsdp2.yaml or zero3.yaml.")
    if under_fsdp() and not torch.cuda.is_available():
        raise ValueError("accelerate (1.15) has no FSDP on a CPU and would run DDP: use configs/launch/zero3.yaml.")


def check_precision(model: Model, lora: bool) -> None:
    """Raises ConfigError where all weights are trained in 16 bits and nothing keeps a copy of them in 32.

    Steps of 1e-6 are below what bfloat16 can tell apart: 200 of them moved 2% of the weights. ZeRO and FSDP2 keep a
    copy, and adapters are float32 anyway.
    """
    if lora or model.dtype not in (torch.bfloat16, torch.float16) or under_fsdp() or under_deepspeed():
        return
    raise ConfigError(
        f"model.dtype={str(model.dtype).removeprefix('torch.')}: with model.lora=null most updates would be rounded "
        "away. Launch with configs/launch/zero2.yaml, zero3.yaml or fsdp2.yaml, which keep the weights in float32, "
        "too; or set model.dtype=float32, or model.lora."
    )


def check_trained(model: Mapping[str, Any]) -> None:
    """Raises ConfigError if a vision encoder is to be trained that adapters, of the language model, leave as it is."""
    if model["lora"] is not None and not model["freeze_vision"]:
        raise ConfigError(
            "model.freeze_vision=false with model.lora: adapters are of the language model alone. Train all weights "
            "(model.lora=null), or leave the encoder as it is (model.freeze_vision=true)."
        )


def check_rollouts(args: GRPOConfig, freeze_vision: bool = True) -> None:
    """Raises ValueError for a combination of machine and engine that TRL 1.16 would let through.

    vLLM on a CPU is one process's own engine: its weights cannot be cut up, sent over NCCL, or put to sleep. A server
    can be told to forget what it remembers of prompts, but not of pictures.
    """
    if args.vllm_structured_outputs_regex and not args.use_vllm:
        raise ValueError("rollouts.structured is vLLM's: choose rollouts=vllm, or rollouts.structured=0.")
    if args.use_vllm and args.vllm_mode == "server" and not freeze_vision:
        raise ValueError(
            "rollouts=vllm_server with model.freeze_vision=false: the server would go on with what the encoder saw "
            "of a picture before; use rollouts=vllm, or freeze it."
        )
    if not args.use_vllm or torch.cuda.is_available():
        return
    if args.vllm_mode == "server":
        raise ValueError("rollouts=vllm_server needs CUDA: weights go over NCCL. rollouts=vllm runs on a CPU, too.")
    if args.vllm_tensor_parallel_size != 1:
        raise ValueError(f"vllm_tensor_parallel_size={args.vllm_tensor_parallel_size}: on a CPU it is 1.")
    if args.vllm_enable_sleep_mode:
        raise ValueError("vllm_enable_sleep_mode=true: vLLM on a CPU cannot sleep; set it to false.")

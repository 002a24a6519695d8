"""Settings of rollouts that cannot work, or would train on something wrong: said before a model is loaded."""

from __future__ import annotations

import os

import torch
from trl import GRPOConfig

from rollouts.device import under_fsdp


def check_rollouts(args: GRPOConfig) -> None:
    """Raises ValueError for a combination of machine, launcher and engine that TRL 1.16 would let through.

    vLLM on a CPU is one process's own engine: its weights cannot be cut up, sent over NCCL, or put to sleep. FSDP1
    hands out weights merged with the adapter in place, which drifts (trl#6688).
    """
    if under_fsdp() and os.environ.get("FSDP_VERSION", "1") == "1":
        raise ValueError("fsdp_version=1 is not supported: use configs/launch/fsdp2.yaml or zero3.yaml.")
    if under_fsdp() and not torch.cuda.is_available():
        raise ValueError("accelerate (1.15) has no FSDP on a CPU and would run DDP: use configs/launch/zero3.yaml.")
    if not args.use_vllm or torch.cuda.is_available():
        return
    if args.vllm_mode == "server":
        raise ValueError("rollouts=vllm_server needs CUDA: weights go over NCCL. rollouts=vllm runs on a CPU, too.")
    if args.vllm_tensor_parallel_size != 1:
        raise ValueError(f"vllm_tensor_parallel_size={args.vllm_tensor_parallel_size}: on a CPU it is 1.")
    if args.vllm_enable_sleep_mode:
        raise ValueError("vllm_enable_sleep_mode=true: vLLM on a CPU cannot sleep; set it to false.")

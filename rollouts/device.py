"""What the machine decides about a run, not the config."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from transformers.integrations import deepspeed as integration

LONGEST_WAIT = timedelta(hours=6)  # for the slowest process; NCCL's own 10 minutes are soon over where one has the work


def training_arguments() -> dict[str, Any]:
    """Arguments for TRL's configs: bf16 where there is CUDA, plain float32 on a CPU."""
    if torch.cuda.is_available():
        return {"bf16": True}
    return {"bf16": False, "use_cpu": True}


def processes() -> PartialState:
    """Which process of the run this is. Not told of the CPU, accelerate (1.15) takes each there for the only one."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)


def use_all_cores() -> None:
    """Give this process its share of the cores: `accelerate launch` sets OMP_NUM_THREADS to 1 unless told otherwise."""
    if not torch.cuda.is_available():
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(len(os.sched_getaffinity(0)) // processes, 1))


def under_fsdp() -> bool:
    """Whether `accelerate launch` was told to use FSDP; transformers' own `is_fsdp_enabled` knows some of its modes."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


@contextmanager
def whole_models() -> Iterator[None]:
    """Models that are made within are whole, and this process's own affair.

    Under ZeRO-3 transformers otherwise makes every model in parts, which all processes have to do together: one that
    did so alone would wait for the others without end.
    """
    config = integration._hf_deepspeed_config_weak_ref
    integration._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = config


def under_deepspeed() -> bool:
    """Whether `accelerate launch` was told to use DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def prepare_deepspeed() -> None:
    """Keep DeepSpeed (0.19) on a CPU to gloo, before any process group is made.

    It would compile a shared-memory all-reduce at the first start, for minutes, and a run killed meanwhile leaves a
    lock that all later ones wait for without end (torch.utils.file_baton). There is no setting for that.
    """
    if torch.cuda.is_available() or not under_deepspeed():
        return
    import deepspeed.ops

    ops: Any = deepspeed.ops
    ops.__compatible_ops__ = {**ops.__compatible_ops__, "deepspeed_shm_comm": False}


def prepare_vllm() -> None:
    """The environment of an engine in this process. Call it before vLLM is imported; variables already set are kept."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # a trainer reaches into the engine's model
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # on a CPU it warns at every image
    if not torch.cuda.is_available():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
        from vllm.platforms import current_platform

        current_platform.simple_compile_backend = "eager"  # its small functions need no C++ compiler either


def engine_options() -> dict[str, Any]:
    """What vLLM is told on this machine.

    On a CPU it would compile the model, which needs a C++ compiler, and half a minute at the first start, to write
    the small model's completions 9% faster.
    """
    pictures = {"limit_mm_per_prompt": {"image": 1, "video": 0}}  # it would reserve memory for the longest video
    return pictures if torch.cuda.is_available() else {**pictures, "enforce_eager": True}

"""What the machine decides about a run, not the config."""

from __future__ import annotations

import os
from typing import Any

import torch


def training_arguments() -> dict[str, Any]:
    """Arguments for TRL's configs: bf16 where there is CUDA, plain float32 on a CPU."""
    if torch.cuda.is_available():
        return {"bf16": True}
    return {"bf16": False, "use_cpu": True}


def use_all_cores() -> None:
    """Give this process its share of the cores: `accelerate launch` sets OMP_NUM_THREADS to 1 unless told otherwise."""
    if not torch.cuda.is_available():
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(len(os.sched_getaffinity(0)) // processes, 1))


def prepare_vllm() -> None:
    """The environment of an engine in this process. Call it before vLLM is imported; variables already set are kept."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # a trainer reaches into the engine's model
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # on a CPU it warns at every image
    if not torch.cuda.is_available():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB

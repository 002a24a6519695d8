"""What the machine decides about a run, not the config."""

from __future__ import annotations

import os
from typing import Any

import torch


def training_arguments() -> dict[str, Any]:
    """Arguments for TRL's configs: bf16 and fused kernels where there is CUDA, plain float32 on a CPU."""
    if torch.cuda.is_available():
        return {"bf16": True}
    return {"bf16": False, "use_cpu": True}


def prepare_vllm() -> None:
    """Environment of an engine inside the training process; call it before vLLM is imported. Set variables are kept."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the trainer reaches into the engine's model
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if not torch.cuda.is_available():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB

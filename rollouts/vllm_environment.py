"""The environment of a vLLM engine inside this process."""

from __future__ import annotations

import os

import torch


def prepare_vllm() -> None:
    """Call it before vLLM is imported. Variables that are set already are kept."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # a trainer reaches into the engine's model
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # on a CPU it warns at every image
    if not torch.cuda.is_available():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB

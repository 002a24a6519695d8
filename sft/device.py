"""What the machine decides about a run, not the config."""

from __future__ import annotations

from typing import Any

import torch


def training_arguments() -> dict[str, Any]:
    """Arguments for TRL's configs: bf16 and fused kernels where there is CUDA, plain float32 on a CPU."""
    if torch.cuda.is_available():
        return {"bf16": True}
    return {"bf16": False, "use_cpu": True}

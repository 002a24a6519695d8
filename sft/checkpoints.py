"""Checkpoints that are whole or do not count: resuming never starts from one that was being written when a run died."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

WHOLE = "whole"  # an empty file, written last


class MarkWhole(TrainerCallback):
    """Marks each checkpoint after its last byte; transformers calls `on_save` then."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # every rank writes its own random state
        if state.is_world_process_zero:
            assert args.output_dir is not None
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()


def last_checkpoint(output_dir: str | Path) -> str | None:
    """Path of the latest whole checkpoint in `output_dir`, None if there is none."""
    found = [path.parent for path in Path(output_dir).glob(f"checkpoint-*/{WHOLE}")]
    numbered = [(int(match[1]), path) for path in found if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))]
    return str(max(numbered)[1]) if numbered else None


def resume_from(output_dir: str | Path, resume: bool) -> str | None:
    """What a trainer is to continue from.

    Raises:
        FileExistsError: the folder has checkpoints and `resume` is false: they would be mixed with new ones.
    """
    last = last_checkpoint(output_dir)
    if last and not resume:
        raise FileExistsError(f"{last} is from an earlier run: pass resume=true to continue it, or another output_dir.")
    return last if resume else None

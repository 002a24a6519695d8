"""Checkpoints that are whole or do not count: resuming never starts from one that was being written when a run died."""

from __future__ import annotations

import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import configs
from configs.terminal import first_rank

WHOLE = "whole"  # an empty file, written last and removed first


class MarkWhole(TrainerCallback):
    """Marks each checkpoint after its last byte, and only then removes old ones.

    `save_total_limit` latest are kept, and the best beside them. transformers 5.17 removes old ones before the new one
    is whole and counts torn ones: a run killed then could be left with none.
    """

    def __init__(self) -> None:
        self._keep: int | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        self._keep, args.save_total_limit = args.save_total_limit or self._keep, None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # every rank writes its own random state
        if state.is_world_process_zero:
            assert args.output_dir is not None
            folder = Path(args.output_dir)
            (folder / f"checkpoint-{state.global_step}" / WHOLE).touch()
            if self._keep:
                remove_old(folder, self._keep, state.best_global_step)


def remove_old(output_dir: Path, keep: int, best: int | None = None) -> None:
    """Remove all checkpoints but the `keep` latest whole ones and that of step `best`."""
    whole = sorted(number for path in output_dir.glob(f"checkpoint-*/{WHOLE}") if (number := _step(path.parent)) >= 0)
    kept = {*whole[-keep:], best}
    for path in output_dir.glob("checkpoint-*"):
        if _step(path) not in kept and _step(path) >= 0:
            (path / WHOLE).unlink(missing_ok=True)
            shutil.rmtree(path)


def last_checkpoint(output_dir: str | Path) -> str | None:
    """Path of the latest whole checkpoint in `output_dir`, None if there is none."""
    found = [path.parent for path in Path(output_dir).glob(f"checkpoint-*/{WHOLE}") if _step(path.parent) >= 0]
    return str(max(found, key=_step)) if found else None


def resume_from(output_dir: str | Path, resume: bool) -> str | None:
    """What a trainer is to continue from; called by every process of a run.

    Raises:
        ConfigError: the folder has checkpoints and `resume` is false: they would be mixed with new ones.
    """
    last = last_checkpoint(output_dir)
    if last and not resume:
        raise configs.ConfigError(
            f"{last} is from an earlier run: pass resume=true to continue it, or another output_dir."
        )
    if last:
        if first_rank():
            print(f"continues from {last}", flush=True)
        _load_onto_numbered_cpus()
    return last if resume else None


@cache  # torch sorts what is registered, and cannot sort two of the same
def _load_onto_numbered_cpus() -> None:
    """Let torch load onto "cpu:0".

    Of several processes on a CPU accelerate (1.15) names each one's device so, transformers (5.17) loads the optimizer
    onto it, and torch (2.13) knows only "cpu". Can go when any of them does otherwise.
    """
    torch.serialization.register_package(11, lambda _: None, lambda obj, at: obj if at.startswith("cpu:") else None)


def save_now(trainer: Any, everywhere: bool = True) -> str:
    """Write a checkpoint of a trainer that was stopped within a step, of the weights before it.

    The random state is that of the moment: what resumes from it draws other completions in that step.

    Args:
        everywhere: every process of the run was stopped and calls it. If one alone was, nothing is written: the others
            wait for it elsewhere, and what processes write together would never be whole.

    Returns:
        What was done, in words: nothing where no update was made yet, or where the weights are broken themselves.
    """
    step, last = trainer.state.global_step, last_checkpoint(trainer.args.output_dir)
    if last and _step(Path(last)) == step:
        return f"The last good state is {last}."
    if not step:
        return "No update was made, the weights are those it began with."
    if trainer.accelerator.num_processes > 1 and not everywhere:
        return f"Not every process was stopped, so nothing was saved; the last whole checkpoint is {last}."
    if not all(gather_object([_are_finite(trainer.model)])):  # under DeepSpeed a gradient is seen after its update
        return f"The weights are not finite themselves; the last whole checkpoint is {last}."
    trainer._save_checkpoint(trainer.model_wrapped, None)
    trainer.control = trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)
    return f"The state before this step was saved: {last_checkpoint(trainer.args.output_dir)}."


def _are_finite(model: Any) -> bool:
    """Whether what this process holds of the weights is finite; under ZeRO-3 that is a share of each (`ds_tensor`)."""
    held = (getattr(weight, "ds_tensor", weight) for weight in model.parameters())
    return all(bool(torch.isfinite(getattr(part, "_local_tensor", part)).all()) for part in held)


def _step(checkpoint: Path) -> int:
    """The number in a checkpoint's name, -1 if it has none."""
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match[1]) if match else -1

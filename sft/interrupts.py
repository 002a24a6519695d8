"""Ctrl-C and SIGTERM, as a cluster sends it before it takes a machine away: the step is finished, then all is saved."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import FrameType

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from configs.terminal import first_rank
from sft.checkpoints import last_checkpoint

SIGNALS = (signal.SIGINT, signal.SIGTERM)
COPY = 10  # seconds


class SaveOnSignal(TrainerCallback):
    """Saves a whole checkpoint and ends training after the first SIGINT or SIGTERM; another one, later, kills at once.

    All processes stop after the same step, whichever of them were told. A launcher passes on what a cluster or a
    terminal sent to all of them: what comes within `COPY` seconds is the same signal once more.
    """

    def __init__(self) -> None:
        self._received, self._since = 0, 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        for number in SIGNALS:
            signal.signal(number, self._note)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        if torch.distributed.is_initialized():
            received = torch.tensor(self._received, device=args.device)
            torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX)
            if received and not self._received:  # another process was told, and the launcher's copy may still come here
                self._received, self._since = int(received), time.monotonic()
        if self._received:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False  # it would come first, and who sent the signal does not wait for ever

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        if not self._received:  # a copy may still come, before `exit_if_told` has ended the program
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def exit_if_told(self, output_dir: str | Path) -> None:
        """End the program with 130 or 143, as shells name these signals, if training was ended by one."""
        if self._received:
            signal.signal(self._received, signal.SIG_IGN)  # all is saved: a copy is not to change the status
            if first_rank():
                print(f"saved {last_checkpoint(output_dir)}; the same command with resume=true goes on from there")
            raise SystemExit(128 + self._received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now, name = time.monotonic(), signal.Signals(number).name
        if self._received and now - self._since > COPY:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif not self._received:
            self._received, self._since = number, now
            said = f"ends after this step, with a checkpoint; {name} again, after {COPY} s, ends at once."
            os.write(2, f"\n{name}: {said}\n".encode())

"""Where a run can be left and taken up again as if it had not been: when all that was written has been trained on."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class AtGenerationEnd(TrainerCallback):
    """Puts saving, validating and stopping off until the completions of one generation are used up.

    TRL 1.16 keeps completions for `steps_per_generation * num_iterations` batches, and no checkpoint holds them: one
    that is saved in between resumes with others, and with its prompts out of step. Can go when TRL saves them.

    Args:
        trainer: the GRPOTrainer; add this after every callback that asks for a checkpoint.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._put_off: set[str] = set()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_) -> None:
        period = self._trainer.args.steps_per_generation * self._trainer.num_iterations
        between = self._trainer._step % period != 0 and state.global_step < state.max_steps
        for asked in ("should_save", "should_evaluate", "should_training_stop"):
            if getattr(control, asked):
                self._put_off.add(asked)
            setattr(control, asked, asked in self._put_off and not between)
        if not between:
            self._put_off.clear()

"""A training's progress bar with the few numbers that matter beside it; all of them go to the tracker and the log."""

from __future__ import annotations

from typing import Any

from transformers import ProgressCallback, Trainer, TrainerControl, TrainerState, TrainingArguments

SHOWN = {
    "loss": "loss",
    "mean_token_accuracy": "token accuracy",
    "reward": "reward",
    "rewards/mask_iou/mean": "mask IoU",
    "rewards/box_iou/mean": "box IoU",
    "states/invalid": "invalid",
    "completions/mean_length": "tokens",
    "sampling/sampling_logp_difference/mean": "logp gap",
}


class ProgressLine(ProgressCallback):
    """transformers' bar, without a printed dictionary for every logged step."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if self.training_bar is not None and logs is not None:
            shown = {name: logs[key] for key, name in SHOWN.items() if isinstance(logs.get(key), float)}
            if shown:
                self.training_bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()})


def show_progress(trainer: Trainer) -> None:
    """Put this project's progress line in place of what the trainer would print."""
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(ProgressLine())

"""A training's progress bar with the few numbers that matter beside it; all of them go to the tracker and the log."""

from __future__ import annotations

from typing import Any

from transformers import ProgressCallback, Trainer, TrainerControl, TrainerState, TrainingArguments

SHOWN = {
    "loss": "loss",
    "bce": "bce",
    "focal": "focal",
    "dice": "dice",
    "text": "text",
    "eval_miou": "validation IoU",
    "mean_token_accuracy": "token accuracy",
    "reward": "reward",
    "eval_gIoU": "held-out gIoU",
    "rewards/mask_iou/mean": "mask IoU",
    "rewards/box_iou/mean": "box IoU",
    "states/invalid": "invalid",
    "completions/mean_length": "tokens",
    "sampling/sampling_logp_difference/mean": "logp gap",
}


class ProgressLine(ProgressCallback):
    """transformers' bar, without a printed dictionary for every logged step. A number stays until its next value."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, str] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if self.training_bar is not None and logs is not None:
            self._shown |= {name: f"{logs[key]:.3g}" for key, name in SHOWN.items() if isinstance(logs.get(key), float)}
            if self._shown:
                self.training_bar.set_postfix(self._shown)


def show_progress(trainer: Trainer) -> None:
    """Put this project's progress line in place of what the trainer would print."""
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(ProgressLine())

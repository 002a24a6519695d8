"""What SegGRPOTrainer costs over TRL's own GRPOTrainer, on the same scenes with one trivial reward, on one core.

    OMP_NUM_THREADS=1 python tests/bench/bench_trainer.py [rounds]

Both write completions of one length with transformers (TRL expands image tokens twice for vLLM, trl#6294). Rounds
alternate, which of the two goes first too, and seconds are of this process's own time, so that what else runs on the
machine counts little. The first generation of each run, in which kernels warm up, is left out.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from rl.trainer import SegGRPOTrainer
from rollouts.device import training_arguments
from rollouts.policy import freeze_vision, image_frame, load_model, load_processor
from rollouts.rows import prompt_rows
from segmentation.boxes import ResizedPixels
from segmentation.data.scenes import Scenes
from segmentation.decoders import FilledBox
from segmentation.formats import BoxFormat

BASE = Path(__file__).parents[2] / "sft" / "small_base" / "model"
UPDATES, WARM, LENGTH = 8, 2, 32
SETTINGS: dict[str, Any] = {
    "max_steps": UPDATES,
    "per_device_train_batch_size": 128,
    "steps_per_generation": 2,
    "num_generations": 4,
    "max_completion_length": LENGTH,
    "generation_kwargs": {"min_new_tokens": LENGTH},
    "learning_rate": 0.0,
    "loss_type": "dr_grpo",
    "scale_rewards": "none",
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


class Clock(TrainerCallback):
    """Seconds of processor time between one update and the next."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._last = self._last or time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = time.process_time()
        self.seconds.append(now - self._last)
        self._last = now


def main(rounds: int) -> None:
    """Run both, `rounds` times, and print the ratio of their medians."""
    taken: dict[str, list[float]] = {"plain": [], "ours": []}
    for turn in range(rounds):
        for kind in ("plain", "ours") if turn % 2 else ("ours", "plain"):
            seconds = run(kind)[WARM:]
            # Two updates share a generation: together they are a step as a user sees it.
            taken[kind] += [sum(pair) for pair in zip(seconds[::2], seconds[1::2], strict=True)]
    plain, ours = (statistics.median(taken[kind]) for kind in ("plain", "ours"))
    Console().print(
        f"256 completions of {LENGTH} tokens, two updates: GRPOTrainer {plain:.2f} s, SegGRPOTrainer {ours:.2f} s, "
        f"ratio {ours / plain:.3f} (medians of {len(taken['ours'])})"
    )


def run(kind: str) -> list[float]:
    """Seconds of each update of a run from the base model."""
    clock, processor = Clock(), load_processor(BASE)
    frame = image_frame(processor)
    assert isinstance(frame, ResizedPixels)
    format = BoxFormat(frame)
    with tempfile.TemporaryDirectory() as folder:
        same: dict[str, Any] = {
            "model": freeze_vision(load_model(BASE, "float32")),
            "args": GRPOConfig(output_dir=folder, **SETTINGS, **training_arguments()),
            "train_dataset": prompt_rows(Scenes("train", 4096), format, frame),
            "processing_class": processor,
            "callbacks": [clock],
        }
        if kind == "ours":
            trainer = SegGRPOTrainer(**same, format=format, rewards={"length": length}, decoder=FilledBox())
        else:
            trainer = GRPOTrainer(**same, reward_funcs=[length])
        trainer.train()
    return clock.seconds


def length(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
    """A trivial reward, which either trainer can call."""
    return [float(ids[0] % 2) for ids in completion_ids]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)

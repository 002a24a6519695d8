"""Runs of rl/grpo.py on one process and on two, for tests that compare what they saw and what became of the policy."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from segmentation.masks import decode
from tests.runs import ROOT, accelerate, environment, history

TINY = [
    "format=box",
    "data=scenes",
    "decoder=trained",
    "+trainer.num_train_epochs=1",
    "trainer.max_steps=-1",
    "trainer.num_generations=4",
    "trainer.steps_per_generation=1",
    "trainer.max_completion_length=40",
    "trainer.learning_rate=1e-3",
    "trainer.warmup_steps=0",
    "trainer.report_to=none",
    "+trainer.save_strategy=no",
]
ROWS = 8  # of all processes: two prompts with four completions each
LORA = "model.lora={r: 4, lora_alpha: 8}"


@dataclass(frozen=True)
class Run:
    """What a run left behind.

    Args:
        folder: its output_dir.
        batches: of each generation its rows in order, of all processes: sample id, tokens, area of the mask.
        rewards: the logged mean of each step.
        policy: its weights by name.
    """

    folder: Path
    batches: list[list[tuple[str, list[int], int]]]
    rewards: list[float]
    policy: dict[str, Tensor]


def note(predictions, samples, masks, completion_ids, *, folder: str, **_: Any) -> list[float | None]:
    """A reward that pays nothing, and writes down what rewards of this process are shown."""
    areas = [0 if mask is None else int(decode(mask).sum()) for mask in masks]
    rows = list(zip([sample.id for sample in samples], completion_ids, areas, strict=True))
    path = Path(folder) / f"seen-{os.environ.get('RANK', '0')}.jsonl"
    with path.open("a") as file:
        file.write(json.dumps(rows) + "\n")
    return [None] * len(samples)


def train(folder: Path, policy: Path, decoder: Path, launch: str, processes: int, *overrides: str) -> Run:
    """Train by `configs/launch/{launch}.yaml` on so many processes."""
    folder.mkdir(parents=True, exist_ok=True)
    noted = f"+rewards.note={{_target_: tests.distributed_runs.note, weight: 0.0, folder: {folder}}}"
    given = [f"model.path={policy}", f"decoder.path={decoder}", f"output_dir={folder}", noted]
    shared = f"trainer.per_device_train_batch_size={ROWS // processes}"
    done = subprocess.run(
        [*accelerate(launch, processes), "rl/grpo.py", *TINY, shared, *given, *overrides],
        cwd=ROOT,
        env={**environment(), "DS_ACCELERATOR": "cpu"},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    return read(folder, processes)


def read(folder: Path, processes: int) -> Run:
    """What is in a run's folder; fails if another number of processes wrote to it."""
    paths = [folder / f"seen-{number}.jsonl" for number in range(processes)]
    assert sorted(folder.glob("seen-*.jsonl")) == paths
    written = [path.read_text().splitlines() for path in paths]
    parts = [[json.loads(line) for line in lines[1:]] for lines in written]  # the first is of the check of options
    batches = [[tuple(row) for part in batch for row in part] for batch in zip(*parts, strict=True)]
    rewards = [line["reward"] for line in history(folder) if "reward" in line]
    return Run(folder, batches, rewards, load_file(folder / "policy" / "model.safetensors"))

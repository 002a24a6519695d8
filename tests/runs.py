"""Entry points as a user starts them, kept short: helpers of the tests that train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
BASE = "sft/small_base/model"
QUICK_SFT = ["trainer.max_steps=4", "trainer.per_device_train_batch_size=8", "trainer.report_to=none"]
QUICK_GRPO = [
    "trainer.max_steps=2",
    "trainer.per_device_train_batch_size=16",
    "trainer.steps_per_generation=1",
    "trainer.num_generations=4",
    "trainer.max_completion_length=48",
    "trainer.report_to=none",
    "trainer.save_steps=1",
]


def command(script: str, *overrides: object, processes: int = 1) -> list[str]:
    """`accelerate launch script overrides...` with this interpreter's accelerate."""
    return [*accelerate("cpu", processes), script, *map(str, overrides)]


def accelerate(name: str, processes: int) -> list[str]:
    """`accelerate launch` on the CPU, by `configs/launch/{name}.yaml` where there is more than one process."""
    shape = ["--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    shape += ["--dynamo_backend", "no", "--main_process_port", os.environ.get("MASTER_PORT", "29500")]
    by = ["--cpu"] if processes == 1 else ["--config_file", str(ROOT / "configs" / "launch" / f"{name}.yaml")]
    return [str(Path(sys.executable).with_name("accelerate")), "launch", *by, *shape]


def launch(script: str, *overrides: object, processes: int = 1) -> str:
    """Run an entry point to its end and return what it printed; its failure fails the test with its output."""
    done = subprocess.run(
        command(script, *overrides, processes=processes), cwd=ROOT, env=environment(), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    return done.stdout


def lottery(predictions, samples, masks, completion_ids, **_) -> list[float | None]:
    """A reward that differs within a group whatever the policy can do."""
    return [sum(ids) % 97 / 97 for ids in completion_ids]


def half(predictions, samples, masks, completion_ids, **_) -> list[float | None]:
    """A lottery for every other scene, by its number; the rest are paid alike."""
    numbers = [int(sample.id.split("-")[3]) for sample in samples]
    tickets = lottery(predictions, samples, masks, completion_ids)
    return [ticket if number % 2 else 0.0 for ticket, number in zip(tickets, numbers, strict=True)]


def noted(predictions, samples, masks, *, folder: str, **_) -> list[float | None]:
    """Pays nothing and notes who was asked what: a line a completion, a file a process."""
    with (Path(folder) / f"asked-{os.environ.get('RANK', '0')}").open("a") as file:
        file.writelines(f"{sample.id}\n" for sample in samples)
    return [0.0] * len(samples)


def environment() -> dict[str, str]:
    """Without a hub, and on a CPU without a C++ compiler: a user needs neither."""
    compiler = {} if torch.cuda.is_available() else {"CXX": "none"}
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **offline, **compiler}


def history(output_dir: Path) -> list[dict]:
    """Every line the trainer logged."""
    return json.loads((output_dir / "trainer_state.json").read_text())["log_history"]

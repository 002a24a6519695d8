"""Run by test_killed.py: kill rl/grpo.py at random moments, resume it, compare its losses with an uninterrupted run's.

    python tests/killed_runs.py FOLDER 20

Every run is a process of its own, forked from this one once everything is imported, and ends by SIGKILL within the part
of a step that is chosen: generation, scoring, backward, update, the write of a checkpoint. Prints a JSON line for each.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer

from rl.grpo import main as grpo
from rl.trainer import SegGRPOTrainer
from sft.checkpoints import last_checkpoint
from tests.runs import BASE, history

STEPS, EVERY, FURTHER = 16, 2, 10  # of a run, between checkpoints, and that must be the same after resuming
SAME = ("loss", "grad_norm", "entropy", "reward", "completions/mean_length")
PARTS: dict[str, tuple[Any, str]] = {
    "generation": (SegGRPOTrainer, "_generate_single_turn"),
    "scoring": (SegGRPOTrainer, "_calculate_rewards"),
    "backward": (Accelerator, "backward"),
    "update": (AcceleratedOptimizer, "step"),
    "checkpoint": (SegGRPOTrainer, "_save_checkpoint"),
}
SETTINGS = [
    f"model.path={BASE}",
    "rollouts=transformers",
    f"trainer.max_steps={STEPS}",
    f"trainer.save_steps={EVERY}",
    "trainer.save_total_limit=1",
    "trainer.per_device_train_batch_size=4",
    "trainer.steps_per_generation=1",
    "trainer.num_generations=2",
    "trainer.max_completion_length=8",
    "trainer.learning_rate=1e-4",
    "trainer.report_to=none",
    "+trainer.disable_tqdm=true",
    "+rewards.lottery={_target_: tests.runs.lottery, weight: 1.0}",
]


def forked(task: Callable[[], None], log: Path) -> int:
    """Run a task in a forked process; returns its exit status, negative for the signal that ended it."""
    child = os.fork()
    if child == 0:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        status = 1
        try:
            task()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(folder: Path, *more: str) -> None:
    """rl/grpo.py with these arguments."""
    sys.argv = ["rl/grpo.py", *SETTINGS, f"output_dir={folder}", *more]
    grpo()


def kill_within(part: str, call: int, after: float) -> None:
    """End this process by SIGKILL `after` seconds into that call of the part, or as it returns."""
    owner, name = PARTS[part]
    original, calls = getattr(owner, name), [0]

    def watched(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] != call:
            return original(*args, **kwargs)
        threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL)).start()
        original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, watched)


def measure(seconds: dict[str, float]) -> None:
    """Note how long the last call of each part took."""

    def timed(part: str, original: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                seconds[part] = time.perf_counter() - start

        return call

    for part, (owner, name) in PARTS.items():
        setattr(owner, name, timed(part, getattr(owner, name)))


def uninterrupted(folder: Path) -> None:
    """A run from its beginning to its end, and how long each part of a step takes."""
    seconds: dict[str, float] = {}
    measure(seconds)
    run(folder)
    (folder / "seconds.json").write_text(json.dumps(seconds))


def losses(folder: Path) -> dict[int, tuple[float, ...]]:
    """What each step was: its loss alone is next to 0 whatever is learned, since advantages are about their mean."""
    return {line["step"]: tuple(line[key] for key in SAME) for line in history(folder) if "loss" in line}


def kill_and_resume(folder: Path, number: int) -> dict[str, Any]:
    """One kill and what came of it, by the number's own chance; `folder/whole` holds the uninterrupted run."""
    log, torn = folder / "log", folder / f"killed_{number}"
    expected, seconds = losses(folder / "whole"), json.loads((folder / "whole" / "seconds.json").read_text())
    chance, part = random.Random(number), list(PARTS)[number % len(PARTS)]
    call = chance.randint(1, 2) if part == "checkpoint" else chance.randint(1, 6)
    after = chance.random() * seconds[part]

    def killed() -> None:
        kill_within(part, call, after)
        run(torn)

    status = forked(killed, log)
    assert status == -signal.SIGKILL, f"{part}: ended with {status} instead of a kill\n{log.read_text()[-4000:]}"
    found = last_checkpoint(torn)
    assert forked(lambda: run(torn, "resume=true"), log) == 0, log.read_text()[-4000:]
    first = int(found.rpartition("-")[2]) + 1 if found else 1
    further = {step: loss for step, loss in losses(torn).items() if step >= first}
    same = len(further) >= FURTHER and further == {step: expected[step] for step in range(first, STEPS + 1)}
    return {"part": part, "call": call, "after": round(after, 4), "from": first - 1, "same": same}


def main(folder: Path, kills: int) -> None:
    """The uninterrupted run, then each kill with its resumption."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    assert forked(lambda: uninterrupted(folder / "whole"), log) == 0, log.read_text()[-4000:]
    for number in range(kills):
        print(json.dumps(kill_and_resume(folder, number)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

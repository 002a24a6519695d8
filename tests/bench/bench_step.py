"""Where the time of a GRPO step goes: generate, score, parse, decode, reward, backward, sync.

    python tests/bench/bench_step.py model.path=outputs/warm_start/policy format=box trainer.max_steps=8
    python tests/bench/bench_step.py ... decoder=trained decoder.path=outputs/decoder/best

Arguments are those of rl/grpo.py, which it runs. Parts overlap where one is made within another: `score` is the passes
without gradients, `forward` those with. The first step, in which engines and kernels warm up, is left out.
"""

from __future__ import annotations

import time
from collections import defaultdict
from functools import wraps
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table
from transformers import Trainer
from trl.extras.profiling import ProfilingContext

from rl.grpo import main

NAMES = {  # TRL's name, or ours (rl/trainer.py): what it is called here
    "vLLM.generate": "generate",
    "transformers.generate": "generate",
    "sync_weights": "sync",
    "parse": "parse",
    "decode": "decode",
    "_calculate_rewards": "rewards, with parse and decode",
    "compute_loss": "forward",
}
seconds: dict[str, list[float]] = defaultdict(list)


def timed(owner: Any, method: str, name: str) -> None:
    """Add the time of each call of a method to `seconds[name]`."""
    original = getattr(owner, method)

    @wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        start = _now()
        try:
            return original(*args, **kwargs)
        finally:
            seconds[name].append(_now() - start)

    setattr(owner, method, call)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def log(context: ProfilingContext, duration: float) -> None:
    """In place of TRL's own logging, which goes to trackers alone."""
    name = context.name.partition(".")[2]  # the class stands before it
    if name == "_get_per_token_logps_and_entropies":
        name = "score" if not torch.is_grad_enabled() else "forward of the policy"
    seconds[NAMES.get(name, name)].append(duration)


def report() -> None:
    """Mean seconds a step, and shares."""
    steps = seconds.pop("step")
    whole = sum(steps[1:])
    table = Table(title=f"{len(steps) - 1} updates of {whole / max(len(steps) - 1, 1):.2f} s")
    for column in ("part", "calls", "s", "share of all"):
        table.add_column(column)
    for name, times in sorted(seconds.items(), key=lambda item: -sum(item[1])):
        per_step = len(times) / len(steps)
        later = times[max(1, round(per_step)) :]
        table.add_row(name, str(len(later)), f"{sum(later):.2f}", f"{sum(later) / whole:.1%}")
    Console().print(table)


if __name__ == "__main__":
    setattr(ProfilingContext, "_log_metrics", log)  # noqa: B010, a type checker would not have it assigned
    timed(Trainer, "training_step", "step")
    timed(Accelerator, "backward", "backward")
    main()
    report()

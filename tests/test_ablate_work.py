"""rl/ablation/work.py with real processes: order, failures, and what a killed sweep leaves behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from configs import ConfigError
from rl.ablation.devices import Device
from rl.ablation.plan import Step
from rl.ablation.work import Outcome, Workshop, outcome, reason, resumes
from rl.steps import ONE_PROCESS
from tests.runs import ROOT

CORE = min(os.sched_getaffinity(0))
DEVICES = [Device(cores=frozenset({CORE})) for _ in range(3)]


def bare(command: list[str]) -> list[str]:
    """A step's command without accelerate, which takes seconds to load torch; with it in test_ablate_sweep.py."""
    return [sys.executable, *command[2 + len(ONE_PROCESS) :]]


def workshop(root: Path, told: Callable[[Step, Outcome | None], None] = lambda *_: None) -> Workshop:
    return Workshop(root, DEVICES, told, bare)


@pytest.fixture
def script(tmp_path: Path) -> str:
    """A step's script; by its name it has no `resume`."""
    return str(shutil.copy(ROOT / "tests" / "ablation_step.py", tmp_path / "evaluate.py"))


def starts(step: Step, root: Path) -> int:
    path = step.folder(root) / "starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_failure_stops_only_what_needs_it_and_is_tried_again(script, tmp_path):
    root = tmp_path / "sweep"
    good = Step("good", script, ("a=1",))
    after = Step("after", script, ("model={good}/made",), (good,))
    bad = Step("bad", script, ("fail=broken",))
    never = Step("never", script, ("model={bad}/made",), (bad,))
    said: list[tuple[str, bool]] = []
    with workshop(root, lambda step, ended: said.append((step.name, ended is not None))) as work:
        ended = work.do([after, never])
    assert [ended[step.id].problem == "" for step in (good, after, bad, never)] == [True, True, False, False]
    assert "broken: as it was told (exit status 1)" in ended[bad.id].problem == ended[never.id].problem
    assert not never.folder(root).exists() and outcome(never, root) is None
    assert said.index(("good", True)) < said.index(("after", False))
    assert f"{good.folder(root)}/made" in (after.folder(root) / "starts").read_text()
    with workshop(root) as work:
        work.do([after, bad])
    assert [starts(step, root) for step in (good, after, bad)] == [1, 1, 2]
    assert [getattr(outcome(step, root), "starts", 0) for step in (good, bad)] == [1, 2]


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


DRIVER = """
import sys
from pathlib import Path
from rl.ablation.work import ended_by_sigterm
from tests.test_ablate_work import long, workshop
with ended_by_sigterm(), workshop(Path(sys.argv[2])) as work:
    work.do([long(sys.argv[1], Path(sys.argv[2]))])
"""


def long(script: str, root: Path) -> Step:
    """A step that ends when there is a file `go on`."""
    return Step("long", script, ("wait=600", f"until={root}/go on"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_sweep_leaves_nothing_at_work_and_goes_on(how, script, tmp_path):
    root = tmp_path / "sweep"
    step = long(script, root)
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, script, str(root)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while not starts(step, root) and time.monotonic() < deadline:
        time.sleep(0.1)
    if how == signal.SIGKILL:
        with pytest.raises(ConfigError, match=r"another .* is at work there"):
            workshop(root).__enter__()
    driver.send_signal(how)
    driver.wait()
    group = int((step.folder(root) / "pid").read_text())
    assert alive(group) == (how == signal.SIGKILL)
    (root / "go on").touch()
    with workshop(root) as work:
        assert not alive(group)  # what SIGKILL left is gone before anything is started
        if how == signal.SIGKILL:
            ended = work.do([step])
            assert ended[step.id].problem == "" and ended[step.id].starts == 2
            assert starts(step, root) == 2 and (step.folder(root) / "made").exists()


def test_what_a_step_said_last_is_why_it_failed():
    own = "$ accelerate launch x\n 3%|  | 1/9\rTraceback (most recent call last):\n  File 'a.py'\nValueError: it is\n"
    theirs = (
        'Traceback (most recent call last):\n  File "/x/bin/accelerate", line 7, in <module>\nCalledProcessError: y\n'
    )
    assert reason(own + theirs) == reason(own) == "ValueError: it is"
    assert reason("$ accelerate launch x\n" + theirs) == "it printed nothing"


def test_trainings_are_resumed_and_evaluations_go_on_by_themselves():
    assert resumes("rl/grpo.py") and resumes("sft/warm_start.py") and resumes("sft/train_decoder.py")
    assert not resumes("evaluation/evaluate.py")

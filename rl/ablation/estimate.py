"""How long a sweep will take, from its steps that are done, or from a few measured ones; and the view of a dry run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from rl.ablation.plan import Run, Step
from rl.ablation.work import Workshop, outcome

SEED = re.compile(r"(\w+\.)?seed=")
MEASURED = "measured"  # the folder, in the sweep's, of steps that were cut short to be timed


@dataclass(frozen=True)
class Pace:
    """What a step took: `seconds` for `length` optimiser steps, None for what is no training, and `before` to start."""

    step: Step
    length: int | None
    seconds: float
    before: float = 0.0

    def of(self, length: int | None) -> float | None:
        """What one of another length takes."""
        if length == self.length:
            return self.before + self.seconds
        return self.before + self.seconds * length / self.length if length and self.length else None


class Clock:
    """Times steps by those that are done, and by measured ones where none of the name is.

    Args:
        composed: the config of each step, by id.
        root: the sweep's folder.
    """

    def __init__(self, runs: Sequence[Run], composed: Mapping[str, DictConfig], root: Path) -> None:
        self._composed, self._root = composed, root
        self.steps = {step.id: step for run in runs for step in run.steps}
        self.done: dict[str, Pace] = {}
        self.finished: set[str] = set()
        for key, step in self.steps.items():
            ended = outcome(step, root)
            if ended and not ended.problem:
                self.finished.add(key)
                if ended.starts == 1:  # of a step that was killed and went on nobody knows the whole
                    self.done[key] = Pace(step, self.length(step), ended.seconds)
        self.measured: dict[str, Pace] = {}

    def length(self, step: Step) -> int | None:
        """Optimiser steps of a training; None for what is none, or goes by epochs."""
        most = (self._composed[step.id].get("trainer") or {}).get("max_steps", 0)
        return most if most > 0 else None

    def estimate(self, step: Step) -> tuple[float | None, str]:
        """Seconds that a step will take, and where that is from."""
        known = [(_differences(pace.step, step), pace) for pace in self.done.values() if pace.step.name == step.name]
        for least in sorted({count for count, _ in known}):
            times = [
                time for count, pace in known if count == least and (time := pace.of(self.length(step))) is not None
            ]
            if times:
                said = "done ones" if least == 0 else "the done ones most like it"
                return sum(times) / len(times), said
        if step.name in self.measured:
            pace = self.measured[step.name]
            time = pace.of(self.length(step))
            if time is not None:
                return time, f"{pace.length} measured steps"
        return None, "not known: none is done" + ("" if self.length(step) is None else ", or measured (measure=3)")

    def measure(self, workshop: Workshop, root: Path, length: int) -> None:
        """Do `length` steps of one training of each name of which none is done, in `root`, and time them.

        An evaluation is not measured: how long its answers are depends on a policy that is not there yet.
        """
        first: dict[str, Step] = {}
        for step in self.steps.values():
            if self.length(step) and step.name not in {pace.step.name for pace in self.done.values()}:
                first.setdefault(step.name, step)
        cut = {name: self._cut(step, length) for name, step in first.items()}
        ended = workshop.do(cut.values())
        for name, step in cut.items():
            state = step.folder(root) / "trainer_state.json"
            if not ended[step.id].problem and state.exists():
                logged = json.loads(state.read_text(encoding="utf-8"))["log_history"]
                inside = next(line["train_runtime"] for line in reversed(logged) if "train_runtime" in line)
                self.measured[name] = Pace(first[name], length, inside, ended[step.id].seconds - inside)

    def _cut(self, step: Step, length: int) -> Step:
        """The same training, and those it needs, but short."""
        short = (f"trainer.max_steps={length}",) if self.length(step) else ()
        told = tuple(text for text in step.overrides if not text.startswith("trainer.max_steps=") or not short)
        return replace(step, overrides=told + short, needs=tuple(self._cut(need, length) for need in step.needs))


def show_plan(console: Console, axes: Sequence[str], runs: Sequence[Run], clock: Clock, jobs: int, root: Path) -> None:
    """Print the cells, the steps, and the time they will take."""
    cells = Table(title=f"{len({run.cell for run in runs})} cells, {len(runs)} runs", title_justify="left")
    for head in (*axes, "runs", "to come, about"):
        cells.add_column(head, overflow="fold")
    shared: set[str] = set()  # with the first cell that needs it
    for cell in dict.fromkeys(run.cell for run in runs):
        own = [run for run in runs if run.cell == cell]
        steps = {step.id: step for run in own for step in run.steps if step.id not in clock.finished | shared}
        shared |= steps.keys()
        states = [_state(run, clock, root) for run in own]
        said = ", ".join(f"{states.count(one)} {one}" for one in dict.fromkeys(states))
        cells.add_row(*cell.labels, said, _sum([clock.estimate(step)[0] for step in steps.values()]))
    console.print(cells)

    kinds = Table("step", "to do", "done", "each, about", "estimated from", title="Steps", title_justify="left")
    todo = [step for key, step in clock.steps.items() if key not in clock.finished]
    for name in dict.fromkeys(step.name for step in clock.steps.values()):
        told = [clock.estimate(step) for step in todo if step.name == name]
        done = sum(step.name == name for step in clock.steps.values()) - len(told)
        known = [seconds for seconds, _ in told if seconds is not None]
        each = dict.fromkeys(duration(seconds) for seconds in (min(known), max(known))) if known else {}
        sources = dict.fromkeys(source for _, source in told)
        kinds.add_row(name, str(len(told)), str(done), " to ".join(each), "; ".join(sources))
    console.print(kinds)
    whole = _sum([clock.estimate(step)[0] for step in todo], jobs)
    console.print(f"{len(todo)} steps to do, {jobs} at a time: {whole}.")


def _sum(times: Sequence[float | None], jobs: int = 1) -> str:
    """What steps take together, and how many of them nothing has timed."""
    known = [seconds for seconds in times if seconds is not None]
    untimed = len(times) - len(known)
    parts = [duration(sum(known) / jobs)] if known or not times else []
    return " + ".join([*parts, *([f"{untimed} not timed"] if untimed else [])])


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _state(run: Run, clock: Clock, root: Path) -> str:
    if all(step.id in clock.finished for step in run.steps):
        return "done"
    if any((ended := outcome(step, root)) and ended.problem for step in run.steps):
        return "failed"
    own = run.steps[-2:]  # its training and evaluation
    return "begun" if any(step.folder(root).exists() for step in own) else "to do"


def _differences(one: Step, other: Step) -> int:
    """In how many overrides two steps differ, seeds apart."""
    told = [{text for text in step.overrides if not SEED.match(text)} for step in (one, other)]
    return len(told[0] ^ told[1])

"""What a sweep found: each cell's metrics over its seeds, its difference to the baseline, and Student-t intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import ConfigError
from evaluation.folder import read_metrics
from evaluation.intervals import Interval, student
from evaluation.predictions import read_run
from rl.ablation.cells import TRAINED, Cell
from rl.ablation.plan import BEFORE, SCORED, Run, Sweep
from rl.ablation.work import Outcome

NOTE = "95% Student-t intervals over seeds; differences to the baseline are paired by seed."


@dataclass(frozen=True)
class Result:
    """A run that is over: its metrics, those of the policy it started from where they were asked for, what its training
    logged, and on what it was evaluated and how; or why it failed."""

    run: Run
    metrics: Mapping[str, Any] | None
    before: Mapping[str, Any] | None
    history: Sequence[Mapping[str, Any]]
    asked: str
    problem: str = ""


@dataclass(frozen=True)
class Line:
    """A cell of the table. `values` and `gains` over the baseline by metric: None where there is none.

    An interval of one seed has no width: its ends are nan. `seeds` are those that gave the values.
    """

    cell: Cell
    baseline: bool
    seeds: tuple[int, ...]
    failed: int
    values: Mapping[str, Interval | None]
    gains: Mapping[str, Interval | None]
    points: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Found:
    """A sweep's table: its lines in the order of the cells, and for each metric the numbers of the best of them."""

    axes: tuple[str, ...]
    metrics: Mapping[str, str]
    lines: Sequence[Line]
    best: Mapping[str, frozenset[int]]
    seeds: int

    @property
    def note(self) -> str:
        """What the intervals are, and which lines lack something."""
        lacking = sum(line.failed > 0 for line in self.lines)
        several = f"{NOTE} {self.seeds} seeds." if self.seeds > 1 else "One seed: no intervals."
        return several + (f" Cells in which a run failed: {lacking}." if lacking else "")


def read_results(runs: Sequence[Run], ended: Mapping[str, Outcome], root: Path) -> list[Result]:
    """The results of runs whose steps have ended."""
    results = []
    for run in runs:
        if problem := next((ended[step.id].problem for step in run.steps if ended[step.id].problem), ""):
            results.append(Result(run, None, None, [], "", problem))
            continue
        folders = {step.name: step.folder(root) for step in run.steps}
        metrics = read_metrics(folders[SCORED])
        before = read_metrics(folders[BEFORE]) if BEFORE in folders else None
        asked = [read_run(folders[SCORED] / "predictions.jsonl").get("benchmark")]
        asked += [metrics.get(key) for key in ("protocol", "answers", "n_scored")]
        state = json.loads((folders[TRAINED] / "trainer_state.json").read_text(encoding="utf-8"))
        results.append(Result(run, metrics, before, state["log_history"], json.dumps(asked)))
    return results


def value(results: Sequence[Result], cell: Cell, metric: str) -> float | None:
    """A cell's mean of a metric over its seeds, None where one failed or has no value."""
    values = [one.metrics[metric] if one.metrics else None for one in results if one.run.cell == cell]
    known = [number for number in values if number is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def tabulated(sweep: Sweep, results: Sequence[Result], seeds: int) -> Found:
    """The table of all cells.

    Raises:
        ConfigError: runs were not evaluated on the same samples by the same rules.
    """
    asked = {one.asked: one.run for one in results if one.asked}
    if len(asked) > 1:
        cells = " and ".join(str(run.cell) for run in list(asked.values())[:2])
        raise ConfigError(f"{cells} are evaluated on different data, or by different rules: no table compares them.")
    scored = {(one.run.cell, one.run.seed): one.metrics for one in results if one.metrics is not None}
    lines = []
    for cell in dict.fromkeys(one.run.cell for one in results):
        base = sweep.baseline_of(cell) if sweep.baseline else None
        own = [seed for of, seed in scored if of == cell]
        both = [(scored[cell, seed], scored[base, seed]) for seed in own if base and (base, seed) in scored]
        values = {name: [scored[cell, seed][name] for seed in own] for name in sweep.metrics}
        gains = {name: [_less(ours[name], theirs[name]) for ours, theirs in both] for name in values}
        lines.append(
            Line(
                cell,
                cell == base,
                tuple(own),
                sum(one.run.cell == cell and bool(one.problem) for one in results),
                {name: _interval(many) for name, many in values.items()},
                {name: None if cell == base else _interval(many) for name, many in gains.items()},
                {name: tuple(one for one in many if one is not None) for name, many in values.items()},
            )
        )
    best = {name: _best(lines, name, better, seeds) for name, better in sweep.metrics.items()}
    return Found(tuple(axis.name for axis in sweep.axes), sweep.metrics, lines, best, seeds)


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _interval(values: Sequence[float | None]) -> Interval | None:
    """None where there are no values, or a seed has none: a mean of the others would be of chosen ones."""
    known = [value for value in values if value is not None]
    return student(known) if known and len(known) == len(values) else None


def _best(lines: Sequence[Line], metric: str, better: str, seeds: int) -> frozenset[int]:
    """The numbers of the best lines among those with all seeds."""
    whole = {n: line.values[metric] for n, line in enumerate(lines) if len(line.seeds) == seeds}
    means = {n: value.mean for n, value in whole.items() if value is not None and not math.isnan(value.mean)}
    if not means:
        return frozenset()
    top = max(means.values()) if better == "max" else min(means.values())
    return frozenset(n for n, mean in means.items() if mean == top)

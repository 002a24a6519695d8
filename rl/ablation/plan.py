"""The steps that each cell of a sweep takes: entry points with overrides, the later ones naming folders of the earlier.

`{warm_start}` in an override is the folder of the step of that name, `{seed}` the seed of the run. A step that no later
one names is left out, but for `grpo`, `evaluate` and those that the sweep says are always run. Steps are known by what
they do: two runs whose warm start is the same command share it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig

from configs import ConfigError, unknown
from configs.entry import CONFIGS, explained, looking_in
from evaluation.benchmarks import make_benchmarks
from evaluation.score import make_protocol
from rl.ablation.cells import EVERY, TRAINED, Axis, Cell, check_told, merged, named_axes, typed_axes
from rl.steps import launched
from segmentation.figures import figures

SCORED = "evaluate"  # the step whose metrics.json is a run's result
BEFORE = "before"  # the step, if there is one, that evaluates the policy from which grpo starts
FOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Step:
    """An entry point with its overrides, in which `{name}` stands for the folder of a step in `needs`."""

    name: str
    script: str
    overrides: tuple[str, ...]
    needs: tuple[Step, ...] = ()
    config_dir: str | None = None  # hydra's, where choices of one's own lie

    @cached_property
    def id(self) -> str:
        """Name of the step's folder: the same for the same commands, wherever the sweep's folder lies."""
        told = json.dumps([self.script, self.overrides, [need.id for need in self.needs]])
        return f"{self.name}-{hashlib.sha256(told.encode()).hexdigest()[:10]}"

    def folder(self, root: Path) -> Path:
        return root / "steps" / self.id

    def command(self, root: Path) -> list[str]:
        """What reproduces the step, given the steps it needs."""
        folders = {need.name: str(need.folder(root)) for need in self.needs}
        told = [FOLDER.sub(lambda match: folders.get(match[1], match[0]), text) for text in self.overrides]
        beside = ["--config-dir", self.config_dir] if self.config_dir else []
        return launched(self.script, *told, f"output_dir={self.folder(root)}", *beside)


@dataclass(frozen=True)
class Run:
    """A cell with one seed, and its steps in order."""

    cell: Cell
    seed: int
    steps: tuple[Step, ...]

    def step(self, name: str) -> Step | None:
        return next((step for step in self.steps if step.name == name), None)


@dataclass(frozen=True)
class Sweep:
    """A sweep's file and `over`, read.

    `exceptions` hold for cells with the labels they name. `baseline` names labels of some or all axes, and each cell is
    compared with the one that has these and its own other labels; null in the file is the first label of every axis,
    and none where one is an interval.
    """

    steps: Mapping[str, tuple[str, ...]]
    axes: Sequence[Axis]
    exceptions: Sequence[tuple[Mapping[str, Sequence[str]], Mapping[str, Any]]]
    baseline: Mapping[str, str]
    metrics: Mapping[str, str]
    config_dir: str | None = None

    def skips(self, cell: Cell) -> bool:
        """Whether an exception leaves the cell out."""
        return any(told.get("skip") for told in self._exceptions(cell))

    def runs(self, cell: Cell, seeds: int) -> list[Run]:
        """The runs of a cell, one a seed."""
        return [Run(cell, seed, self._plan(cell, seed)) for seed in range(seeds)]

    def baseline_of(self, cell: Cell) -> Cell:
        """What a cell is compared with."""
        return Cell(tuple(self.baseline.get(a.name, own) for a, own in zip(self.axes, cell.labels, strict=True)))

    def _exceptions(self, cell: Cell) -> list[Mapping[str, Any]]:
        own = dict(zip((axis.name for axis in self.axes), cell.labels, strict=True))
        return [told for when, told in self.exceptions if all(own[axis] in labels for axis, labels in when.items())]

    def _plan(self, cell: Cell, seed: int) -> tuple[Step, ...]:
        told = [axis.told(label) for axis, label in zip(self.axes, cell.labels, strict=True)]
        told += self._exceptions(cell)
        made: dict[str, Step] = {}
        for name, (script, *own) in self.steps.items():
            texts = [*own, *(text for one in told for key in (EVERY, name) for text in one.get(key, ()))]
            overrides = merged((text.replace("{seed}", str(seed)) for text in texts), f"{name} of {cell}")
            named = dict.fromkeys(match for text in overrides for match in FOLDER.findall(text))
            if lost := [one for one in named if one not in made]:
                raise unknown(f"step before {name} ({cell})", lost[0], made)
            made[name] = Step(name, script, overrides, tuple(made[one] for one in named), self.config_dir)
        kept, wanted = [], {SCORED, TRAINED, BEFORE}
        for step in reversed(made.values()):
            if step.name in wanted:
                kept.append(step)
                wanted |= {need.name for need in step.needs}
        return tuple(reversed(kept))


def read_sweep(section: Mapping[str, Any], over: str, config_dir: str | None = None) -> Sweep:
    """The section `sweep` of the config, and the axes of `over` behind its own.

    Raises:
        ConfigError: a name of a step, an axis, a label or a script is none.
    """
    steps = {name: tuple(command) for name, command in section["steps"].items()}
    for name, command in steps.items():
        if not command or not Path(command[0]).is_file():
            raise ConfigError(
                f"sweep.steps.{name}: begins with {' '.join(command[:1])!r}, no file here; run from the repository."
            )
    if lacking := {TRAINED, SCORED} - steps.keys():
        raise ConfigError(f"sweep.steps: there is no step {min(lacking)}.")
    axes = [*named_axes(section["axes"] or {}, steps), *typed_axes(over, steps)]
    if not axes:
        raise ConfigError("sweep.axes, over: nothing is varied; try over='trainer.learning_rate=1e-4,3e-4'.")
    if twice := [axis.name for axis in axes if sum(other.name == axis.name for other in axes) > 1]:
        raise ConfigError(f"over: {twice[0]} is varied twice.")
    labels = {axis.name: list(axis.choices) for axis in axes if axis.between is None}
    exceptions = []
    entries: list[dict[str, Any]] = section["exceptions"] or []
    for number, entry in enumerate(entries):
        where = f"sweep.exceptions[{number}]"
        when = {axis: [*map(str, one)] if isinstance(one, list) else [str(one)] for axis, one in entry["when"].items()}
        for axis, own in when.items():
            _check_labels(axis, own, labels, where)
        told = {key: value for key, value in entry.items() if key != "when"}
        check_told({key: value for key, value in told.items() if key != "skip"}, [*steps, EVERY], where)
        exceptions.append((when, told))
    if section["baseline"] is None and len(labels) == len(axes):
        baseline = {axis: choices[0] for axis, choices in labels.items()}
    else:
        baseline = {axis: str(label) for axis, label in (section["baseline"] or {}).items()}
    for axis, label in baseline.items():
        _check_labels(axis, [label], labels, "sweep.baseline")
    return Sweep(steps, axes, exceptions, baseline, dict(section["metrics"]), config_dir)


def check_configs(runs: Sequence[Run]) -> dict[str, DictConfig]:
    """The config of every different kind of step, composed as its entry point will; by step id.

    Kinds differ in more than seed and folders, so that a sweep of hundreds of runs is looked over in seconds.

    Raises:
        ConfigError: an override is wrong; the message names the cell.
    """
    kinds: dict[tuple[str, tuple[str, ...]], DictConfig] = {}
    made = {}
    with initialize_config_dir(str(CONFIGS), version_base=None):
        for run in runs:
            for step in run.steps:
                told = tuple(FOLDER.sub("folder", text) for text in step.overrides)
                kind = step.script, tuple(text for text in told if not re.match(r"(data\.)?seed=", text))
                if kind not in kinds:
                    try:
                        kinds[kind] = compose(Path(step.script).stem, [*told, *looking_in(step.config_dir)])
                    except (HydraException, ValueError) as error:
                        raise ConfigError(f"{run.cell}, {step.name}: {explained(error)}") from error
                made[step.id] = kinds[kind]
    return made


def check_metrics(sweep: Sweep, evaluation: DictConfig) -> None:
    """Hold a sweep's metrics to the figures of its benchmark's protocol.

    Raises:
        ConfigError: one is none, neither max nor min is better, or there is not one benchmark, whole.
    """
    benchmarks, _ = make_benchmarks(evaluation.benchmark, Path())
    if len(benchmarks) != 1:
        raise ConfigError(f"sweep.steps.{SCORED}: {len(benchmarks)} benchmarks; cells are compared on one.")
    valid = figures(make_protocol(evaluation.protocol, benchmarks[0].samples))
    for name, better in sweep.metrics.items():
        if name not in valid:
            raise unknown("metric in sweep.metrics", name, valid)
        if better not in ("max", "min"):
            raise unknown(f"value of sweep.metrics.{name}", str(better), ["max", "min"])


def _check_labels(axis: str, wanted: Sequence[str], labels: Mapping[str, Sequence[str]], where: str) -> None:
    if axis not in labels:
        raise unknown(f"axis in {where}", axis, labels)
    for label in wanted:
        if label not in labels[axis]:
            raise unknown(f"label of {axis} in {where}", label, labels[axis])

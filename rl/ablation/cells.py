"""The cells of a sweep: what is varied, in hydra's grammar or under names, and which combinations are tried.

An axis is either named, each name standing for overrides of several steps, or a key with a sweep of hydra's:

| | |
|---|---|
| `trainer.num_generations=4,8` or `choice(4,8)` | each of them |
| `trainer.max_steps=range(40,121,40)` | each number of the range |
| `rewards.no_target.weight=interval(0.5,2)` | any number between; `int(interval(1,9))` whole ones |
| `trainer.learning_rate=tag(log,interval(1e-5,1e-3))` | the same, as likely in each decade |
"""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException

from configs import ConfigError, unknown

SEARCHES = ("grid", "random", "optuna")
EVERY = "every"  # in place of a step's name: all steps
TRAINED = "grpo"  # the step that keys of `over` are for, unless they name another

Told = Mapping[str, tuple[str, ...]]  # overrides by the step they are for


@dataclass(frozen=True)
class Between:
    """The numbers of an interval, from which searches draw."""

    low: float
    high: float
    log: bool
    whole: bool

    def at(self, share: float) -> str:
        """The number at a share of the way from low to high, 0 <= share < 1, as it is typed."""
        high = self.high + self.whole
        value = self.low * (high / self.low) ** share if self.log else self.low + share * (high - self.low)
        return str(math.floor(value)) if self.whole else f"{value:.4g}"


@dataclass(frozen=True)
class Axis:
    """What is varied together: overrides by label, or the numbers that a key may have."""

    name: str
    choices: Mapping[str, Told]
    between: Between | None = None
    step: str = TRAINED

    def told(self, label: str) -> Told:
        """What a label stands for."""
        return self.choices[label] if self.between is None else {self.step: (f"{self.name}={label}",)}


@dataclass(frozen=True)
class Cell:
    """One label on each axis."""

    labels: tuple[str, ...]

    def __str__(self) -> str:
        return " | ".join(self.labels)


def named_axes(section: Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]], steps: Iterable[str]) -> list[Axis]:
    """The axes of a sweep's file: `{axis: {label: {step: [override, ...]}}}`.

    Raises:
        ConfigError: a label has overrides for a step that is none.
    """
    valid = [*steps, EVERY]
    for name, choices in section.items():
        for label, told in choices.items():
            check_told(told, valid, f"sweep.axes.{name}.{label}")
    return [
        Axis(name, {str(label): {step: tuple(told[step]) for step in told} for label, told in choices.items()})
        for name, choices in section.items()
    ]


def check_told(told: Any, valid: Sequence[str], where: str) -> None:
    """Hold a mapping of overrides by step to the steps there are.

    Raises:
        ConfigError: it is none, or names an unknown step.
    """
    if not isinstance(told, Mapping) or not all(isinstance(value, list) for value in told.values()):
        raise ConfigError(f"{where}: expected lists of overrides by step, such as {{grpo: [a.b=1]}}, got {told!r}.")
    for step in told:
        if step not in valid:
            raise unknown(f"step in {where}", step, valid)


def typed_axes(over: str, steps: Iterable[str]) -> list[Axis]:
    """The axes of `over`: what one would type behind `rl/grpo.py --multirun`.

    `warm_start:trainer.max_steps=60,120` is a key of another step, `every:format=box,bricks` of all of them.

    Raises:
        ConfigError: it is not hydra's grammar, a step is unknown, or a key is not varied.
    """
    valid, axes = [*steps, EVERY], []
    for text in shlex.split(over):
        match = re.match(r"(\w+):(?=[^=]*=)", text)
        step = match[1] if match else TRAINED
        if step not in valid:
            raise unknown(f"step in over={text}", step, valid)
        override = parsed(text[match.end() :] if match else text, "over")
        key = override.get_key_element()
        swept = override.value()
        if isinstance(swept, IntervalSweep) and swept.start is not None and swept.end is not None:
            whole = isinstance(swept.start, int) and isinstance(swept.end, int)
            between = Between(float(swept.start), float(swept.end), "log" in swept.tags, whole)
            if between.low >= between.high or (between.log and between.low <= 0):
                raise ConfigError(f"over: {text}: from {between.low} to {between.high} is no interval to draw from.")
            axes.append(Axis(key, {}, between, step))
        elif override.is_discrete_sweep():
            values = list(dict.fromkeys(override.sweep_string_iterator()))
            axes.append(Axis(key, {value: {step: (f"{key}={value}",)} for value in values}, step=step))
        else:
            raise ConfigError(
                f"over: {text} has one value; vary it (a,b,c, range, interval), or put it into sweep.steps."
            )
    return axes


def parsed(text: str, where: str) -> Override:
    """An override as hydra reads it.

    Raises:
        ConfigError: hydra cannot.
    """
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(f"{where}: {text}: {str(error).splitlines()[0]}") from error


def merged(overrides: Iterable[str], where: str) -> tuple[str, ...]:
    """The overrides in their order; of two for one key, the later."""
    kept: dict[str, str] = {}
    for text in overrides:
        key = parsed(re.sub(r"\{(\w+)\}", r"\1", text), where).get_key_element()
        kept.pop(key, None)
        kept[key] = text
    return tuple(kept.values())


def grid(axes: Sequence[Axis]) -> list[Cell]:
    """Every combination, the last axis varying fastest.

    Raises:
        ConfigError: an axis is an interval, which has no end of numbers.
    """
    if endless := [axis.name for axis in axes if axis.between]:
        raise ConfigError(f"over: {endless[0]} is an interval; draw from it with search=random or search=optuna.")
    return [Cell(labels) for labels in itertools.product(*(axis.choices for axis in axes))]


def random(axes: Sequence[Axis], trials: int, seed: int = 0) -> list[Cell]:
    """As many different cells as asked for, or as there are, drawn evenly; the first of more are those of fewer."""
    rng = np.random.default_rng(seed)
    most = math.inf if any(axis.between for axis in axes) else math.prod(len(axis.choices) for axis in axes)
    cells: dict[Cell, None] = {}
    misses = 0
    while len(cells) < min(trials, most) and misses < 1000:  # whole numbers of an interval run out, too
        drawn = Cell(tuple(_drawn(axis, share) for axis, share in zip(axes, rng.random(len(axes)), strict=True)))
        misses = misses + 1 if drawn in cells else 0
        cells[drawn] = None
    return list(cells)


def _drawn(axis: Axis, share: float) -> str:
    return axis.between.at(share) if axis.between else list(axis.choices)[int(share * len(axis.choices))]


def suggested(
    axes: Sequence[Axis], tried: Sequence[tuple[Cell, float | None]], count: int, maximise: bool
) -> list[Cell]:
    """The next cells that Optuna's TPE asks for, given what earlier ones reached; None for one that failed.

    The same history gives the same cells, so that a sweep that was killed asks for the cells it had asked for.

    Raises:
        ConfigError: optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("search=optuna needs optuna: pip install -e '.[optuna]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spaces = {axis.name: _space(axis, optuna.distributions) for axis in axes}
    sampler = optuna.samplers.TPESampler(seed=len(tried), constant_liar=True)
    study = optuna.create_study(direction="maximize" if maximise else "minimize", sampler=sampler)
    for cell, value in tried:
        params = {a.name: _number(a, label) for a, label in zip(axes, cell.labels, strict=True)}
        state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(optuna.create_trial(state=state, params=params, distributions=spaces, value=value))
    asked = [study.ask(spaces).params for _ in range(count)]
    return [Cell(tuple(_label(axis, params[axis.name]) for axis in axes)) for params in asked]


def _space(axis: Axis, distributions: Any) -> Any:
    if axis.between is None:
        return distributions.CategoricalDistribution(list(axis.choices))
    low, high, log = axis.between.low, axis.between.high, axis.between.log
    if axis.between.whole:
        return distributions.IntDistribution(int(low), int(high), log=log)
    return distributions.FloatDistribution(low, high, log=log)


def _number(axis: Axis, label: str) -> Any:
    """A label as Optuna's parameter; rounding may have put it beyond the interval's end by a digit."""
    if axis.between is None:
        return label
    return int(label) if axis.between.whole else min(max(float(label), axis.between.low), axis.between.high)


def _label(axis: Axis, value: Any) -> str:
    return f"{value:.4g}" if axis.between and not axis.between.whole else str(value)

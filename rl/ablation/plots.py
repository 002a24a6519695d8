"""A sweep's pictures: all cells' metrics with intervals, reward curves, and training reward against held-out metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from evaluation.curves import GRID, INK, MUTED, Curves, read_curves, running_mean
from rl.ablation.cells import Cell
from rl.ablation.results import Found, Result

COLOURS = ("#1c7ed6", "#e8590c", "#0ca678", "#ae3ec9", "#f59f00", "#e03131", "#15aabf", "#82c91e")
GROUPS, COLUMNS = 6, 3
SHARE = 0.1  # of a training, at either end, over which its reward is averaged
DASHED: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (4, 3))}


@dataclass(frozen=True)
class Names:
    """What pictures call cells: `(group, label)` each. Cells that share all but their last label are a group, if there
    are few groups and labels; otherwise, as after a search, all are in one, by their whole names."""

    of: Mapping[Cell, tuple[str, str]]

    @classmethod
    def made(cls, cells: Iterable[Cell]) -> Names:
        """The names of these cells."""
        cells = list(dict.fromkeys(cells))
        parts = {cell: (" | ".join(cell.labels[:-1]), cell.labels[-1]) for cell in cells}
        groups, labels = ({part[n] for part in parts.values()} for n in (0, 1))
        many = len(groups) > GROUPS or (len(groups) > 1 and len(labels) > len(COLOURS))
        return cls({cell: ("", str(cell)) for cell in cells} if many else parts)

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(group for group, _ in self.of.values()))

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(label for _, label in self.of.values()))

    def colour(self, cell: Cell) -> str:
        """Of the cell's label; after the last colour comes the first again, and no legend is drawn."""
        return COLOURS[self.labels.index(self.of[cell][1]) % len(COLOURS)]

    def legend(self, figure: Figure, *more: Line2D) -> None:
        """A legend over the figure, where colours can tell the labels apart; `more` have labels of their own."""
        labels = self.labels if len(self.labels) <= len(COLOURS) else []
        dots = [
            Line2D([], [], color=colour, label=label, linestyle="", marker="o")
            for label, colour in zip(labels, COLOURS, strict=False)
        ]
        handles = [*dots, *more]
        if handles:
            figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 6), fontsize=8,
                          frameon=False, labelcolor=INK, handlelength=1.6)  # fmt: skip


def bars(found: Found, gains: bool = False) -> Figure:
    """A panel a metric, a bar a cell, from zero: its mean and interval, and a dot a seed; or its difference to the
    baseline. The cells of a group stand together."""
    names = Names.made(line.cell for line in found.lines)
    places, heads = _places(found, names)
    columns = min(len(found.metrics), COLUMNS)
    rows = math.ceil(len(found.metrics) / columns)
    figure = _figure(2.4 + 2.9 * columns, rows * (0.7 + 0.2 * (max(places) + 1)))
    labels = [names.of[line.cell][1] + " (baseline)" * line.baseline for line in found.lines]
    for number, (name, better) in enumerate(found.metrics.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        for line, place in zip(found.lines, places, strict=True):
            value, colour = (line.gains if gains else line.values)[name], names.colour(line.cell)
            if value is None:
                continue
            axes.barh(place, value.mean, color=colour, alpha=0.4, height=0.72)
            if math.isfinite(value.low):
                axes.plot([value.low, value.high], [place, place], color=INK, linewidth=1.1, solid_capstyle="butt")
            if not gains:
                axes.plot(line.points[name], [place] * len(line.points[name]), "o", color=colour, markersize=3.2)
        told = f"{name}, {'higher' if better == 'max' else 'lower'} is better"
        _frame(axes, f"difference in {told}" if gains else told)
        axes.axvline(0, color=MUTED, linewidth=0.9)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(max(places) + 0.7, min(places) - 0.7 - len(heads[:1]))
        if not gains and all(min(line.points[name], default=0) >= 0 for line in found.lines):
            axes.set_xlim(left=0)  # an interval may reach below, the figure cannot
        first = number % columns == 0
        axes.set_yticks(places, labels if first else [""] * len(places))
        for place, head in heads if first else []:
            axes.text(-0.02, place, head, transform=axes.get_yaxis_transform(), ha="right", va="center",
                      fontsize=8, fontweight="bold", color=INK)  # fmt: skip
    return figure


def curves(results: Sequence[Result]) -> Figure | None:
    """A column for each group of cells; a row for each reward, paid or not, and one for the share of broken answers. A
    line a cell, the mean of its seeds. None where nothing was logged."""
    means = _mean_curves(results)
    logged = {key for told in means.values() for key in told}
    keys = ["reward", *sorted(key for key in logged if key.startswith("rewards/") and key.endswith("/mean"))]
    keys = [key for key in (*keys, "states/invalid") if key in logged]
    if not keys:
        return None
    names = Names.made(means)
    groups = names.groups
    figure = _figure(max(0.6 + 3.0 * len(groups), 4.5), 1.75 * len(keys) + 0.6)
    for row, key in enumerate(keys):
        for column, group in enumerate(groups):
            axes = figure.add_subplot(len(keys), len(groups), row * len(groups) + column + 1)
            for cell, told in means.items():
                if names.of[cell][0] == group and key in told:
                    steps, values = told[key]
                    axes.plot(steps, running_mean(values), color=names.colour(cell), linewidth=1.5)
            name = key.removeprefix("rewards/").removesuffix("/mean")
            title = {"reward": "total reward, as paid", "states/invalid": "broken answers"}.get(key, name)
            _frame(axes, " | ".join(filter(None, (group, title))), "step" if row + 1 == len(keys) else "")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    names.legend(figure)
    return figure


def hacking(found: Found, results: Sequence[Result]) -> Figure | None:
    """For the first metrics, what training paid at its end less at its start, against the held-out metric: a dot a run.

    Where reward rises and the metric falls below that of the policy it started from (dashed, where it was evaluated), a
    reward is earned for something else than it is meant for. None where no reward was logged.
    """
    done = [(one, gain) for one in results if one.metrics is not None and (gain := _gain(one)) is not None]
    if not done:
        return None
    names = Names.made(one.run.cell for one, _ in done)
    groups, metrics = names.groups, list(found.metrics)[:COLUMNS]
    figure = _figure(max(0.6 + 3.1 * len(metrics), 4.5), 2.5 * len(groups) + 0.6)
    for row, group in enumerate(groups):
        own = [(one, gain) for one, gain in done if names.of[one.run.cell][0] == group]
        for column, name in enumerate(metrics):
            axes = figure.add_subplot(len(groups), len(metrics), row * len(metrics) + column + 1)
            for one, gain in own:
                if (value := (one.metrics or {})[name]) is not None:
                    axes.plot(gain, value, "o", color=names.colour(one.run.cell), markersize=5, alpha=0.8)
            starts = [one.before[name] for one, _ in own if one.before and one.before[name] is not None]
            if starts:
                axes.axhline(float(np.mean(starts)), **DASHED)
            below = "reward, end less start of training" if row + 1 == len(groups) else ""
            _frame(axes, " | ".join(filter(None, (group, f"held-out {name}"))), below)
    before = [Line2D([], [], label="policy before GRPO", **DASHED)] if any(one.before for one, _ in done) else []
    names.legend(figure, *before)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure((width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)  # no display, no global state
    return figure


def _places(found: Found, names: Names) -> tuple[list[float], list[tuple[float, str]]]:
    """Where each cell's bar is; and where the name of each group is written, if there are several."""
    places, heads, place, before = [], [], 0.0, None
    for line in found.lines:
        group = names.of[line.cell][0]
        if group and group != before:
            heads.append((place, group))
            place += 1
        before = group
        places.append(place)
        place += 1
    return places, heads


def _frame(axes: Axes, title: str, below: str = "") -> None:
    axes.set_title(title, loc="left", fontsize=8.5, color=INK)
    axes.set_xlabel(below, fontsize=7.5, color=MUTED, labelpad=1)
    axes.tick_params(labelsize=7.5, colors=MUTED, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _mean_curves(results: Sequence[Result]) -> dict[Cell, Curves]:
    """Each cell's logged numbers, averaged over its seeds at the steps that all of them logged."""
    logged: dict[Cell, list[Curves]] = {}
    for one in results:
        if one.history:
            logged.setdefault(one.run.cell, []).append(read_curves(one.history))
    made: dict[Cell, Curves] = {}
    for cell, many in logged.items():
        made[cell] = {}
        for key in set.intersection(*(set(told) for told in many)):
            points = [dict(zip(*(axis.tolist() for axis in told[key]), strict=True)) for told in many]
            steps = sorted(set.intersection(*(set(one) for one in points)))
            if steps:
                made[cell][key] = np.array(steps), np.array([np.mean([one[step] for one in points]) for step in steps])
    return made


def _gain(result: Result) -> float | None:
    """Mean total reward over the last tenth of a training, less that over the first; None without any."""
    told = read_curves(result.history).get("reward")
    if told is None:
        return None
    values = told[1]
    count = max(round(SHARE * len(values)), 1)
    return float(values[-count:].mean() - values[:count].mean())

"""A sweep's pictures: all cells' metrics with intervals, reward curves, and training reward against held-out metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from evaluation.curves import GRID, INK, MUTED, read_curves, running_mean
from rl.ablation.cells import Cell
from rl.ablation.results import Found, Result

COLOURS = ("#1c7ed6", "#e8590c", "#0ca678", "#ae3ec9", "#f59f00", "#e03131", "#15aabf", "#82c91e")
NAMED = 8  # labels that colours can tell apart; more are not named
COLUMNS = 3
SHARE = 0.1  # of a training, at either end, over which its reward is averaged


def bars(found: Found, gains: bool = False) -> Figure:
    """A panel a metric, a bar a cell, from zero: its mean and interval, and a dot a seed; or its difference to the
    baseline. Cells that share all but their last label stand together."""
    places, heads = _places(found)
    last = _last(found)
    columns = min(len(found.metrics), COLUMNS)
    rows = math.ceil(len(found.metrics) / columns)
    figure = _figure(2.4 + 2.9 * columns, rows * (0.7 + 0.2 * (max(places) + 1)))
    for number, (name, better) in enumerate(found.metrics.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        for line, place in zip(found.lines, places, strict=True):
            value = (line.gains if gains else line.values)[name]
            if value is None:
                continue
            colour = COLOURS[last.index(line.cell.labels[-1]) % len(COLOURS)]
            axes.barh(place, value.mean, color=colour, alpha=0.4, height=0.72)
            if math.isfinite(value.low):
                axes.plot([value.low, value.high], [place, place], color=INK, linewidth=1.1, solid_capstyle="butt")
            if not gains:
                axes.plot(line.points[name], [place] * len(line.points[name]), "o", color=colour, markersize=3.2)
        told = f"{name}, {'higher' if better == 'max' else 'lower'} is better"
        _frame(axes, f"difference in {told}" if gains else told, None)
        axes.axvline(0, color=MUTED, linewidth=0.9)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(max(places) + 0.7, min(places) - 1.5 * bool(heads) - 0.2)
        axes.set_yticks(
            places, [line.cell.labels[-1] for line in found.lines] if number % columns == 0 else [""] * len(places)
        )
        for place, head in heads if number % columns == 0 else []:
            axes.text(-0.02, place, head, transform=axes.get_yaxis_transform(), ha="right", va="center",
                      fontsize=8, fontweight="bold", color=INK)  # fmt: skip
    return figure


def curves(results: Sequence[Result]) -> Figure | None:
    """A column for cells that share all but their last label, a row for each reward, paid or not, and for the share of
    broken answers; a line a cell, the mean of its seeds. None where nothing was logged."""
    histories = _mean_curves(results)
    keys = {key for told in histories.values() for key in told}
    rows = ["reward", *sorted(key for key in keys if key.startswith("rewards/") and key.endswith("/mean"))]
    rows = [key for key in (*rows, "states/invalid") if key in keys]
    if not rows:
        return None
    groups = list(dict.fromkeys(cell.labels[:-1] for cell in histories))
    last = list(dict.fromkeys(cell.labels[-1] for cell in histories))
    figure = _figure(max(0.6 + 3.0 * len(groups), 4.5), 1.75 * len(rows) + 0.6)
    for column, group in enumerate(groups):
        for row, key in enumerate(rows):
            axes = figure.add_subplot(len(rows), len(groups), row * len(groups) + column + 1)
            for cell, told in histories.items():
                if cell.labels[:-1] == group and key in told:
                    steps, values = told[key]
                    colour = COLOURS[last.index(cell.labels[-1]) % len(COLOURS)]
                    axes.plot(steps, running_mean(values), color=colour, linewidth=1.5, label=cell.labels[-1])
            name = key.removeprefix("rewards/").removesuffix("/mean")
            title = {"reward": "total reward, as paid", "states/invalid": "broken answers"}.get(key, name)
            _frame(axes, " | ".join((*group, title)), "step" if row + 1 == len(rows) else None)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    _legend(figure, last)
    return figure


def hacking(found: Found, results: Sequence[Result]) -> Figure | None:
    """For each metric, what training paid at its end less at its start, against the held-out metric: a dot a run.

    Where reward rises and the metric falls below that of the policy it started from (dashed, where it was evaluated), a
    reward is earned for something else than it is meant for. None where no reward was logged.
    """
    done = [one for one in results if one.metrics is not None]
    gains = {id(one): _gain(one) for one in done}
    done = [one for one in done if gains[id(one)] is not None]
    if not done:
        return None
    groups = list(dict.fromkeys(one.run.cell.labels[:-1] for one in done))
    last = _last(found)
    metrics = list(found.metrics)[:COLUMNS]
    figure = _figure(0.6 + 3.1 * len(metrics), 2.5 * len(groups) + 0.6)
    for row, group in enumerate(groups):
        for column, name in enumerate(metrics):
            axes = figure.add_subplot(len(groups), len(metrics), row * len(metrics) + column + 1)
            own = [one for one in done if one.run.cell.labels[:-1] == group]
            for one in own:
                value = (one.metrics or {})[name]
                if value is not None:
                    colour = COLOURS[last.index(one.run.cell.labels[-1]) % len(COLOURS)]
                    axes.plot(gains[id(one)], value, "o", color=colour, markersize=5, alpha=0.8)
            starts = [one.before[name] for one in own if one.before and one.before[name] is not None]
            if starts:
                axes.axhline(float(np.mean(starts)), color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            end = "reward, end less start of training" if row + 1 == len(groups) else None
            _frame(axes, " | ".join((*group, f"held-out {name}")), end)
    _legend(figure, last)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure((width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)  # no display, no global state
    return figure


def _last(found: Found) -> list[str]:
    """The labels of the last axis, which have the colours."""
    return list(dict.fromkeys(line.cell.labels[-1] for line in found.lines))


def _places(found: Found) -> tuple[list[float], list[tuple[float, str]]]:
    """Where each cell's bar is; and where the labels that a block of cells shares are written."""
    places, heads, place, before = [], [], 0.0, None
    for line in found.lines:
        group = line.cell.labels[:-1]
        if group and group != before:
            heads.append((place, " | ".join(group)))
            place += 1
        before = group
        places.append(place)
        place += 1
    return places, heads


def _frame(axes: Axes, title: str, below: str | None) -> None:
    axes.set_title(title, loc="left", fontsize=8.5, color=INK)
    if below:
        axes.set_xlabel(below, fontsize=7.5, color=MUTED, labelpad=1)
    axes.tick_params(labelsize=7.5, colors=MUTED, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _legend(figure: Figure, labels: Sequence[str]) -> None:
    if len(labels) > NAMED:
        return
    handles = [Axes.plot(figure.axes[0], [], [], "o-", color=COLOURS[n])[0] for n in range(len(labels))]
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 5), fontsize=8, frameon=False,
                  labelcolor=INK, handlelength=1.2)  # fmt: skip


def _mean_curves(results: Sequence[Result]) -> dict[Cell, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Each cell's logged numbers, averaged over its seeds at the steps that all of them logged."""
    logged: dict[Cell, list[Mapping[str, tuple[np.ndarray, np.ndarray]]]] = {}
    for one in results:
        if one.history:
            logged.setdefault(one.run.cell, []).append(read_curves(one.history))
    made: dict[Cell, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
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

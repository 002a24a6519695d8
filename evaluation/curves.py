"""Training curves as small multiples: what was paid, what was answered, how far engine and trainer are apart."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

TRAIN, HELD_OUT, INK, MUTED, GRID = "#1c7ed6", "#e8590c", "#1f2328", "#6e7781", "#e9ecef"
STATES = {"states/found": "#0ca678", "states/no_target": "#f59f00", "states/invalid": "#e03131"}
TITLES = {
    "reward": "total reward",
    "kl": "KL to the reference",
    "sampling/sampling_logp_difference/mean": "logp gap, engine to trainer",
    "completions/mean_length": "completion length, tokens",
}
# What trainers log at every evaluation and nobody looks at.
BOOKKEEPING = {"loss", "runtime", "samples_per_second", "steps_per_second", "num_tokens", "reward_std", "entropy"}
BOOKKEEPING |= {"frac_reward_zero_std", "step_time"}
COLUMNS = 3

Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # key -> steps, values


def training_curves(log_history: Sequence[Mapping[str, Any]] | Path, path: Path) -> None:
    """Draw one panel a quantity: total reward and beside it held-out gIoU, each reward, shares of the three states, KL
    where it is logged, logp gap, completion length, and what else was evaluated on held-out data.

    Logged values are light, their running mean strong. Held-out values are dots, in the panel of the same quantity
    where there is one.

    Args:
        log_history: the trainer's `state.log_history`, or the path of a checkpoint's `trainer_state.json`.
        path: the PNG to write; its folder is created.

    Raises:
        ValueError: nothing that can be drawn was logged.
    """
    figure = _figure(log_history)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)


def training_svg(log_history: Sequence[Mapping[str, Any]] | Path) -> str:
    """The same as an `<svg>` to put into a web page, whose colours of text and lines are the page's own variables
    `--ink`, `--muted` and `--line`, and whose text is text.

    Raises:
        ValueError: nothing that can be drawn was logged.
    """
    return to_svg(_figure(log_history))


def to_svg(figure: Figure) -> str:
    """A figure in this module's colours as an `<svg>` in those of a page, as `training_svg` says."""
    written = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "refseg"}):  # the same figure gives the same bytes
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = written.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    for colour, name in ((INK, "ink"), (MUTED, "muted"), (GRID, "line")):
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def _figure(log_history: Sequence[Mapping[str, Any]] | Path) -> Figure:
    if isinstance(log_history, Path):
        curves = read_curves(json.loads(log_history.read_text(encoding="utf-8"))["log_history"])
    else:
        curves = read_curves(log_history)
    rewards = sorted(key for key in curves if key.startswith("rewards/") and key.endswith("/mean"))
    panels = [[key] for key in ("reward", "eval_gIoU", *rewards) if key in curves]
    panels += [[key for key in STATES if key in curves]]
    panels += [[key] for key in TITLES if key in curves and key != "reward"]
    drawn = {name for keys in panels for key in keys for name in (key, f"eval_{key}")}
    panels += [[key] for key in curves if _is_result(key) and key not in drawn]
    panels = [keys for keys in panels if keys]
    if not panels:
        raise ValueError("the log history holds no reward and no other quantity to draw.")

    lines = math.ceil(len(panels) / COLUMNS)
    figure = Figure((3.3 * COLUMNS, 2.1 * lines), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)  # no display, no global state
    last = max(steps[-1] for steps, _ in curves.values())
    for place, keys in enumerate(panels, 1):
        axes = figure.add_subplot(lines, COLUMNS, place)
        _panel(axes, keys, curves)
        axes.set_xlim(-0.02 * last, 1.02 * last)
    return figure


def read_curves(log_history: Sequence[Mapping[str, Any]]) -> Curves:
    """Every finite number that was logged, by key."""
    points: dict[str, list[tuple[float, float]]] = {}
    for entry in log_history:
        for key, value in entry.items():
            # None and nan: a reward that applied to nothing in these steps.
            if isinstance(value, int | float) and math.isfinite(value) and "step" in entry:
                points.setdefault(key, []).append((entry["step"], value))
    return {key: (np.array(pairs)[:, 0], np.array(pairs)[:, 1]) for key, pairs in points.items()}


def _is_result(key: str) -> bool:
    name = key.removeprefix("eval_")
    return key != name and "/" not in name and name not in BOOKKEEPING


def _panel(axes: Axes, keys: Sequence[str], curves: Curves) -> None:
    for key in keys:
        if key.startswith("eval_"):
            _dots(axes, curves[key], HELD_OUT, "held-out")
            continue
        colour, label = STATES.get(key, TRAIN), key.removeprefix("states/") if key in STATES else "training"
        steps, values = curves[key]
        axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3)
        axes.plot(steps, running_mean(values), color=colour, linewidth=1.7, label=label)
        if f"eval_{key}" in curves:
            _dots(axes, curves[f"eval_{key}"], *((colour, "") if key in STATES else (HELD_OUT, "held-out")))
    axes.set_title(_title(keys), loc="left", fontsize=9.5, color=INK)
    axes.set_xlabel("step", fontsize=7.5, color=MUTED, labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(labelsize=7.5, colors=MUTED, length=0)
    axes.yaxis.get_offset_text().set(size=7.5, color=MUTED)  # the power of ten of small values
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    if keys[0] in STATES:
        axes.set_ylim(-0.03, 1.03)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="best", handlelength=1.2)


def _title(keys: Sequence[str]) -> str:
    key = keys[0]
    if key in STATES:
        return "share of answers"
    if key.startswith("eval_"):
        return f"held-out {key.removeprefix('eval_')}"
    return TITLES.get(key) or f"reward: {key.removeprefix('rewards/').removesuffix('/mean')}"


def _dots(axes: Axes, curve: tuple[np.ndarray, np.ndarray], colour: str, label: str) -> None:
    axes.plot(*curve, color=colour, linewidth=1, marker="o", markersize=3.5, linestyle=":", label=label)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of a tenth of the run, shorter at both ends; same length."""
    half = len(values) // 20
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])

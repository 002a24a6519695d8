"""A sweep's table as CSV, Markdown, LaTeX, HTML and in the terminal: `0.525 ± 0.012 (+0.028 ± 0.009)`, best in bold."""

from __future__ import annotations

import csv
import io
import math

from rich.table import Table
from rich.text import Text

from evaluation.cards import words
from evaluation.intervals import Interval
from evaluation.table import latex_text, markdown_text
from rl.ablation.results import Found, Line

NONE = "-"
ARROWS = {"max": "↑", "min": "↓"}


def to_csv(found: Found) -> str:
    """A line a cell; for each metric the mean, its interval, and the same of the difference to the baseline."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = [f"{name}{what}{end}" for name in found.metrics for what in ("", " gain") for end in ("", " low", " high")]
    writer.writerow([*found.axes, "baseline", "seeds", "failed", *parts])
    for line in found.lines:
        numbers = [one for name in found.metrics for one in (line.values[name], line.gains[name])]
        cells = [
            f"{end:.6g}" if end is not None and math.isfinite(end) else "" for one in numbers for end in _ends(one)
        ]
        seeds = " ".join(map(str, line.seeds))
        writer.writerow([*line.cell.labels, "yes" if line.baseline else "no", seeds, line.failed, *cells])
    return text.getvalue()


def to_markdown(found: Found) -> str:
    """The table and what its intervals are."""
    heads = [markdown_text(head) for head in (*found.axes, "seeds", *_heads(found))]
    rows = [heads, [*["---"] * len(found.axes), *["---:"] * (len(heads) - len(found.axes))]]
    for number, line in enumerate(found.lines):
        names = [markdown_text(label) for label in _names(line)]
        rows.append([*names, _seeds(line), *_cells(found, number, lambda text: f"**{text}**")])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + f"\n\n{found.note}\n"


def to_latex(found: Found) -> str:
    """A `tabular` for the package booktabs."""
    heads = [*map(latex_text, found.axes), "seeds"]
    signs = {"max": r"$\uparrow$", "min": r"$\downarrow$"}
    heads += [f"{latex_text(name)} {signs[better]}" for name, better in found.metrics.items()]
    body = []
    for number, line in enumerate(found.lines):
        if number and line.cell.labels[:-1] != found.lines[number - 1].cell.labels[:-1]:
            body.append(r"\midrule")
        cells = _cells(found, number, lambda text: rf"\textbf{{{text}}}", r"$\pm$", lambda sign: f"${sign}$")
        body.append(" & ".join([*map(latex_text, _names(line)), _seeds(line), *cells]) + r" \\")
    columns = "l" * len(found.axes) + "r" * (len(found.metrics) + 1)
    start, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    head = " & ".join(heads) + r" \\"
    return "\n".join([f"% {found.note}", start, r"\toprule", head, r"\midrule", *body, r"\bottomrule", end]) + "\n"


def to_html(found: Found) -> str:
    """A `<table>`."""
    heads = "".join(f'<th scope="col">{words(head)}</th>' for head in (*found.axes, "seeds", *_heads(found)))
    rows = []
    for number, line in enumerate(found.lines):
        names = "".join(f'<th scope="row">{words(label)}</th>' for label in _names(line))
        cells = _cells(found, number, lambda text: f"<b>{text}</b>")
        cells = [cell.replace(" (", "<br><small>(").replace(")", ")</small>") for cell in cells]
        told = "".join(f"<td>{cell}</td>" for cell in (_seeds(line), *cells))
        first = number and line.cell.labels[:-1] != found.lines[number - 1].cell.labels[:-1]
        rows.append(f"<tr{' class=first' if first else ''}>{names}{told}</tr>")
    return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table>"


def to_terminal(found: Found) -> Table:
    """A rich table; metrics and their differences on two lines."""
    table = Table(caption=found.note, caption_justify="left")
    for axis in found.axes:
        table.add_column(axis, overflow="fold")
    for head in ("seeds", *_heads(found)):
        table.add_column(head, justify="right", no_wrap=True)
    for number, line in enumerate(found.lines):
        cells = _cells(found, number, lambda text: f"\0{text}")
        shown = [Text(cell.lstrip("\0").replace(" (", "\n("), style="bold" * cell.startswith("\0")) for cell in cells]
        last = number + 1 < len(found.lines) and line.cell.labels[:-1] != found.lines[number + 1].cell.labels[:-1]
        table.add_row(*map(Text, _names(line)), _seeds(line), *shown, end_section=last)
    return table


def _heads(found: Found) -> list[str]:
    return [f"{name} {ARROWS[better]}" for name, better in found.metrics.items()]


def _names(line: Line) -> list[str]:
    *labels, last = line.cell.labels
    return [*labels, last + " (baseline)" * line.baseline]


def _seeds(line: Line) -> str:
    return f"{len(line.seeds)} of {len(line.seeds) + line.failed}" if line.failed else str(len(line.seeds))


def _cells(found: Found, number: int, bold, pm: str = "±", signed=lambda text: text) -> list[str]:
    """A line's metrics: the value, bold where it is the best, and the difference to the baseline."""
    line = found.lines[number]
    cells = []
    for name in found.metrics:
        value, gain = line.values[name], line.gains[name]
        if value is None:
            cells.append(NONE)
            continue
        shown = _with_half(f"{value.mean:.3f}", value, pm)
        shown = bold(shown) if number in found.best[name] else shown
        cells.append(shown + (f" ({_with_half(signed(f'{gain.mean:+.3f}'), gain, pm)})" if gain else ""))
    return cells


def _with_half(mean: str, value: Interval, pm: str) -> str:
    half = (value.high - value.low) / 2
    return f"{mean} {pm} {half:.3f}" if math.isfinite(half) else mean


def _ends(value: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (value.mean, value.low, value.high) if value else (None, None, None)

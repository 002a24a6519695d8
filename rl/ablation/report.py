"""What a sweep leaves behind: tables, pictures, one page that holds them all, and the commands of each run."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from string import Template

import evaluation.page
from evaluation.cards import words
from evaluation.curves import to_svg
from rl.ablation import plots
from rl.ablation.results import Found, Result
from rl.ablation.tables import to_csv, to_html, to_latex, to_markdown

HERE = Path(__file__).parent
CAPTIONS = {
    "metrics": "Held-out metrics: mean over seeds, 95% Student-t interval, a dot a seed.",
    "gains": "Difference to the baseline, paired by seed, with its 95% Student-t interval.",
    "hacking": "What training paid against what it was for, a dot a run: reward that rises while the held-out metric "
    "falls below that of the policy it started from (dashed, where it was evaluated) is earned for something else.",
    "curves": "Training: the mean of each cell's seeds. Rewards of weight 0 are logged, and not paid.",
}


def write_report(title: str, found: Found, results: Sequence[Result], root: Path) -> list[Path]:
    """Write everything into `root`; returns the files."""
    drawn = {"metrics": plots.bars(found), "hacking": plots.hacking(found, results), "curves": plots.curves(results)}
    if any(gain for line in found.lines for gain in line.gains.values()):
        drawn["gains"] = plots.bars(found, gains=True)
    figures = {name: figure for name in CAPTIONS if (figure := drawn.get(name)) is not None}
    for name, figure in figures.items():
        figure.savefig(root / f"{name}.png", dpi=160)
    texts = {"table.csv": to_csv(found), "table.md": to_markdown(found), "table.tex": to_latex(found)}
    texts |= {"runs.csv": _runs(found, results, root), "commands.sh": commands(results, root)}
    texts["report.html"] = page(title, found, results, {name: to_svg(one) for name, one in figures.items()}, root)
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8", newline="")
    return [root / name for name in (*texts, *(f"{name}.png" for name in figures))]


def page(title: str, found: Found, results: Sequence[Result], drawn: dict[str, str], root: Path) -> str:
    """One HTML page that needs nothing else and runs nothing. What comes from configs and logs is escaped.

    Args:
        drawn: an `<svg>` for each picture.
    """
    style = evaluation.page.HERE / "report.css"
    failed = [one for one in results if one.problem]
    listed = "".join(f"<li>{words(f'{one.run.cell}, seed {one.run.seed}: {one.problem}')}</li>\n" for one in failed)
    pictures = [
        f'<figure class="curves">{svg}<figcaption>{words(CAPTIONS[name])}</figcaption></figure>'
        for name, svg in drawn.items()
    ]
    return Template((HERE / "report.html").read_text(encoding="utf-8")).substitute(
        title=words(title),
        style=style.read_text(encoding="utf-8"),
        table=to_html(found),
        note=words(found.note),
        failed=f"<h2>Failed</h2>\n<ul>\n{listed}</ul>" if failed else "",
        pictures="\n".join(pictures),
        commands="\n".join(_details(cell, results, root) for cell in dict.fromkeys(one.run.cell for one in results)),
    )


def commands(results: Sequence[Result], root: Path) -> str:
    """A shell script that does every step once: what a step needs stands above it."""
    lines, written = (
        ["#!/usr/bin/env bash", "# From the repository's folder, in its environment.", "set -euo pipefail"],
        set(),
    )
    if own := os.environ.get("PYTHONPATH"):  # where rewards of one's own lie
        lines.append(f"export PYTHONPATH={shlex.quote(own)}")
    for one in results:
        lines.append(f"\n# {one.run.cell}, seed {one.run.seed}".replace("\n\n", "\n"))
        for step in one.run.steps:
            shown = shlex.join(step.command(root))
            lines.append(f"# above: {step.id}" if step.id in written else shown)
            written.add(step.id)
    return "\n".join(lines) + "\n"


def _details(cell: object, results: Sequence[Result], root: Path) -> str:
    """A cell's commands, all of them, seed by seed."""
    parts = []
    for one in results:
        if one.run.cell == cell:
            told = "\n\n".join(shlex.join(step.command(root)) for step in one.run.steps)
            parts.append(f"<p>seed {one.run.seed}</p><pre>{words(told)}</pre>")
    return f"<details><summary>{words(str(cell))}</summary>{''.join(parts)}</details>"


def _runs(found: Found, results: Sequence[Result], root: Path) -> str:
    """runs.csv: a line a run, with its metrics, what failed, and the folders of its steps."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*found.axes, "seed", *found.metrics, "problem", "folders"])
    for one in results:
        scores = [(one.metrics or {}).get(name) for name in found.metrics]
        folders = json.dumps({step.name: str(step.folder(root)) for step in one.run.steps})
        shown = ["" if score is None else f"{score:.6g}" for score in scores]
        writer.writerow([*one.run.cell.labels, one.run.seed, *shown, one.problem, folders])
    return text.getvalue()

"""One table over several benchmarks, in the papers' column order, with the rows of papers beside what was measured.

    python evaluation/table.py folders=[outputs/refcoco_val,outputs/refcoco_testA,outputs/grefcoco_val]
    python evaluation/table.py folders=[...] metrics=rela.json reported=false output=outputs/table

Prints it, and writes table.csv, table.md and table.tex. Values are percent; what papers report is marked as theirs.
"""

from __future__ import annotations

import configs

# Imports take seconds, the command line is checked before them.
command = configs.main("table", script=__name__)

import csv
import io
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluation.blocks import Block, Column, Line, filled, read_measured

NAMES = {"refcoco": "RefCOCO", "refcoco+": "RefCOCO+", "refcocog": "RefCOCOg"}
NAMES |= {"grefcoco": "gRefCOCO", "reasonseg": "ReasonSeg", "N_acc": "N-acc"}
NOTE = "Percent. Lines marked 'reported' are their authors' figures, copied from the paper named, not measured here."
Blocks = Sequence[tuple[Block, Sequence[Line]]]


@command
def main(cfg: DictConfig) -> None:
    """Read, print, write."""
    if not cfg.folders:
        raise configs.ConfigError("folders=[]: name at least one folder that evaluation/evaluate.py wrote.")
    blocks = filled(read_measured([Path(str(folder)) for folder in cfg.folders], cfg.metrics), cfg.reported)
    if not blocks:
        raise configs.ConfigError("folders: none of their metrics has a figure of these tables; decode masks first.")
    write_table(blocks, Path(cfg.output))


def write_table(blocks: Blocks, output: Path) -> None:
    """Write table.csv, table.md and table.tex into a folder, and print the table."""
    output.mkdir(parents=True, exist_ok=True)
    for name, written in {"csv": to_csv, "md": to_markdown, "tex": to_latex}.items():
        (output / f"table.{name}").write_text(written(blocks), encoding="utf-8", newline="")
    tables = to_terminal(blocks)
    console = Console()
    needed = [console.measure(one, options=console.options.update_width(1000)).minimum for one in tables]
    console = Console(width=max(console.width, *needed))  # a narrow terminal breaks lines, and hides no number
    for one in tables:
        console.print(one)
    console.print(NOTE, highlight=False)


def to_terminal(blocks: Blocks) -> list[Table]:
    """A rich table a block; this project's lines are set apart."""
    tables = []
    for block, lines in blocks:
        table = Table(title=block.title, title_justify="left")
        for head in ("method", "model"):
            table.add_column(head, overflow="fold")
        for head in _heads(block, "\n"):
            table.add_column(head, justify="right", no_wrap=True)
        table.add_column("source", overflow="fold")
        for number, line in enumerate(lines):
            cells = (line.method, line.model, *_cells(block, line), line.source)
            last = number + 1 < len(lines) and lines[number + 1].measured and not line.measured
            style = "bold" if line.measured else "dim"
            table.add_row(*map(Text, cells), style=style, end_section=last)  # Text: a method's name is data
        tables.append(table)
    return tables


def to_csv(blocks: Blocks) -> str:
    """One sheet: a line a method and block, a column a figure, as precise as it is known; empty where there is none."""
    columns = [column for block, _ in blocks for column in block.columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "method", "model", "source", *(" ".join(_names(column)) for column in columns)])
    for block, lines in blocks:
        for line in lines:
            values = dict(zip(block.columns, line.values, strict=True))
            cells = [values.get(column) for column in columns]
            shown = ["" if cell is None else f"{cell:.6g}" for cell in cells]
            writer.writerow([block.name, line.method, line.model, line.source, *shown])
    return text.getvalue()


def to_markdown(blocks: Blocks) -> str:
    """A table a block, under its title."""
    parts = []
    for block, lines in blocks:
        heads = ["method", "model", *_heads(block, " "), "source"]
        rows = [heads, ["---", "---", *["---:"] * (len(heads) - 3), "---"]]
        for line in lines:
            names = [markdown_text(line.method), markdown_text(line.model)]
            names[0] = f"**{names[0]}**" if line.measured else names[0]
            rows.append([*names, *_cells(block, line), markdown_text(line.source)])
        parts.append(f"### {block.title}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join([*parts, NOTE]) + "\n"


def to_latex(blocks: Blocks) -> str:
    """A `tabular` a block, for the package booktabs; datasets over their splits, and those over their figures."""
    parts = []
    for block, lines in blocks:
        levels = [_spanned(block, 1), _spanned(block, 2)]
        if _several_figures(block):
            levels.append(_spanned(block, 3))
        last = len(levels) - 1
        head = [
            " & ".join(["Method", "Model", level, "Source"] if number == last else ["", "", level, ""]) + " \\\\"
            for number, level in enumerate(levels)
        ]
        body = []
        for number, line in enumerate(lines):
            if line.measured and number and not lines[number - 1].measured:
                body.append("\\midrule")
            names = [latex_text(line.method), latex_text(line.model)]
            names[0] = f"\\textbf{{{names[0]}}}" if line.measured else names[0]
            body.append(" & ".join([*names, *_cells(block, line), latex_text(line.source)]) + " \\\\")
        count = len(block.columns) + block.average
        start, end = f"\\begin{{tabular}}{{ll{'c' * count}l}}", "\\end{tabular}"
        title = f"% {block.title}. {NOTE}"
        parts.append("\n".join([title, start, "\\toprule", *head, "\\midrule", *body, "\\bottomrule", end]))
    return "\n\n".join(parts) + "\n"


def _several_figures(block: Block) -> bool:
    return len({column.figure for column in block.columns}) > 1


def _names(column: Column) -> tuple[str, str, str]:
    dataset, split, figure = column
    return NAMES.get(dataset, dataset), split, NAMES.get(figure, figure)


def _heads(block: Block, between: str) -> list[str]:
    """What stands over each column; the figure only where the block has several, as its title says it else."""
    depth = 3 if _several_figures(block) else 2
    return [between.join(_names(column)[:depth]) for column in block.columns] + ["Avg."] * block.average


def _cells(block: Block, line: Line) -> list[str]:
    values = [*line.values, *([line.average] if block.average else [])]
    # 78.85 is 78.9, as papers print it, on whichever side of it the float lies.
    return ["-" if value is None else f"{value + 1e-9:.1f}" for value in values]


def _spanned(block: Block, level: int) -> str:
    """The cells of one level of the head: equal neighbours under one name are one cell."""
    cells = []
    for names, group in groupby(block.columns, key=lambda column: _names(column)[:level]):
        width, name = len(list(group)), latex_text(names[-1])
        cells.append(name if width == 1 else f"\\multicolumn{{{width}}}{{c}}{{{name}}}")
    last = "Avg." if level == (3 if _several_figures(block) else 2) else ""
    return " & ".join([*cells, *([last] if block.average else [])])


def markdown_text(text: str) -> str:
    """Text as it may stand in a cell of a Markdown table."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", " ".join(text.split()))


_LATEX: dict[str, str] = {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}"}


def latex_text(text: str) -> str:
    """Text as it may stand in LaTeX."""
    return re.sub(r"[&%$#_{}\\~^<>]", lambda match: _LATEX[match[0]], " ".join(text.split()))


if __name__ == "__main__":
    main()

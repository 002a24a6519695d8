"""The page of a report: numbers, curves and gallery put into `report.html`, with its style and its script inside.

Nothing is fetched: the page's own policy allows no address, and no script but the one it came with.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from evaluation.blocks import split_of
from evaluation.cards import card, words
from evaluation.folder import Evaluation
from evaluation.gallery import KINDS, choose, totals

NONE = "&ndash;"
HERE = Path(__file__).parent


def page(
    title: str,
    evaluations: Sequence[Evaluation],
    names: Sequence[str],
    curves: str,
    shown: int,
    side: int,
    training: str = "",
) -> str:
    """The whole page.

    Args:
        names: of the evaluations, all different.
        curves: an `<svg>`, or "" for none.
        shown: answers of each kind and evaluation in the gallery.
        side: pixels of a picture's longer side.
        training: what the curves are of.
    """
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    cards = choose(evaluations, shown)
    return Template((HERE / "report.html").read_text(encoding="utf-8")).substitute(
        title=words(title),
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        numbers=_numbers(evaluations, names),
        curves=f'<h2>Training {words(training)}</h2>\n<figure class="curves">{curves}</figure>' if curves else "",
        buttons=_buttons([totals(evaluation) for evaluation in evaluations], cards_in_all=len(cards)),
        choice=_choice(names),
        cards="".join(card(one, names, side) for one in cards),
    )


def _numbers(evaluations: Sequence[Evaluation], names: Sequence[str]) -> str:
    """A table, one column an evaluation: what was run, under which rules, and every figure with its interval."""
    columns = [_facts(evaluation) for evaluation in evaluations]
    lines = ["<tr><td></td>" + "".join(f'<th scope="col">{words(name)}</th>' for name in names) + "</tr>"]
    for key in dict.fromkeys(key for column in columns for key in column):
        cells = [column.get(key, "") for column in columns]
        if any(cells):
            lines.append(
                f'<tr><th scope="row">{words(key)}</th>'
                + "".join(f"<td>{cell or NONE}</td>" for cell in cells)
                + "</tr>"
            )
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _facts(evaluation: Evaluation) -> dict[str, str]:
    """The cells of an evaluation's column, as HTML."""
    metrics = evaluation.metrics
    first = evaluation.samples[0]
    rules = {key: metrics[key] for key in vars(evaluation.rules)}
    counts = f"{metrics['n_found']} found, {metrics['n_no_target']} no target, {metrics['n_invalid']} invalid"
    facts = {
        "checkpoint": words(str(evaluation.run.get("checkpoint", ""))),
        "benchmark": words(f"{first.dataset} {split_of(evaluation.run, first)}"),
        "answers": words(str(metrics.get("answers", ""))),
        "samples": f"{metrics['n_scored']} <small>{counts}</small>",
        "protocol": words(metrics["protocol"]) + f" <small>{words(_listed(rules))}</small>",
    }
    for name, interval in metrics["intervals"].items():
        if interval:
            facts[name] = f"{metrics[name]:.4f} <small>{interval[0]:.4f} to {interval[1]:.4f}</small>"
    return facts


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _buttons(counts: Sequence[Mapping[str, int]], cards_in_all: int) -> str:
    """A button a kind, which knows how many answers of it each evaluation has; and one for all cards."""
    made = ['<button type="button" data-kind="all" data-meaning="every card" aria-pressed="true">all</button>']
    for name, kind in KINDS.items():
        sums = " ".join(str(count[name]) for count in counts)
        made.append(
            f'<button type="button" data-kind="{name}" data-meaning="{kind.meaning}" data-totals="{sums}" '
            f'{"data-best-first " if kind.best_first else ""}aria-pressed="false">{kind.title}</button>'
        )
    return "\n".join(made)


def _choice(names: Sequence[str]) -> str:
    """Which evaluation's answers the filters look at, where there are several."""
    if len(names) == 1:
        return ""
    options = "".join(f'<option value="{number}">{words(name)}</option>' for number, name in enumerate(names))
    return f'<label>of <select id="evaluation"><option value="">any evaluation</option>{options}</select></label>'

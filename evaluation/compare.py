"""Compare two predictions files of one benchmark, sample by sample: which is better, by how much, how surely, and where.

    python evaluation/compare.py before=outputs/eval_sft/predictions.jsonl after=outputs/eval/predictions.jsonl benchmark=scenes_val
    python evaluation/compare.py before=... after=... benchmark=... protocol=rela shown=20

Writes comparison.json beside the predictions of `after`, without model or images.
"""  # noqa: E501, a command cannot be broken

from __future__ import annotations

import configs

# Imports take seconds, the command line is checked before them.
command = configs.main("compare", script=__name__)

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from evaluation.intervals import figure_gains
from evaluation.score import make_protocol, score_file, write_metrics
from segmentation.figures import Row
from segmentation.metrics import Evaluator
from segmentation.protocols import Protocol
from segmentation.sample import Sample


def compare(before: Path, after: Path, samples: Sequence[Sample], protocol: Protocol) -> dict[str, Any]:
    """Score both files under the protocol and compare them.

    Args:
        samples: the benchmark, whole and in any order; no image is opened.

    Returns:
        `figures`: each figure before and after, their difference and its 95% paired bootstrap interval, all None where
        one of the two has no value; `by`, what samples are compared by, `n_wins`, `n_losses` and `n_ties`; `wins` and
        `losses`, largest first; what was compared, and the rules used.

    Raises:
        BadPredictions: a file does not hold this benchmark, whole.
        ValueError: there are neither masks nor boxes to compare samples by.
    """
    old, new = Evaluator(protocol), Evaluator(protocol)
    was, now = score_file(before, samples, old), score_file(after, samples, new)
    gains = figure_gains(old.rows, new.rows, protocol)
    figures = {
        name: {
            "before": was[name],
            "after": now[name],
            "difference": gain and gain.mean,
            "interval": gain and [gain.low, gain.high],
        }
        for name, gain in gains.items()
    }
    by, changes = _changes(old.rows, new.rows, {sample.id: sample.expression for sample in samples})
    changes = sorted(changes, key=lambda change: (-abs(change["difference"]), change["id"]))
    wins = [change for change in changes if change["difference"] > 0]
    losses = [change for change in changes if change["difference"] < 0]
    return {
        "before": str(before),
        "after": str(after),
        "protocol": protocol.name,
        **dataclasses.asdict(protocol),
        "n_expected": now["n_expected"],
        "n_scored": now["n_scored"],
        "figures": figures,
        "by": by,
        "n_wins": len(wins),
        "n_losses": len(losses),
        "n_ties": len(changes) - len(wins) - len(losses),
        "wins": wins,
        "losses": losses,
    }


def _changes(before: Sequence[Row], after: Sequence[Row], expressions: dict[str, str]) -> tuple[str, list[dict]]:
    """What samples are compared by, and how each changed."""
    rows = [*before, *after]
    if all(row.iou is not None for row in rows):
        by, scores = "IoU", [row.iou or 0.0 for row in rows]
    elif all(row.box_iou is not None or not row.targeted for row in rows):
        by = "box IoU; 1 for NoTarget where nothing is meant"
        scores = [float(row.state == "no_target") if row.box_iou is None else row.box_iou for row in rows]
    else:
        raise ValueError("some answers have neither a mask nor boxes: evaluate both with a decoder that paints them.")
    changes = [
        {
            "id": old.id,
            "expression": expressions[old.id],
            "states": [old.state, new.state],
            "before": was,
            "after": now,
            "difference": now - was,
        }
        for old, new, was, now in zip(before, after, scores[: len(before)], scores[len(before) :], strict=True)
    ]
    return by, changes


def report(comparison: dict[str, Any], shown: int) -> None:
    """Print the figures, and the samples that changed most."""
    console = Console()
    table = Table("", "before", "after", "difference", "95% interval", title=f"{comparison['protocol']}, paired")
    for name, figure in comparison["figures"].items():
        if figure["difference"] is not None:
            low, high = figure["interval"]
            sides = (f"{figure[key]:.4f}" for key in ("before", "after"))
            table.add_row(name, *sides, f"{figure['difference']:+.4f}", f"{low:+.4f} to {high:+.4f}")
    console.print(table)
    counts = ", ".join(f"{comparison[f'n_{kind}']} {kind}" for kind in ("wins", "losses", "ties"))
    console.print(f"{comparison['n_scored']} samples by {comparison['by']}: {counts}", highlight=False)
    for kind in ("wins", "losses"):
        for change in comparison[kind][:shown]:
            said = f"{change['before']:.3f} {change['states'][0]} -> {change['after']:.3f} {change['states'][1]}"
            line = f"{kind}: {change['difference']:+.3f} {change['id']} ({said}): {change['expression']}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


@command
def main(cfg: DictConfig) -> None:
    """Read, compare, write."""
    samples = configs.instantiate(cfg.benchmark, where="benchmark")
    comparison = compare(Path(cfg.before), Path(cfg.after), samples, make_protocol(cfg.protocol, samples))
    write_metrics(comparison, Path(cfg.after).parent / cfg.output)
    report(comparison, cfg.shown)


if __name__ == "__main__":
    main()

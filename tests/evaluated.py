"""Evaluations built from ground truth, with every kind of answer and texts that attack: for tests of reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from evaluation.folder import Evaluation
from evaluation.page import page
from evaluation.predictions import PredictionWriter, Record
from evaluation.score import score_file, write_metrics
from segmentation import masks
from segmentation.data.scenes import Scenes
from segmentation.metrics import Evaluator
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample

BENCHMARK = {"_target_": "segmentation.data.scenes.Scenes", "split": "val", "length": 60}
EVIL = '<script>document.title="hit"</script><img src=x onerror="document.title=1">&amp;"\'\ud800\x00\u202e'


def shifted(asked: Sample, by: float) -> Prediction:
    """Every box moved right by a share of its width, and painted full."""
    moved = []
    for target in asked.targets:
        x1, y1, x2, y2 = target.box
        box = (x1 + by * (x2 - x1), y1, x2 + by * (x2 - x1), y2)
        moved.append(Instance(box, masks.from_box(box, asked.height, asked.width)))
    return Found(tuple(moved))


def answer(asked: Sample, index: int, shift: float) -> Prediction:
    """With targets: 2 of 6 perfect, 2 shifted, 1 invalid, 1 rejected. Without: every second is missed."""
    if not asked.targets:
        corner = (0.0, 0.0, 9.0, 9.0)
        false = Found((Instance(corner, masks.from_box(corner, asked.height, asked.width)),))
        return false if index % 2 else NoTarget()
    perfect = Found(tuple(Instance(target.box, target.mask) for target in asked.targets))
    made = (perfect, perfect, shifted(asked, shift), shifted(asked, shift), Invalid(f"at 3: {EVIL}"), NoTarget())
    return made[index % 6]


def evaluated(folder: Path, samples: Sequence[Sample], shift: float, run: dict) -> Path:
    """A folder as evaluate.py leaves it."""
    path = folder / "predictions.jsonl"
    with PredictionWriter(path, run) as writer:
        for index, asked in enumerate(samples):
            text = f"{EVIL} box {index}" + "x" * 3000 * (index == 3)
            writer.write(Record.of(asked, answer(asked, index, shift), text, index))
    write_metrics(score_file(path, samples, Evaluator("rela")), folder / "metrics.json")
    return folder


def evaluate_twice(root: Path) -> list[Path]:
    """Two folders of one benchmark; the second run's masks are shifted farther, and its name attacks."""
    samples = Scenes("val", length=60)
    made = []
    for name, shift, checkpoint in (("a", 0.4, "first"), ("b", 0.9, EVIL.encode("ascii", "ignore").decode())):
        made.append(evaluated(root / name, samples, shift, {"checkpoint": checkpoint, "benchmark": BENCHMARK}))
    return made


def attacked(evaluations: Sequence[Evaluation]) -> str:
    """A page about both, whose first expression is an attack, as its texts are."""
    first, *others = evaluations[0].samples
    samples = [dataclasses.replace(first, expression=EVIL), *others]
    spoiled = [dataclasses.replace(one, samples=samples) for one in evaluations]
    return page("A <title>", spoiled, ["a", "b <i>"], "", shown=4, side=96)

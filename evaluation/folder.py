"""An evaluation folder read back: its predictions, scored again and held to the metrics that lie beside them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import configs
from configs.strict import locate
from evaluation.predictions import Record, read_run
from evaluation.score import fill
from segmentation.data.samples import Samples
from segmentation.figures import Row
from segmentation.metrics import Evaluator
from segmentation.protocols import Protocol, named
from segmentation.sample import Sample


@dataclass(frozen=True)
class Evaluation:
    """One folder. `rows` has what each of `samples` scored, in their order; `records` what was answered, by id."""

    folder: Path
    run: dict[str, Any]
    metrics: dict[str, Any]
    rules: Protocol
    samples: Sequence[Sample]
    rows: list[Row]
    records: dict[str, Record]


def read_folder(folder: Path, samples: Sequence[Sample] | None = None, metrics: str = "metrics.json") -> Evaluation:
    """Read predictions.jsonl, run.json and the metrics, and score the predictions again by the metrics' own protocol.

    Args:
        samples: the benchmark; by default the one that run.json names.
        metrics: which file of metrics, where `score.py output=` wrote another.

    Raises:
        ConfigError: a file is missing, run.json names no benchmark, or the metrics are not those of the predictions.
        BadPredictions: the predictions are not of this benchmark, whole.
    """
    known, run = read_metrics(folder, metrics), read_run(folder / "predictions.jsonl")
    samples = benchmark(run, folder) if samples is None else samples
    evaluator = Evaluator(protocol(known, folder / metrics))
    records = fill(folder / "predictions.jsonl", samples, evaluator)
    for key, value in evaluator.result().items():
        if known.get(key) != value:
            raise configs.ConfigError(
                f"folders: {folder / metrics} has {key}={known.get(key)!r}, its predictions score {value!r}. "
                "Score them again: python evaluation/score.py predictions=... benchmark=..."
            )
    return Evaluation(folder, run, known, evaluator.protocol, samples, evaluator.rows, records)


def read_metrics(folder: Path, metrics: str = "metrics.json") -> dict[str, Any]:
    """The metrics in a folder that has predictions.

    Raises:
        ConfigError: one of the two is not there.
    """
    for name in ("predictions.jsonl", metrics):
        if not (folder / name).is_file():
            raise configs.ConfigError(
                f"folders: {folder} has no {name}; name folders that evaluation/evaluate.py or score.py wrote."
            )
    return json.loads((folder / metrics).read_text(encoding="utf-8"))


def protocol(metrics: Mapping[str, Any], path: Path) -> Protocol:
    """The protocol that metrics were made under, with its options.

    Raises:
        ConfigError: they do not name one with all its options.
    """
    try:
        rules = named(metrics["protocol"])
        return dataclasses.replace(rules, **{field.name: metrics[field.name] for field in dataclasses.fields(rules)})
    except (KeyError, ValueError) as error:
        raise configs.ConfigError(f"folders: {path} names no whole protocol ({error}); score it again.") from error


def benchmark(run: Mapping[str, Any], folder: Path) -> Samples:
    """The benchmark that a run answered.

    A folder may come from anyone, and a section of a config names code to call: only datasets of `segmentation.data`
    are made here.

    Raises:
        ConfigError: the run names no benchmark, or something else.
    """
    section = run.get("benchmark") or {}
    target = str(section.get("_target_", ""))
    inside = json.dumps([value for key, value in section.items() if key != "_target_"])
    if target.startswith("segmentation.data.") and "_target_" not in inside:
        dataset = locate(target, where="benchmark")
        if isinstance(dataset, type) and issubclass(dataset, Samples):
            return configs.instantiate(section, where="benchmark")
    raise configs.ConfigError(
        f"folders: {folder / 'run.json'} names no dataset of segmentation.data as its benchmark "
        f"({target or 'nothing'!r}); name it yourself: benchmark=refcoco_val benchmark.root=..."
    )

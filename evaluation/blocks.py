"""The tables of this field, in the column order of its papers: what was measured here, beside what papers report."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from omegaconf import OmegaConf

import configs
from evaluation.folder import read_metrics
from evaluation.predictions import Record, read_predictions, read_run
from segmentation.protocols import named
from segmentation.published import SIZES
from segmentation.sample import Sample

REPORTED = Path(__file__).with_name("reported.yaml")
MEASURED = "measured here"


class Column(NamedTuple):
    """A figure (`segmentation.figures`) of one split of a dataset."""

    dataset: str
    split: str
    figure: str


@dataclass(frozen=True)
class Block:
    """One table. `average` is whether papers end its lines with the mean of all columns."""

    name: str
    title: str
    columns: tuple[Column, ...]
    average: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a block: percent by column, None where there is no value. `source` says who reports it, and where."""

    method: str
    model: str
    source: str
    values: tuple[float | None, ...]

    @property
    def measured(self) -> bool:
        """Whether this project measured it."""
        return self.source.startswith(MEASURED)

    @property
    def average(self) -> float | None:
        """The mean of the values, if none is missing."""
        known = [value for value in self.values if value is not None]
        return math.fsum(known) / len(known) if len(known) == len(self.values) else None


@dataclass(frozen=True)
class Measured:
    """The metrics of one evaluation folder: of which method, on which split of which dataset."""

    folder: Path
    method: str
    dataset: str
    split: str
    metrics: dict[str, Any]


_SPLITS = ("val", "testA", "testB")
_REFER = [("refcoco", _SPLITS), ("refcoco+", _SPLITS), ("refcocog", ("val", "test"))]


def _columns(datasets: Iterable[tuple[str, Iterable[str]]], figures: Sequence[str]) -> tuple[Column, ...]:
    return tuple(Column(name, split, figure) for name, splits in datasets for split in splits for figure in figures)


BLOCKS = (
    Block("RES", "Referring expression segmentation, cIoU", _columns(_REFER, ["cIoU"]), average=True),
    Block("REC", "Referring expression comprehension, Acc@0.5", _columns(_REFER, ["Acc@0.5"]), average=True),
    Block(
        "GRES",
        "Generalized referring expression segmentation",
        _columns([("grefcoco", _SPLITS)], ["gIoU", "cIoU", "N_acc"]),
    ),
    Block("ReasonSeg", "Reasoning segmentation", _columns([("reasonseg", ("val", "test"))], ["gIoU", "cIoU"])),
)


def read_measured(folders: Sequence[Path], metrics: str = "metrics.json") -> list[Measured]:
    """The metrics of every folder. The method is the run's checkpoint; where one checkpoint was run in several ways
    (formats, decoders, ...), with what is its own.

    Raises:
        ConfigError: a folder lacks predictions or metrics, or two hold the same method on the same benchmark.
    """
    found = [read_metrics(folder, metrics) for folder in folders]
    runs = [read_run(folder / "predictions.jsonl") for folder in folders]
    made = []
    for folder, run, figures in zip(folders, runs, found, strict=True):
        checkpoint = str(run.get("checkpoint", folder))
        ways = [other for other in runs if str(other.get("checkpoint")) == checkpoint]
        own = [key for key in run if key != "benchmark" and any(other.get(key) != run[key] for other in ways)]
        method = " ".join([checkpoint, *(f"{key}={_short(run[key])}" for key in own)])
        made.append(Measured(folder, method, *_benchmark(folder, run), figures))
    seen: dict[tuple[str, str, str], Path] = {}
    for one in made:
        key = (one.method, one.dataset, one.split)
        if key in seen:
            raise configs.ConfigError(
                f"folders: {seen[key]} and {one.folder} both hold {' '.join(key[1:])} by {one.method}; leave one out."
            )
        seen[key] = one.folder
    return made


def filled(measured: Sequence[Measured], reported: bool = True) -> list[tuple[Block, list[Line]]]:
    """Every block that something was measured for: the papers' lines first, then this project's.

    What no paper's table has a column for comes last, in a block of its own with gIoU and cIoU.
    """
    known = {(column.dataset, column.split) for block in BLOCKS for column in block.columns}
    rest = list(dict.fromkeys((one.dataset, one.split) for one in measured if (one.dataset, one.split) not in known))
    others = Block("other", "Other benchmarks", _columns([(name, [split]) for name, split in rest], ["gIoU", "cIoU"]))
    printed = read_reported() if reported else {}
    made = []
    for block in (*BLOCKS, others):
        ours = [_line(block, [one for one in measured if one.method == method]) for method in _methods(measured)]
        ours = [line for line in ours if any(value is not None for value in line.values)]
        if ours:
            made.append((block, [*printed.get(block.name, []), *ours]))
    return made


def read_reported(path: Path = REPORTED) -> dict[str, list[Line]]:
    """The papers' lines by block.

    Raises:
        ValueError: a block is unknown, or a line has not one value for each of its columns.
    """
    content = cast(dict[str, list[list[Any]]], OmegaConf.to_container(OmegaConf.load(path)))
    columns = {block.name: block.columns for block in BLOCKS}
    made: dict[str, list[Line]] = {}
    for name, lines in content.items():
        if name not in columns:
            raise ValueError(f"{path}: block {name!r} is unknown; the blocks are {', '.join(columns)}.")
        for method, model, source, *values in lines:
            if len(values) != len(columns[name]):
                raise ValueError(f"{path}: {name}, {method} has {len(values)} values for {len(columns[name])} columns.")
            made.setdefault(name, []).append(Line(method, model, f"reported: {source}", tuple(values)))
    return made


def _methods(measured: Sequence[Measured]) -> list[str]:
    return list(dict.fromkeys(one.method for one in measured))


def _line(block: Block, measured: Sequence[Measured]) -> Line:
    metrics = {(one.dataset, one.split): one.metrics for one in measured}
    values = [metrics.get((column.dataset, column.split), {}).get(column.figure) for column in block.columns]
    used = {(c.dataset, c.split) for c, value in zip(block.columns, values, strict=True) if value is not None}
    notes = list(dict.fromkeys(_rules(metrics[key]) for key in metrics if key in used))
    if any(metrics[key].get("answers") == "annotated" for key in used):
        notes.append("the decoder on right answers")
    for key in metrics:
        if key in used and metrics[key]["n_scored"] != SIZES.get(key, metrics[key]["n_scored"]):
            notes.append(f"{' '.join(key)}: {metrics[key]['n_scored']} of {SIZES[key]}")
    percent = tuple(None if value is None else 100 * value for value in values)
    return Line(measured[0].method, "", f"{MEASURED}: {', '.join(notes)}", percent)


def _rules(metrics: Mapping[str, Any]) -> str:
    """A protocol by name, and its options where they are not its own: figures under others are other figures."""
    own = named(metrics["protocol"])
    changed = [f"{key}={metrics[key]}" for key, usual in vars(own).items() if metrics.get(key, usual) != usual]
    return " ".join([own.name, *changed])


def _benchmark(folder: Path, run: dict[str, Any]) -> tuple[str, str]:
    """Dataset and split of what was predicted; a part or another partition of a dataset has a name of its own."""
    first = next(read_predictions(folder / "predictions.jsonl"), None)
    if first is None:
        raise configs.ConfigError(f"folders: {folder / 'predictions.jsonl'} is empty; evaluate at least one sample.")
    section = run.get("benchmark") or {}
    parts = [str(section.get(key)) for key in ("split_by", "queries")]
    own = [part for part in parts if part in ("google", "short", "long")]
    return " ".join([first.dataset or "?", *own]), split_of(run, first)


def split_of(run: Mapping[str, Any], first: Record | Sample) -> str:
    """The split that was asked for, which a sample's need not be: RefCLEF's `test` has those of testA, testB, ..."""
    return (run.get("benchmark") or {}).get("split") or first.split or "?"


def _short(value: Any) -> str:
    """A section of a config by the name of what it makes; another value as it is."""
    if isinstance(value, dict) and "_target_" in value:
        options = [f"{key}={_short(one)}" for key, one in value.items() if key != "_target_"]
        return f"{value['_target_'].rpartition('.')[2]}({', '.join(options)})"
    return value if isinstance(value, str) else json.dumps(value)

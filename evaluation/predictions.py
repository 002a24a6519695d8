"""predictions.jsonl: what a policy answered, one line a sample, enough to score it again without model or images.

| key | value |
|---|---|
| id, dataset, split, expression | of the sample |
| text, tokens | the completion and its length |
| state | `found`, `no_target` or `invalid` |
| reason | why the text is invalid; null otherwise |
| boxes | `[[x1, y1, x2, y2], ...]`, pixels of the original image; `[]` unless found |
| labels, scores | one a box, or null if no instance has any |
| mask | RLE of the union of what is painted; null for invalid, or where no decoder ran |
| masks | RLE of each instance where there are several; null otherwise |

Beside it lies `run.json`: what made it (format, checkpoint, data, ...), so that no run goes on with another's answers.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import configs
from segmentation.boxes import Box
from segmentation.masks import RLE, from_uncompressed
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample, prediction_mask, state

RUN_FILE = "run.json"


class BadPredictions(configs.ConfigError):
    """A predictions file, or the run beside it, is not what it should be. The message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Record:
    """One line: the answer to one sample. `mask` is the union of what `prediction` paints."""

    id: str
    dataset: str
    split: str
    expression: str
    text: str
    tokens: int
    prediction: Prediction
    mask: RLE | None

    @classmethod
    def of(cls, sample: Sample, prediction: Prediction, text: str, tokens: int) -> Record:
        """The record of an answer whose instances carry their masks, where a decoder made any."""
        mask = prediction_mask(prediction, sample.height, sample.width)
        return cls(sample.id, sample.dataset, sample.split, sample.expression, text, tokens, prediction, mask)

    def check_answers(self, sample: Sample, path: Path) -> None:
        """Raises BadPredictions if what `path` has under the sample's id answers another expression."""
        if self.expression != sample.expression:
            raise BadPredictions(
                f"{path}: sample {self.id} was asked {self.expression!r}, the dataset says {sample.expression!r}. The "
                "data have changed: choose another output folder, or delete this one."
            )


class PredictionWriter:
    """Appends records to a file, each line written whole; a run that was killed goes on where it stopped.

    Opening an existing file drops a half-written last line, reads the rest and gives the ids found in `finished`.
    Use it as a context manager.

    Args:
        path: the predictions file; its folder is created.
        run: what makes the predictions, written to `run.json` in the same folder; JSON values only. Several files in
            one folder, one a process, belong to one run.

    Raises:
        BadPredictions: a whole line cannot be read, or the folder belongs to another run.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.finished: set[str] = set()
        claim(path.with_name(RUN_FILE), run)
        if path.exists():
            drop_half_line(path)
            self.finished = {record.id for record in read_predictions(path)}
        self._file = path.open("ab")

    def write(self, record: Record) -> None:
        """Append one record; when this returns, the operating system has the line and a kill cannot lose it.

        Raises:
            ValueError: the sample is already in the file.
        """
        if record.id in self.finished:
            raise ValueError(f"{self.path}: sample {record.id} is already in it.")
        self._file.write(json.dumps(to_row(record), allow_nan=False).encode("ascii") + b"\n")
        self._file.flush()
        self.finished.add(record.id)

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_predictions(path: Path) -> Iterator[Record]:
    """The records of a file, in its order.

    Raises:
        BadPredictions: no such file, a line that is no record, a half-written last one, or an id met before.
    """
    if not path.is_file():
        raise BadPredictions(f"{path}: no such file.")
    seen: set[str] = set()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = _from_row(_parse(line))
                if record.id in seen:
                    raise ValueError(f"sample {record.id} was on an earlier line")
            except ValueError as error:
                raise BadPredictions(f"{path}, line {number}: {error}.") from error
            seen.add(record.id)
            yield record


def read_run(path: Path) -> dict[str, Any]:
    """What made a predictions file: the content of `run.json` beside it, {} if nobody wrote it down."""
    run = path.with_name(RUN_FILE)
    return json.loads(run.read_text(encoding="utf-8")) if run.exists() else {}


def gather(folder: Path, run: Mapping[str, Any], without: Callable[[dict[str, Any]], bool] | None = None) -> Path:
    """Put what processes wrote, `predictions-0-of-2.jsonl` and so on, into one `predictions.jsonl`, and return it.

    Whatever number of processes were killed, and whenever, no whole line is lost and none is there twice: a line cut in
    half is dropped, and the parts go when their lines are in place.

    Args:
        folder: holds the parts.
        run: as PredictionWriter's.
        without: lines to drop.

    Raises:
        BadPredictions: a whole line cannot be read, or the folder belongs to another run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder / RUN_FILE, run)
    path, parts = folder / "predictions.jsonl", sorted(folder.glob("predictions-*-of-*.jsonl"))
    lines: dict[str, bytes] = {}
    for source in (path, *parts) if path.exists() else parts:
        drop_half_line(source)
        with source.open("rb") as written:
            for number, line in enumerate(written, 1):
                try:
                    row = _parse(line)
                    if not (without and without(row)):
                        lines.setdefault(_get(row, "id", str), line)
                except ValueError as error:
                    raise BadPredictions(f"{source}, line {number}: {error}.") from error
    draft = path.with_suffix(".draft")
    draft.write_bytes(b"".join(lines.values()))
    draft.replace(path)
    for part in parts:
        part.unlink()
    return path


def to_row(record: Record) -> dict[str, Any]:
    """The record as the object of its line."""
    said = record.prediction
    instances = said.instances if isinstance(said, Found) else ()
    return {
        "id": record.id,
        "dataset": record.dataset,
        "split": record.split,
        "expression": record.expression,
        "text": record.text,
        "tokens": record.tokens,
        "state": state(record.prediction),
        "reason": record.prediction.reason if isinstance(record.prediction, Invalid) else None,
        "boxes": [instance.box and list(instance.box) for instance in instances],
        "labels": _some([instance.label for instance in instances]),
        "scores": _some([instance.score for instance in instances]),
        "points": _some([instance.point for instance in instances]),
        "mask": record.mask,
        # The mask of a single instance is the union; written once.
        "masks": _some([instance.mask for instance in instances]) if len(instances) > 1 else None,
    }


def _some(values: list) -> list | None:
    return values if any(value is not None for value in values) else None


def _parse(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise ValueError("the line is half-written; resume the run that wrote it")
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"a record is an object, this is a {type(row).__name__}")
    return row


def _from_row(row: dict[str, Any]) -> Record:
    mask = _rle(row.get("mask"))
    text = {key: _get(row, key, str) for key in ("id", "dataset", "split", "expression", "text")}
    return Record(**text, tokens=_get(row, "tokens", int), prediction=_prediction(row, mask), mask=mask)


def _prediction(row: dict[str, Any], mask: RLE | None) -> Prediction:
    boxes = [None if box is None else _box(box) for box in _get(row, "boxes", list)]  # None: a segmentation token
    match _get(row, "state", str), len(boxes):
        case "invalid", 0:
            return Invalid(_get(row, "reason", str))
        case "no_target", 0:
            return NoTarget()
        case "found", n if n > 0:
            masks = [mask] if n == 1 else [_rle(one) for one in _per_box(row, "masks", n)]
            labels, scores = _per_box(row, "labels", n), _per_box(row, "scores", n)
            points = [point and _point(point) for point in _per_box(row, "points", n)]
            return Found(tuple(Instance(*one) for one in zip(boxes, masks, labels, scores, points, strict=True)))
        case name, n:
            raise ValueError(f"state {name!r} with {n} boxes is no prediction")


def _get(row: dict[str, Any], key: str, kind: type) -> Any:
    if not isinstance(row.get(key), kind):
        raise ValueError(f"{key!r} is {row.get(key)!r}, not a {kind.__name__}")
    return row[key]


def _per_box(row: dict[str, Any], key: str, n: int) -> list:
    values = row.get(key)
    if values is None:
        return [None] * n
    if not isinstance(values, list) or len(values) != n:
        raise ValueError(f"{key!r} does not hold one value for each of {n} boxes")
    return values


def _box(edges: Any) -> Box:
    x1, y1, x2, y2 = _numbers("box", 4, edges)
    return x1, y1, x2, y2


def _point(position: Any) -> tuple[float, float]:
    x, y = _numbers("point", 2, position)
    return x, y


def _numbers(name: str, count: int, values: Any) -> list[float]:
    if not isinstance(values, list) or len(values) != count or not all(isinstance(n, int | float) for n in values):
        raise ValueError(f"a {name} is {count} numbers, not {values!r}")
    if not all(math.isfinite(n) for n in values):
        raise ValueError(f"{name} {values!r} is not finite")
    return [float(n) for n in values]


def _rle(value: Any) -> RLE | None:
    match value:
        case None:
            return None
        case {"size": [int(), int()], "counts": str()}:
            return from_uncompressed(value, *value["size"])  # checks that the runs fill the image
        case _:
            raise ValueError(f"a mask is {{'size': [height, width], 'counts': text}}, not {reprlib.repr(value)}")


def claim(path: Path, run: Mapping[str, Any]) -> None:
    """Make the folder of that run file this run's own, or see that it is."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}")  # several processes may write it at once, all the same
        draft.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
    before, now = json.loads(path.read_text(encoding="utf-8")), json.loads(json.dumps(run))
    differ = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if differ:
        key = differ[0]
        raise BadPredictions(
            f"{path.parent} holds the predictions of another run ({', '.join(differ)} differ; {key} was "
            f"{before.get(key)!r}, is {now.get(key)!r}). Choose another output folder, or delete this one."
        )


def drop_half_line(path: Path) -> None:
    """Cut off a last line that a kill left without its end."""
    with path.open("r+b") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)

"""Which answers are worth a look: the kinds a gallery can be filtered by, and the samples it shows of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluation.folder import Evaluation
from evaluation.predictions import Record
from segmentation.figures import SIZES, Row
from segmentation.sample import Sample


@dataclass(frozen=True)
class Kind:
    """A kind of answer: its name on the page, what it is in words, and whether a row is one."""

    title: str
    meaning: str
    holds: Callable[[Row], bool]
    best_first: bool = False


def score(row: Row) -> float | None:
    """What answers are ordered by: mask IoU, or that of boxes where nothing was painted; None without either."""
    return row.box_iou if row.iou is None else row.iou


def _found(row: Row) -> bool:
    return row.targeted and row.state == "found"


def _below_half(row: Row) -> bool:
    return _found(row) and (known := score(row)) is not None and known < 0.5


def _half_or_more(row: Row) -> bool:
    return _found(row) and (known := score(row)) is not None and known >= 0.5


def _invalid(row: Row) -> bool:
    return row.state == "invalid"


def _false_no_target(row: Row) -> bool:
    return row.targeted and row.state == "no_target"


def _missed_no_target(row: Row) -> bool:
    return not row.targeted and row.state == "found"


def _small(row: Row) -> bool:
    return row.targeted and row.area is not None and row.area < SIZES["small"][1]


KINDS = {
    "worst": Kind("worst", "something found, IoU below 0.5; lowest first", _below_half),
    "best": Kind("best", "IoU of at least 0.5; highest first", _half_or_more, best_first=True),
    "invalid": Kind("invalid", "the text is not of the format", _invalid),
    "false-no-target": Kind("false no-target", "something is meant, the answer says nothing", _false_no_target),
    "missed-no-target": Kind("missed no-target", "nothing is meant, the answer finds something", _missed_no_target),
    "small": Kind("small objects", "less than 32² pixels are meant; lowest IoU first", _small),
}


@dataclass(frozen=True)
class Answer:
    """What one evaluation answered to a card's sample. `kinds` holds those that it was chosen for."""

    evaluation: int
    row: Row
    record: Record
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """A sample, and the answers of every evaluation of its benchmark."""

    sample: Sample
    answers: tuple[Answer, ...]


def totals(evaluation: Evaluation) -> dict[str, int]:
    """How many answers there are of each kind, shown or not."""
    return {name: sum(map(kind.holds, evaluation.rows)) for name, kind in KINDS.items()}


def choose(evaluations: Sequence[Evaluation], shown: int) -> list[Card]:
    """The cards to show: of every evaluation and kind the first `shown` answers, each sample once.

    Evaluations that answered the same samples share their cards.
    """
    benchmarks: dict[tuple[str, ...], list[int]] = {}
    for number, evaluation in enumerate(evaluations):
        benchmarks.setdefault(tuple(row.id for row in evaluation.rows), []).append(number)
    cards = []
    for numbers in benchmarks.values():
        chosen = {number: _chosen(evaluations[number].rows, shown) for number in numbers}
        for index in sorted({index for kinds in chosen.values() for index in kinds}):
            answers = []
            for number in numbers:
                row = evaluations[number].rows[index]
                record, kinds = evaluations[number].records[row.id], chosen[number].get(index, ())
                answers.append(Answer(number, row, record, tuple(kinds)))
            cards.append(Card(evaluations[numbers[0]].samples[index], tuple(answers)))
    return cards


def _chosen(rows: Sequence[Row], shown: int) -> dict[int, list[str]]:
    """The kinds for which each row is shown, by the row's index. Equal scores keep the order of the benchmark."""
    chosen: dict[int, list[str]] = {}
    for name, kind in KINDS.items():
        indices = [index for index, row in enumerate(rows) if kind.holds(row)]
        sign = -1 if kind.best_first else 1
        indices.sort(key=lambda index: sign * (score(rows[index]) or 0.0))
        for index in indices[:shown]:
            chosen.setdefault(index, []).append(name)
    return chosen

"""Evaluation: what one answer scores, and how a benchmark's answers are summed up.

| figure | definition |
|---|---|
| gIoU | mean IoU over all samples |
| cIoU | sum of intersections over sum of unions, in pixels; None if no pixel was meant or painted |
| Pr@t | share of samples with targets whose IoU is >= t, as in LAVT and ReLA |
| box_iou | mean, over samples with targets, of the matched IoU of boxes over max(predicted, annotated) |
| Acc@0.5 | share of samples with targets whose box score is > 0.5; for one object this is REC's accuracy |
| N_acc | share of samples without target that are answered `NoTarget` (ReLA's N-acc) |
| T_acc | share of samples with targets that are answered `Found`; ReLA's T-acc, where no answer can be invalid |

All are fractions; a figure over no sample at all is None, and so is every mask figure once a sample has no mask to be
scored (a `Found` that no decoder has painted, or box-only data): a mean of the rest would be of a chosen part. Box
figures are None likewise, where an answer has segmentation tokens and no decoder has made boxes of them.

**Three states.** An `Invalid` answer scores IoU 0 and its ground truth joins the union; it is wrong in N_acc and in
T_acc. It is never taken for a no-target.

**Ignored pixels** (`Sample.ignore`). Public evaluators treat them in three ways, and differ by it on ReasonSeg: `drop`
takes them out of prediction and truth (LISA), `background` calls them background (LENS), `target` calls them
foreground (Seg-Zero).

**Protocols.** What an answer adds to the sums is the protocol's; its name is part of every result.

`lisa` (dvlab-research/LISA, `train_ds.py` and `utils/utils.py`): `I / U`, and 1 where `U` is 0, so that painting
nothing where nothing is meant is right. `NoTarget` paints nothing. LISA's own 1e-5 and 1e-10 in the denominators are
left out: they keep 0/0 away, and would make a perfect mask of 10 pixels score 0.999999.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from segmentation.boxes import iou_matrix
from segmentation.masks import RLE, area, empty, shared_area, union
from segmentation.matching import matched_mean
from segmentation.sample import Found, NoTarget, Prediction, Sample, state

Ignore = Literal["drop", "background", "target"]
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pixels of a predicted mask and of the ground truth after the ignore rule."""

    intersection: int
    predicted: int
    meant: int

    @property
    def union(self) -> int:
        return self.predicted + self.meant - self.intersection


def overlap(sample: Sample, mask: RLE, ignore: Ignore = "drop") -> Overlap | None:
    """How far a mask covers the sample's targets; None if a target has no mask.

    Raises:
        ValueError: a mask is of another size than the sample.
    """
    truth = sample.mask
    if truth is None:
        return None
    for name, rle in (("predicted", mask), ("ignore", sample.ignore)):
        if rle is not None and list(rle["size"]) != [sample.height, sample.width]:
            raise ValueError(
                f"sample {sample.id}: the {name} mask is {rle['size']}, the image {[sample.height, sample.width]}."
            )
    out = sample.ignore
    if out is not None and ignore == "target":
        truth, out = union([truth, out], sample.height, sample.width), None
    intersection, predicted, meant = shared_area(mask, truth), area(mask), area(truth)
    if out is not None:
        intersection -= shared_area(mask, truth, out)
        meant -= shared_area(truth, out)
        if ignore == "drop":
            predicted -= shared_area(mask, out)
    return Overlap(intersection, predicted, meant)


def box_score(sample: Sample, prediction: Prediction) -> float | None:
    """Sum of the IoU of Hungarian-matched boxes over max(predicted, annotated), 0..1.

    0 for `NoTarget` and `Invalid`; None if the sample has no target, where boxes say nothing.

    Raises:
        ValueError: an instance has no box (`Found.boxes`).
    """
    if not sample.targets:
        return None
    if not isinstance(prediction, Found):
        return 0.0
    return matched_mean(iou_matrix(prediction.boxes, [target.box for target in sample.targets]))


class Score(NamedTuple):
    """What one answer adds: its IoU to the mean, its pixels to the sums of cIoU."""

    iou: float
    intersection: int
    union: int


def lisa(answer: str, seen: Overlap) -> Score:
    """LISA's rule, for an answer of that state (`segmentation.sample.state`)."""
    intersection, union = (seen.intersection, seen.union) if answer == "found" else (0, seen.meant)
    if answer == "invalid":
        return Score(0.0, 0, union)
    return Score(intersection / union if union else 1.0, intersection, union)


PROTOCOLS: dict[str, Callable[[str, Overlap], Score]] = {"lisa": lisa}


@dataclass(frozen=True, slots=True)
class Row:
    """What one sample scored.

    `iou` and its pixels are None without a mask, `box_iou` where nothing is meant or no box is known.
    """

    id: str
    state: str
    targeted: bool
    iou: float | None
    intersection: int | None
    union: int | None
    box_iou: float | None
    tokens: int | None = None


class Evaluator:
    """Scores answers one by one and sums them up; the definitions are those of the module.

    Args:
        protocol: how an answer enters the sums; a key of `PROTOCOLS`.
        ignore: what ignored pixels are: taken out, background, or target.
        empty_pixels: a `Found` whose mask has fewer pixels counts as `NoTarget` in everything. Some gRefCOCO papers
            state 50; no public evaluator read does it, so it is off (0).
        n_expected: how many samples the benchmark has, if known by now; else see `expect`.

    Raises:
        ValueError: an unknown protocol or ignore rule.
    """

    def __init__(
        self,
        protocol: str = "lisa",
        ignore: Ignore = "drop",
        empty_pixels: int = 0,
        n_expected: int | None = None,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol={protocol!r} is unknown; the protocols are {', '.join(PROTOCOLS)}.")
        if ignore not in get_args(Ignore):
            raise ValueError(f"ignore={ignore!r} is unknown; ignored pixels can be {', '.join(get_args(Ignore))}.")
        self.protocol, self.empty_pixels, self.n_expected = protocol, empty_pixels, n_expected
        self.ignore: Ignore = ignore
        self._rows: dict[str, Row] = {}

    @property
    def rows(self) -> list[Row]:
        """One row a sample, in the order they were added."""
        return list(self._rows.values())

    def expect(self, n: int) -> None:
        """State how many samples the benchmark has; `result` reports it beside the number scored."""
        self.n_expected = n

    def add(self, sample: Sample, prediction: Prediction, mask: RLE | None, tokens: int | None = None) -> Row:
        """Score one answer.

        Args:
            mask: union of what the prediction paints (`segmentation.sample.prediction_mask`); None for `Invalid` and
                where no decoder made one.
            tokens: length of the completion.

        Raises:
            ValueError: the sample was added before, or a mask is of another size than the image.
        """
        if sample.id in self._rows:
            raise ValueError(f"sample {sample.id} is scored twice; a duplicate would be weighted double.")
        if isinstance(prediction, Found) and mask is not None and area(mask) < self.empty_pixels:
            prediction = NoTarget()
        answer = state(prediction)
        seen = None
        if mask is not None or answer != "found":
            seen = overlap(sample, mask or empty(sample.height, sample.width), self.ignore)
        iou, intersection, union = PROTOCOLS[self.protocol](answer, seen) if seen else (None, None, None)
        row = Row(
            id=sample.id,
            state=answer,
            targeted=bool(sample.targets),
            iou=iou,
            intersection=intersection,
            union=union,
            box_iou=box_score(sample, prediction) if _has_boxes(prediction) else None,
            tokens=tokens,
        )
        self._rows[sample.id] = row
        return row

    def result(self) -> dict[str, float | int | str | None]:
        """The figures of the module's table, `mean_tokens`, the counts of samples and states, and the rules used.

        Sums are exact (`math.fsum`, integers), so the order in which samples were added changes no digit.
        """
        rows = self.rows
        with_target = [row for row in rows if row.targeted]
        without_target = [row for row in rows if not row.targeted]
        ious = [row.iou for row in with_target]
        counted = {name: sum(row.state == name for row in rows) for name in ("found", "no_target", "invalid")}
        return {
            "cIoU": _ratio([(row.intersection, row.union) for row in rows]),
            "gIoU": _mean([row.iou for row in rows]),
            **{f"Pr@{t}": _mean([None if iou is None else iou >= t for iou in ious]) for t in THRESHOLDS},
            "Acc@0.5": _mean([None if row.box_iou is None else row.box_iou > 0.5 for row in with_target]),
            "box_iou": _mean([row.box_iou for row in with_target]),
            "N_acc": _mean([row.state == "no_target" for row in without_target]),
            "T_acc": _mean([row.state == "found" for row in with_target]),
            "invalid_rate": _mean([row.state == "invalid" for row in rows]),
            "mean_tokens": _mean([row.tokens for row in rows]),
            "n_expected": self.n_expected,
            "n_scored": len(rows),
            **{f"n_{name}": count for name, count in counted.items()},
            "protocol": self.protocol,
            "ignore": self.ignore,
            "empty_pixels": self.empty_pixels,
        }


def _has_boxes(prediction: Prediction) -> bool:
    return not isinstance(prediction, Found) or all(instance.box is not None for instance in prediction.instances)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def _ratio(pixels: Sequence[tuple[int | None, int | None]]) -> float | None:
    known = [(intersection, union) for intersection, union in pixels if intersection is not None and union is not None]
    whole = sum(union for _, union in known)
    return sum(intersection for intersection, _ in known) / whole if whole and len(known) == len(pixels) else None

"""The figures of a benchmark: each is a sum over samples divided by another, of what the samples' rows hold.

| figure | definition |
|---|---|
| cIoU | sum of intersections over sum of unions, in pixels; None if no pixel was meant or painted |
| gIoU | mean IoU over all samples |
| Pr@t | share of samples with targets whose IoU is >= t, as in LAVT and ReLA; of all samples, or of objects, where the protocol says so |
| Acc@0.5 | share of samples with targets whose box score is > 0.5; for one object this is REC's accuracy |
| box_iou | mean, over samples with targets, of the matched IoU of boxes over max(predicted, annotated) |
| N_acc | share of samples without target that are answered `NoTarget` (ReLA's N-acc) |
| T_acc | share of samples with targets that are answered `Found`; ReLA's T-acc, where no answer can be invalid |
| invalid_rate | share of answers that are `Invalid` |
| mean_tokens | mean length of a completion |
| mask_Acc@0.5 | Acc@0.5 of the boxes around the painted masks, as REC is read off segmentation models |
| gIoU_small, ... | gIoU and cIoU of the samples with targets whose annotated area is below 32^2, from there to 96^2, and from 96^2 pixels on (COCO, `pycocotools.cocoeval` areaRng) |
| mIoU, oIoU | `rmsin`: its names of gIoU and cIoU |
| bbox_AP | `vision_reasoner`: share of all samples of which some box overlaps the box around the targets by > 0.5 |

All are fractions; a figure over no sample at all is None, and so is every mask figure once a sample has no mask to be
scored (a `Found` that no decoder has painted, or box-only data): a mean of the rest would be of a chosen part. Box
figures are None likewise, where an answer has segmentation tokens and no decoder has made boxes of them.
"""  # noqa: E501, a table row cannot be broken

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segmentation.protocols import Protocol

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, math.inf)}


@dataclass(frozen=True, slots=True)
class Row:
    """What one sample scored.

    `iou` and its pixels are None without a mask, `box_iou` and `mask_box_iou` where nothing is meant or no box is
    known. `area` is that of the annotated mask in pixels, None without one; `objects` holds the IoU of each target with
    its match, in a protocol that matches; `any_box` is VisionReasoner's (`segmentation.box_score.any_box`).
    """

    id: str
    state: str
    targeted: bool
    iou: float | None
    intersection: int | None
    union: int | None
    box_iou: float | None
    tokens: int | None = None
    mask_box_iou: float | None = None
    any_box: bool | None = None
    area: int | None = None
    objects: tuple[float, ...] | None = None


Terms = tuple[float, float]  # what a row adds to the sum above the line and to that below; (0, 0) if it does not count
Figure = Callable[[Row], Terms | None]  # None: the row counts, and has no value; then the figure has none either


def figures(protocol: Protocol) -> dict[str, Figure]:
    """The figures of a protocol by name, in the order in which they are reported."""
    made: dict[str, Figure] = {"cIoU": _pixels, "gIoU": _mean(lambda row: row.iou)}
    made |= {f"Pr@{threshold}": _precision(threshold, protocol) for threshold in THRESHOLDS}
    made |= {
        "Acc@0.5": _mean(lambda row: _above_half(row.box_iou), _targeted),
        "box_iou": _mean(lambda row: row.box_iou, _targeted),
        "N_acc": _mean(lambda row: row.state == "no_target", lambda row: not row.targeted),
        "T_acc": _mean(lambda row: row.state == "found", _targeted),
        "invalid_rate": _mean(lambda row: row.state == "invalid"),
        "mean_tokens": _mean(lambda row: row.tokens),
        "mask_Acc@0.5": _mean(lambda row: _above_half(row.mask_box_iou), _targeted),
    }
    for size in SIZES:
        made |= {f"gIoU_{size}": _of_size(size, made["gIoU"]), f"cIoU_{size}": _of_size(size, made["cIoU"])}
    special = {"mIoU": made["gIoU"], "oIoU": made["cIoU"], "bbox_AP": _mean(lambda row: row.any_box)}
    return made | {name: special[name] for name in protocol.also}


def sums(rows: Sequence[Row], protocol: Protocol) -> dict[str, list[Terms] | None]:
    """The terms of each row to each figure; None for a figure that has no value.

    A figure is `ratio` of its terms, and its bootstrap the same of rows drawn again (`evaluation.intervals`).
    """
    made: dict[str, list[Terms] | None] = {}
    for name, figure in figures(protocol).items():
        terms = [figure(row) for row in rows]
        known = [term for term in terms if term is not None]
        made[name] = known if len(known) == len(terms) and any(below for _, below in known) else None
    return made


def ratio(terms: Sequence[Terms]) -> float:
    """The sum above the line over that below. The sums are exact, so the order of the rows changes no digit."""
    return math.fsum(above for above, _ in terms) / math.fsum(below for _, below in terms)


def _mean(value: Callable[[Row], float | None], of: Callable[[Row], bool] = lambda row: True) -> Figure:
    def terms(row: Row) -> Terms | None:
        if not of(row):
            return 0.0, 0.0
        known = value(row)
        return None if known is None else (float(known), 1.0)

    return terms


def _pixels(row: Row) -> Terms | None:
    return None if row.intersection is None or row.union is None else (row.intersection, row.union)


def _precision(threshold: float, protocol: Protocol) -> Figure:
    def reaches(row: Row) -> bool | None:
        return None if row.iou is None else row.iou >= threshold

    def objects(row: Row) -> Terms | None:
        return None if row.objects is None else (sum(iou >= threshold for iou in row.objects), len(row.objects))

    match protocol.precision_over:
        case "objects":
            return objects
        case "all":
            return _mean(reaches)
        case "targeted":
            return _mean(reaches, _targeted)


def _of_size(size: str, figure: Figure) -> Figure:
    low, high = SIZES[size]

    def terms(row: Row) -> Terms | None:
        if not row.targeted:
            return 0.0, 0.0
        if row.area is None:
            return None
        return figure(row) if low <= row.area < high else (0.0, 0.0)

    return terms


def _targeted(row: Row) -> bool:
    return row.targeted


def _above_half(score: float | None) -> bool | None:
    return None if score is None else score > 0.5

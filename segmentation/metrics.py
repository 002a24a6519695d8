"""Evaluation: answers are scored one by one under a protocol (`segmentation.protocols`), then summed up to figures
(`segmentation.figures`).

**Three states.** An `Invalid` answer scores IoU 0 and its ground truth joins the union; it is wrong in N_acc and in
T_acc. It is never taken for a no-target.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from segmentation.box_score import any_box, box_score, mask_box_score
from segmentation.figures import Row, ratio, sums
from segmentation.masks import RLE, area
from segmentation.overlap import Ignore, Overlap, overlap
from segmentation.protocols import Protocol, named
from segmentation.sample import Found, NoTarget, Prediction, Sample, state

__all__ = ["Evaluator", "Ignore", "Overlap", "Row", "box_score", "overlap"]


class Evaluator:
    """Scores answers one by one and sums them up.

    Args:
        protocol: how an answer enters the sums: a protocol, or the name of one.
        n_expected: how many samples the benchmark has, if known by now; else see `expect`.
        options: of the protocol, in place of its own: `ignore`, `empty_iou`, `empty_pixels`, ...

    Raises:
        ValueError: an unknown protocol, or a wrong option.
    """

    def __init__(self, protocol: Protocol | str = "lisa", n_expected: int | None = None, **options: Any) -> None:
        if isinstance(protocol, str):
            protocol = named(protocol)
        self.protocol, self.n_expected = dataclasses.replace(protocol, **options), n_expected
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
        if isinstance(prediction, Found) and mask is not None and area(mask) < self.protocol.empty_pixels:
            prediction = NoTarget()
        score = self.protocol.judge(sample, prediction, mask)
        truth = sample.mask
        row = Row(
            id=sample.id,
            state=state(prediction),
            targeted=score.targeted if score else bool(sample.targets),
            iou=score.iou if score else None,
            intersection=score.intersection if score else None,
            union=score.union if score else None,
            box_iou=box_score(sample, prediction) if _has_boxes(prediction) else None,
            tokens=tokens,
            mask_box_iou=mask_box_score(sample, prediction),
            any_box=any_box(sample, prediction),
            area=None if truth is None else area(truth),
            objects=score.objects if score else None,
        )
        self._rows[sample.id] = row
        return row

    def result(self) -> dict[str, float | int | str | bool | None]:
        """The figures of the protocol, the counts of samples and states, and the rules used, the protocol's name first.

        The order in which samples were added changes no digit.
        """
        rows = self.rows
        counted = {name: sum(row.state == name for row in rows) for name in ("found", "no_target", "invalid")}
        return {
            **{name: ratio(terms) if terms else None for name, terms in sums(rows, self.protocol).items()},
            "n_expected": self.n_expected,
            "n_scored": len(rows),
            **{f"n_{name}": count for name, count in counted.items()},
            "protocol": self.protocol.name,
            **dataclasses.asdict(self.protocol),
        }


def _has_boxes(prediction: Prediction) -> bool:
    return not isinstance(prediction, Found) or all(instance.box is not None for instance in prediction.instances)

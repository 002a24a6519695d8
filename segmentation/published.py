"""Which protocol the papers on a dataset are scored by, for runs over datasets that are not scored alike."""

from __future__ import annotations

from dataclasses import dataclass

from segmentation.overlap import Ignore
from segmentation.protocols import Protocol, named

BY_DATASET = {"grefcoco": "rela", "rrsisd": "rmsin", "muse": "muse", "ors_bench": "ors"}
OTHERS = "lisa"  # RefCOCO, ReasonSeg, and those whose papers say no more than gIoU and cIoU


@dataclass(frozen=True)
class Published:
    """The protocol of each dataset, by its name.

    Args:
        ignore, empty_iou, empty_pixels: options of `segmentation.protocols.Protocol`; None for each protocol's own.
    """

    ignore: Ignore | None = None
    empty_iou: float | None = None
    empty_pixels: int | None = None

    def of(self, dataset: str) -> Protocol:
        """The protocol of a dataset (`Sample.dataset`). Raises ValueError where it does not take the options."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return named(BY_DATASET.get(dataset, OTHERS), **given)

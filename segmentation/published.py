"""What is published on a dataset: the protocol its papers are scored by, and how many samples its splits have."""

from __future__ import annotations

from dataclasses import dataclass

from segmentation.overlap import Ignore
from segmentation.protocols import Protocol, named

BY_DATASET = {"grefcoco": "rela", "rrsisd": "rmsin", "muse": "muse", "ors_bench": "ors"}
OTHERS = "lisa"  # RefCOCO, ReasonSeg, and those whose papers say no more than gIoU and cIoU

# Expressions of a whole split, where that is known: the refer API's tables, LISA.
SIZES = {
    **{("refcoco", split): size for split, size in {"val": 10_834, "testA": 5_657, "testB": 5_095}.items()},
    **{("refcoco+", split): size for split, size in {"val": 10_758, "testA": 5_726, "testB": 4_889}.items()},
    **{("refcocog", split): size for split, size in {"val": 4_896, "test": 9_602}.items()},
    **{("reasonseg", split): size for split, size in {"val": 200, "test": 779}.items()},
    **{(name, "train"): size for name, size in {"refcoco": 120_624, "refcoco+": 120_191, "refcocog": 80_512}.items()},
}


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

"""Pixels that a prediction and the ground truth share, after the rule for ignored pixels.

**Ignored pixels** (`Sample.ignore`). Public evaluators treat them in three ways, and differ by it on ReasonSeg: `drop`
takes them out of prediction and truth (LISA), `background` calls them background (LENS), `target` calls them
foreground (Seg-Zero, VisionReasoner).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segmentation.masks import RLE, area, empty, shared_area, union
from segmentation.matching import hungarian
from segmentation.sample import Sample

Ignore = Literal["drop", "background", "target"]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pixels of a predicted mask and of the ground truth after the ignore rule."""

    intersection: int
    predicted: int
    meant: int

    @property
    def union(self) -> int:
        return self.predicted + self.meant - self.intersection

    @property
    def iou(self) -> float:
        """Intersection over union, 0 where the union is empty."""
        return self.intersection / self.union if self.union else 0.0


def overlap(sample: Sample, mask: RLE, ignore: Ignore = "drop") -> Overlap | None:
    """How far a mask covers the union of the sample's targets; None if a target has no mask.

    Raises:
        ValueError: a mask is of another size than the sample.
    """
    truth = sample.mask
    if truth is None:
        return None
    _check_sizes(sample, [mask])
    return _cover(mask, truth, sample.ignore, ignore)


def matched_overlap(sample: Sample, painted: Sequence[RLE], ignore: Ignore = "drop") -> list[Overlap] | None:
    """Predicted masks and targets in pairs, the sum of whose IoU is the largest possible; None if a target has no mask.

    The pairs stand in the order of the targets. A target or a prediction that is left over is paired with an empty
    mask, predictions last, as PixelLM does on MUSE (arXiv 2312.02228, recalled: the paper's scoring script is not
    public).

    Args:
        painted: the mask of each predicted object.
        ignore: not `target`: of several objects, none is the one that ignored pixels would belong to.

    Raises:
        ValueError: a mask is of another size than the sample, or `ignore="target"`.
    """
    if ignore == "target":
        raise ValueError("ignore='target' says not to which of several objects ignored pixels belong; use 'drop'.")
    truths = [target.mask for target in sample.targets if target.mask is not None]
    if len(truths) < len(sample.targets):
        return None
    _check_sizes(sample, painted)
    nothing = empty(sample.height, sample.width)
    count = max(len(painted), len(truths))
    rows = [*painted, *[nothing] * (count - len(painted))]
    columns = [*truths, *[nothing] * (count - len(truths))]
    pairs = [[_cover(mask, truth, sample.ignore, ignore) for truth in columns] for mask in rows]
    scores = np.array([pair.iou for row in pairs for pair in row]).reshape(count, count)
    return [pairs[row][column] for row, column in sorted(hungarian(scores), key=lambda pair: pair[1])]


def _cover(mask: RLE, truth: RLE, ignored: RLE | None, ignore: Ignore) -> Overlap:
    if ignored is not None and ignore == "target":
        height, width = truth["size"]
        truth, ignored = union([truth, ignored], height, width), None
    intersection, predicted, meant = shared_area(mask, truth), area(mask), area(truth)
    if ignored is not None:
        intersection -= shared_area(mask, truth, ignored)
        meant -= shared_area(truth, ignored)
        if ignore == "drop":
            predicted -= shared_area(mask, ignored)
    return Overlap(intersection, predicted, meant)


def _check_sizes(sample: Sample, painted: Sequence[RLE]) -> None:
    named = [("predicted", mask) for mask in painted]
    if sample.ignore is not None:
        named.append(("ignore", sample.ignore))
    for name, mask in named:
        if list(mask["size"]) != [sample.height, sample.width]:
            raise ValueError(
                f"sample {sample.id}: the {name} mask is {mask['size']}, the image {[sample.height, sample.width]}."
            )

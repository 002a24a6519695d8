"""What a step's log says beyond TRL's: over all completions of all processes since the last log, in one reduction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from segmentation.box_score import box_score
from segmentation.figures import SIZES
from segmentation.masks import RLE, area
from segmentation.overlap import overlap
from segmentation.sample import Found, Prediction, Sample, state

STATES = ("found", "no_target", "invalid")
SECTIONS = ("prepare", "generate", "sync", "score", "parse", "decode", "rewards", "update")


class StepLog:
    """Sums over completions, kept until they are logged.

    | key | what it is |
    |---|---|
    | rewards/NAME/none | share of completions to which a reward does not apply |
    | groups/equal | share of groups whose completions all got the same total: they teach nothing |
    | box_iou/SIZE | matched IoU of boxes over max(answered, annotated), of samples with targets of that size |
    | mask_iou/SIZE | IoU of the painted mask with the union of targets |
    | completions/mean_length/STATE | tokens of the completions that found, saw no target, or are invalid |
    | time/SECTION | seconds an update: prepare (prompts and pictures into tensors), sync (weights to the engine), generate, score (log-probabilities before the update), parse, decode (masks by a trained decoder), rewards, update (forward and backward) |

    SIZE is COCO's, of the annotated area in pixels of the original image (`segmentation.figures`); of the boxes' where
    there are no masks. An answer that is not `Found` has IoU 0. On CUDA a section is charged for what was queued before
    it, since nothing waits for the device on its account.

    Args:
        rewards: their names.

    Attributes:
        updates: made since the last log.
    """  # noqa: E501, a table row cannot be broken

    def __init__(self, rewards: Sequence[str]) -> None:
        self.rewards = tuple(rewards)
        names = [f"rewards/{name}/none" for name in rewards]
        names += ["groups/equal"]
        names += [f"{what}/{size}" for what in ("box_iou", "mask_iou") for size in SIZES]
        names += [f"completions/mean_length/{name}" for name in STATES]
        self._sums = {name: [0.0, 0.0] for name in names}  # total, count
        self._seconds: dict[str, float] = dict.fromkeys(SECTIONS, 0.0)
        self.updates = 0
        self._nested: list[float] = []  # seconds of the sections inside of each that is open

    def add(
        self,
        samples: Sequence[Sample],
        predictions: Sequence[Prediction],
        masks: Sequence[RLE | None],
        completion_ids: Sequence[Sequence[int]],
    ) -> None:
        """Take in this process's completions, one row each; `masks` as `prediction_mask` makes them."""
        for sample, prediction, mask, ids in zip(samples, predictions, masks, completion_ids, strict=True):
            self._add(f"completions/mean_length/{state(prediction)}", len(ids))
            if not sample.targets:
                continue
            size = _size(sample)
            boxed = not isinstance(prediction, Found) or all(one.box is not None for one in prediction.instances)
            if boxed:
                self._add(f"box_iou/{size}", box_score(sample, prediction) or 0.0)
            if sample.mask is None or (isinstance(prediction, Found) and mask is None):
                continue  # annotated with boxes only, or no decoder made masks
            covered = overlap(sample, mask) if mask is not None else None
            self._add(f"mask_iou/{size}", covered.iou if covered else 0.0)

    def add_rewards(self, scores: Tensor, weights: Tensor, group: int) -> None:
        """Take in the rewards `(B, F)` of all processes, NaN where one does not apply; groups are `group` rows."""
        for name, column in zip(self.rewards, scores.isnan().T.tolist(), strict=True):
            self._add(f"rewards/{name}/none", sum(column), len(column))
        totals = (scores * weights.to(scores)).nansum(1).view(-1, group)
        equal = (totals.amax(1) - totals.amin(1)) <= 1e-6  # a spread that is the rounding of a sum
        self._add("groups/equal", float(equal.sum()), len(equal))

    @contextmanager
    def timed(self, section: str) -> Iterator[None]:
        """Charge a section for the block, less what is charged to others inside of it."""
        start = time.perf_counter()
        self._nested.append(0.0)
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self._seconds[section] += took - self._nested.pop()
            if self._nested:
                self._nested[-1] += took

    def means(self, reduce: Callable[[Tensor], Any], device: torch.device) -> dict[str, float]:
        """What was summed up, then forgotten; nothing for a quantity that no completion had.

        Args:
            reduce: sums a tensor over all processes.
        """
        kept = [*self._sums.values(), *([seconds, float(self.updates)] for seconds in self._seconds.values())]
        totals: list[list[float]] = reduce(torch.tensor(kept, dtype=torch.float32, device=device)).tolist()
        names = [*self._sums, *(f"time/{section}" for section in self._seconds)]
        self._sums = {name: [0.0, 0.0] for name in self._sums}
        self._seconds, self.updates = dict.fromkeys(self._seconds, 0.0), 0
        return {name: total / count for name, (total, count) in zip(names, totals, strict=True) if count}

    def _add(self, name: str, total: float, count: int = 1) -> None:
        self._sums[name][0] += total
        self._sums[name][1] += count


def _size(sample: Sample) -> str:
    """COCO's name for the area of the targets."""
    truth = sample.mask
    boxes = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (target.box for target in sample.targets))
    meant = boxes if truth is None else area(truth)
    return next(name for name, (low, high) in SIZES.items() if low <= meant < high)

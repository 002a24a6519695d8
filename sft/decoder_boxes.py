"""The boxes that a decoder is trained from: annotated ones, moved a little, or those that the policy wrote itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segmentation.boxes import Box, iou_matrix
from segmentation.matching import hungarian
from segmentation.sample import Sample
from sft.decoder_batches import Objects

MATCHED = 0.5  # IoU from which on a box means its target; below, it names something else, and its mask would be a lie


def jitter(boxes: Tensor, share: float) -> Tensor:
    """Boxes `(N, 4)`, shares of the picture, with each edge moved by up to `share` of the box's side, uniformly.

    They stay inside the picture, and with a share below 0.5 none is turned inside out.
    """
    if not share or not len(boxes):
        return boxes
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)  # (N, 4)
    return (boxes + share * sides * (2 * torch.rand_like(boxes) - 1)).clamp(0, 1)


@dataclass(frozen=True, slots=True)
class OwnBoxes:
    """The policy's own boxes.

    Args:
        boxes: for each sample id, a box for each object: the annotated one where none of the policy's matches.
        matched: how many of the `total` boxes are the policy's.
    """

    boxes: dict[str, list[Box]]
    matched: int
    total: int

    def __str__(self) -> str:
        return f"{self.matched} of {self.total} boxes are the policy's own, the others annotated"


def own_boxes(samples: Sequence[Sample], file: str | Path, objects: Objects) -> OwnBoxes:
    """What `evaluation/evaluate.py` wrote about just these samples, brought to their objects by Hungarian matching.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is no prediction, or there is none for a sample: it is of other data.
    """
    said = _read(Path(file))
    if len(samples) > len(said):
        raise ValueError(f"{file} answers {len(said)} samples, the data has {len(samples)}; are they the same data?")
    boxes, matched = {}, 0
    for sample in samples:
        if sample.id not in said:
            raise ValueError(f"{file} has no answer to sample {sample.id}: it is of other samples than the data.")
        kept = [target.box for target in objects(sample)]
        scores = iou_matrix(said[sample.id], kept)
        for predicted, annotated in hungarian(np.where(scores >= MATCHED, scores, 0)):
            if scores[predicted, annotated] >= MATCHED:
                kept[annotated] = said[sample.id][predicted]
                matched += 1
        boxes[sample.id] = kept
    return OwnBoxes(boxes, matched, sum(map(len, boxes.values())))


def _read(file: Path) -> dict[str, list[Box]]:
    """id -> boxes of a predictions.jsonl, without those of which only a mask is known."""
    said: dict[str, list[Box]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            said[row["id"]] = [(x1, y1, x2, y2) for x1, y1, x2, y2 in filter(None, row["boxes"])]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}, line {number}: no prediction of evaluation/evaluate.py ({error}).") from error
    return said

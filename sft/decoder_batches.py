"""Samples as the batches that a decoder is trained on: objects with boxes and masks, and what the policy is to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from rollouts.rows import picture
from segmentation import masks
from segmentation.boxes import Box
from segmentation.data.samples import Samples
from segmentation.formats import Format
from segmentation.formats.base import left_to_right
from segmentation.sample import Sample, Target
from sft.feature_cache import FeatureCache, row_key
from sft.view import Viewer

Objects = Callable[[Sample], list[Target]]


def objects(sample: Sample, format: Format) -> list[Target]:
    """What a decoder makes masks of, in the order of the text: a target each, or all of them as one region.

    A format that writes one segmentation token for them all means one region.

    Raises:
        ValueError: a target has no mask, or the format writes neither a token for each target nor one for all.
    """
    for target in sample.targets:
        if target.mask is None:
            raise ValueError(f"sample {sample.id} has a target without mask: box-only data cannot train a decoder.")
    targets = left_to_right(sample.targets)
    if format.seg_token is None or len(targets) < 2:
        return targets
    written = format.encode(sample).count(format.seg_token)
    if written == len(targets):
        return targets
    if written != 1:
        raise ValueError(f"sample {sample.id}: {written} segmentation tokens for {len(targets)} targets.")
    whole = masks.union([target.mask for target in targets if target.mask], sample.height, sample.width)
    edges = [target.box for target in targets]
    x1, y1, x2, y2 = zip(*edges, strict=True)
    return [Target((min(x1), min(y1), max(x2), max(y2)), whole)]


class WithTargets(Samples):
    """The same samples with each that has no target replaced by the next that has one: the others have no mask.

    Samples are looked at when they are asked for, so that a dataset without end can be used.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, index: int) -> Sample:
        """Raises ValueError if no sample has a target."""
        for step in range(len(self)):
            sample = self.samples[(index + step) % len(self)]
            if sample.targets:
                return sample
        raise ValueError("no sample has a target, so there is no mask to learn from.")


class DecoderBatches:
    """Collates samples.

    | key | value |
    |---|---|
    | `owner` | the row of each of the `N` objects |
    | `boxes` | `(N, 4)` shares of the picture's width and height |
    | `masks` | `N` masks `bool (H, W)`, each at its picture's original size |
    | `views` | of each row, None where the policy must look |
    | `todo`, `inputs` | those rows, and what the policy is given of them; `inputs` is not there if `todo` is empty |
    | `keys` | of each row in the cache, None without |

    Args:
        viewer: makes the policy's inputs.
        cache: views made before.
        boxes: other boxes than the annotated ones, by sample (`OwnBoxes`).
    """

    def __init__(
        self, viewer: Viewer, cache: FeatureCache | None = None, boxes: Mapping[str, list[Box]] | None = None
    ) -> None:
        self.viewer, self.cache, self.boxes = viewer, cache, boxes

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        owner, boxes, truths = [], [], []
        for row, sample in enumerate(samples):
            found = objects(sample, self.viewer.format)
            given = [target.box for target in found] if self.boxes is None else self.boxes[sample.id]
            sides = (sample.width, sample.height) * 2
            owner += [row] * len(found)
            boxes += [[edge / side for edge, side in zip(box, sides, strict=True)] for box in given]
            truths += [torch.from_numpy(masks.decode(target.mask)) for target in found if target.mask]
        keys = [self._key(sample) for sample in samples]
        views = [None if self.cache is None or key is None else self.cache.read(key) for key in keys]
        todo = [row for row, view in enumerate(views) if view is None]
        batch = {"owner": owner, "boxes": torch.tensor(boxes).view(-1, 4), "masks": truths}
        batch |= {"views": views, "todo": todo, "keys": keys}
        return batch | {"inputs": self.viewer.inputs([samples[row] for row in todo])} if todo else batch

    def _key(self, sample: Sample) -> tuple[str, str] | None:
        if self.cache is None:
            return None
        format = self.viewer.format
        text = format.prompt(sample.expression) + "\n" + format.encode(sample) if self.viewer.token is not None else ""
        return row_key(picture(sample, self.viewer.frame), text)

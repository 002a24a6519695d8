"""Finds broken data before a model is loaded, and says what to do about images that break later.

    python -m segmentation.data.check data=jsonl data.root=mine data.file=train.jsonl    # every sample, every image

`check` stops a run that cannot succeed; training asks `Opened` for pictures and may skip those that cannot be read.
Evaluation skips none: it scores an answer to a broken image as invalid (evaluation/evaluate.py).
"""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from hydra.errors import HydraException

from segmentation import masks
from segmentation.boxes import iou_matrix
from segmentation.data.samples import Samples
from segmentation.sample import BrokenImage, Sample, Target, open_image

log = logging.getLogger(__name__)

SHOWN = 5  # problems spelt out in an error
APART = 0.5  # IoU below which a box is not that of its mask
OnError = Literal["raise", "skip"]


class BrokenData(ValueError):
    """Some samples cannot be used. The message gives their number and spells out the first few."""


def check(
    samples: Sequence[Sample],
    limit: int | None = None,
    on_error: OnError = "raise",
    opened: int = 32,
    seed: int = 0,
) -> None:
    """Looks a dataset over: ids differ, image files exist, masks are of their image's size and not empty.

    Every sample is made, but of the image files only `opened` are read in full, half of them the first and half drawn
    at random. Of a dataset that reads a file for each sample (`Samples.costly`) only these are made; one that makes its
    own pictures is taken on trust after `opened` of them. Of a mixture each part is looked over.

    Args:
        samples: the dataset.
        limit: look at no more than that many samples (of each part), from the first.
        on_error: with `skip`, images that are missing or cannot be read are logged, and only the rest is an error.
        opened: how many images to read in full.
        seed: for the drawing.

    Raises:
        BrokenData: there is no sample, or something is wrong with one.
    """
    parts = samples.parts if isinstance(samples, Samples) else (samples,)
    ids: set[str] = set()
    problems: list[str] = []
    unreadable: list[str] = []
    apart: list[str] = []
    total = 0
    for part in parts:
        count = len(part) if limit is None else min(limit, len(part))
        total += count
        first = min((opened + 1) // 2, count)
        read = {*range(first), *random.Random(seed).sample(range(count), min(opened - first, count))}
        trusted = opened if limit is None else count
        _look_over(part, count, read, trusted, ids, problems, unreadable if on_error == "skip" else problems, apart)
    if not total:
        raise BrokenData("the dataset has no samples; check data.split.")
    if apart:
        log.warning(
            "%d objects have a box that is not around their mask (IoU below %g), the first is of sample %s: "
            "is the box [x1, y1, x2, y2]?", len(apart), APART, apart[0],
        )  # fmt: skip
    if unreadable:
        log.warning("data.on_error=skip: %d samples without a readable image:\n%s", len(unreadable), _list(unreadable))
    if problems:
        raise BrokenData(f"{len(problems)} of {total} samples cannot be used:\n{_list(problems)}")


def _look_over(
    samples: Sequence[Sample],
    count: int,
    read: set[int],
    trusted: int,
    ids: set[str],
    problems: list[str],
    unreadable: list[str],
    apart: list[str],
) -> None:
    """Notes what is wrong with the first `count` samples, of which the images of `read` are read in full.

    After `trusted` samples, one whose picture is in no file ends it, unless only those of `read` are looked at anyway.
    """
    exists = cache(Path.is_file)
    costly = isinstance(samples, Samples) and samples.costly
    for index in sorted(read) if costly else range(count):
        try:
            sample = samples[index]
            _check_annotation(sample, ids)
            apart += [sample.id for target in sample.targets if _is_apart(target)]
            if isinstance(sample.image, Path) and not exists(sample.image):
                raise BrokenImage(f"{sample.image} (sample {sample.id}): no such file; check data.root.")
            if index in read:
                open_image(sample)
        except BrokenImage as error:
            unreadable.append(str(error))
        except ValueError as error:
            problems.append(str(error))
        else:
            if not costly and index + 1 >= trusted and not isinstance(sample.image, Path):
                break


def _check_annotation(sample: Sample, ids: set[str]) -> None:
    if sample.id in ids:
        raise ValueError(f"sample {sample.id}: another sample has the same id, and predictions are kept by it.")
    ids.add(sample.id)
    size = [sample.height, sample.width]
    for mask in (sample.ignore, *(target.mask for target in sample.targets)):
        if mask is not None and list(mask["size"]) != size:
            raise ValueError(f"sample {sample.id}: a mask is {mask['size']} high and wide, its image {size}.")
    if any(target.mask is not None and not masks.area(target.mask) for target in sample.targets):
        raise ValueError(
            f"sample {sample.id}: a target's mask has no pixel; where nothing is meant there is no target."
        )


def _is_apart(target: Target) -> bool:
    around = masks.box(target.mask) if target.mask else None
    return around is not None and float(iou_matrix([target.box], [around])[0, 0]) < APART


def _list(problems: Sequence[str]) -> str:
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "\n".join(f"- {line}" for line in [*problems[:SHOWN], *more])


class Opened(Samples):
    """The same samples with their pictures read: `Sample.image` is an RGB picture, so nothing downstream opens a file.

    Args:
        samples: the dataset.
        on_error: `raise` lets `BrokenImage` stop the run. `skip` gives the next sample that can be read instead, warns
            once a file, and notes which samples were replaced in `skipped`.

    Attributes:
        skipped: id of each sample that was replaced -> why; its number, where it could not be made without the image. A
            worker process keeps its own.
    """

    def __init__(self, samples: Sequence[Sample], on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"data.on_error={on_error!r}; it is 'raise' or 'skip'.")
        self.samples, self.on_error = samples, on_error
        self.skipped: dict[str, str] = {}
        self._warned: set[str] = set()

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, index: int) -> Sample:
        """The sample of that index with its picture read. Raises BrokenImage.

        With `skip` the next that can be read, and has a target if that one had: shares of no target stay as they are.
        """
        targeted: bool | None = None
        for step in range(len(self)):
            sample, row = None, (index + step) % len(self)
            try:
                sample = self.samples[row]
                if targeted is None:
                    targeted = bool(sample.targets)
                elif bool(sample.targets) != targeted:
                    continue
                return dataclasses.replace(sample, image=open_image(sample))
            except BrokenImage as error:
                if self.on_error == "raise":
                    raise
                # Some datasets need the image to make the sample at all (its size is nowhere else).
                name, file = (sample.id, str(sample.image)) if sample else (f"number {row}", str(error))
                self._skip(name, file, str(error))
        alike = "" if targeted is None else f" {'with' if targeted else 'without'} a target"
        raise BrokenImage(f"none of the {len(self)} samples{alike} has an image that can be read; check data.root.")

    def _skip(self, name: str, file: str, reason: str) -> None:
        self.skipped[name] = reason
        if file not in self._warned:
            self._warned.add(file)
            log.warning("skipped, data.on_error=skip: %s", reason)


def main(arguments: Sequence[str]) -> None:
    """The command: looks over a dataset of `configs/data` or `configs/benchmark`, and reads every image."""
    from segmentation.data.export import dataset, fail, help_text, own_choices

    usage = "python -m segmentation.data.check (data|benchmark)=NAME [data.KEY=VALUE ...]"
    if "--help" in arguments:
        print(help_text(__doc__, usage, ("data", "benchmark")))
        return
    overrides, beside = own_choices(arguments)
    groups = [one.partition("=")[::2] for one in overrides if one.partition("=")[0] in ("data", "benchmark")]
    if len(groups) != 1:
        fail(f"usage: {usage}")
    group, name = groups[0]
    try:
        samples, _ = dataset(group, name, [*(one for one in overrides if one != f"{group}={name}"), *beside])
        check(samples, opened=len(samples))
    except (ValueError, OSError, HydraException) as error:
        cause = error.__cause__ if isinstance(error, HydraException) and error.__cause__ else error
        fail(f"check: error: {cause}")
    targets = sum(bool(sample.targets) for sample in samples)
    print(f"{len(samples)} samples, {len(samples) - targets} of them without a target: whole.")


if __name__ == "__main__":
    from segmentation.data.export import run

    run(main)

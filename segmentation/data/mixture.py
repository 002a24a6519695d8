"""Several datasets as one: in given proportions, always in the same order, without images of any val or test split."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from segmentation.data.leaks import held_out as images_held_out
from segmentation.data.leaks import kept
from segmentation.data.samples import Samples
from segmentation.sample import Sample


class Mixture(Samples):
    """`length` samples of several datasets. Sample `i` is the same in every run and process, whatever was asked before.

    So the state of a run is the index it has come to, and processes share a mixture out by index (`samples.Shard`).
    Each part is gone through in a random order of its own, and again in another when it is used up; a sample that comes
    again has `#2`, `#3`, ... at the end of its id.

    Args:
        parts: the datasets by name.
        weights: the share of each part; a part left out has weight 1. None: as large as they are, so that every sample
            comes once.
        length: how many samples; None for the sum of the parts' lengths.
        seed: another seed, another order.
        leaks: `drop` the samples whose image some part keeps for val or test, or `keep` them.
        held_out: further datasets, by name, whose images are all dropped: the benchmarks to be evaluated on.

    Attributes:
        report: what was left out, a line for each part.

    Raises:
        ValueError: an unknown name or negative weight, or a part of which nothing is left.
    """

    # `parts` and `held_out` are Mapping[str, Samples]; annotated so, a config's sections in them would not be built.
    def __init__(
        self,
        parts: Any,
        weights: Mapping[str, float] | None = None,
        length: int | None = None,
        seed: int = 0,
        leaks: Literal["drop", "keep"] = "drop",
        held_out: Any = None,
    ) -> None:
        if leaks not in ("drop", "keep"):
            raise ValueError(f"data.leaks={leaks!r}; it is 'drop' or 'keep'.")
        if not parts:
            raise ValueError("data.parts is empty; a mixture needs at least one dataset.")
        self._parts: dict[str, Samples] = dict(parts)
        images = images_held_out(self._parts.values(), (held_out or {}).values()) if leaks == "drop" else frozenset()
        indices = {name: kept(part, images) for name, part in self._parts.items()}
        self.report = self._leaks(indices, len(images), leaks)
        if os.environ.get("RANK", "0") == "0":
            print(self.report, flush=True)
        for name, left in indices.items():
            if not len(left):
                raise ValueError(
                    f"data.parts.{name}: no sample is left, every image is of a val or test split. "
                    f"Set data.parts.{name}.split=train, or data.leaks=keep."
                )
        sizes = [len(left) for left in indices.values()]
        length = sum(sizes) if length is None else length
        if length < 1:
            raise ValueError(f"data.length={length}: a mixture needs at least one sample.")
        counts = _shares(self._weights(weights, sizes), length)
        self._part = np.repeat(np.arange(len(counts), dtype=np.int16), counts)  # (length,)
        np.random.default_rng(seed).shuffle(self._part)
        self._index = np.empty(length, dtype=np.int64)  # of the sample in its part
        self._round = np.empty(length, dtype=np.int32)  # how often the part had been used up before
        for number, (left, count) in enumerate(zip(indices.values(), counts, strict=True)):
            mine = self._part == number
            self._index[mine] = _drawn(left, count, [seed, number])
            self._round[mine] = np.arange(count) // len(left)

    def _weights(self, weights: Mapping[str, float] | None, sizes: Sequence[int]) -> np.ndarray:
        if weights is None:
            return np.array(sizes, dtype=float)
        unknown = sorted(set(weights) - set(self._parts))
        if unknown:
            raise ValueError(f"data.weights.{unknown[0]}: there is no such part; they are {', '.join(self._parts)}.")
        values = np.array([weights.get(name, 1.0) for name in self._parts], dtype=float)
        if not (values >= 0).all() or not 0 < values.sum() < np.inf:
            raise ValueError(f"data.weights={dict(weights)}: weights are 0 or more, and one of them is more.")
        return values

    def _leaks(self, indices: Mapping[str, np.ndarray], images: int, leaks: str) -> str:
        if leaks == "keep":
            return "mixture: data.leaks=keep, images of val and test splits are trained on"
        lines = [f"mixture: {images} images are held out for val and test"]
        for name, part in self._parts.items():
            left = len(indices[name])
            lines.append(f"  {name}: {len(part) - left} of {len(part)} samples dropped, {left} left")
        return "\n".join(lines)

    def __len__(self) -> int:
        return len(self._part)

    @property
    def parts(self) -> Sequence[Samples]:
        """The datasets, each with all of its samples."""
        return tuple(self._parts.values())

    def source(self, index: int) -> tuple[str, int]:
        """Where a sample comes from: the part's name, and the index there."""
        return list(self._parts)[self._part[index]], int(self._index[index])

    def image_id(self, index: int) -> int | None:
        """COCO id of the image of an index."""
        name, row = self.source(index)
        return self._parts[name].image_id(row)

    def sample(self, index: int) -> Sample:
        """The sample of an index: that of a part, its id marked where it comes again."""
        name, row = self.source(index)
        sample = self._parts[name][row]
        again = int(self._round[index])
        return dataclasses.replace(sample, id=f"{sample.id}#{again + 1}") if again else sample


def _shares(weights: np.ndarray, length: int) -> list[int]:
    """`length` divided by weight: whole numbers, the largest remainders rounded up."""
    exact = weights / weights.sum() * length
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")[: length - counts.sum()]
    counts[largest] += 1
    return counts.tolist()


def _drawn(indices: np.ndarray, count: int, seed: Sequence[int]) -> np.ndarray:
    """`count` of the indices: one random order of them after another."""
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(indices) for _ in range(-(-count // len(indices)))]
    return np.concatenate([*rounds, indices[:0]])[:count]


def dataset_section(values: dict[str, Any]) -> dict[str, Any]:
    """A dataset's config section without what only its readers use: `on_error`, `no_target_ratio`, a mixture's `root`.

    `on_error` is the business of who opens the images, `no_target_ratio` of who trains; `root` is there for the
    sections of the parts to refer to.
    """
    mixed = {"parts", "held_out"} & set(values)
    kept_out = {"on_error", "no_target_ratio"} | ({"root"} if mixed else set())
    section = {key: value for key, value in values.items() if key not in kept_out}
    for key in mixed:
        section[key] = {name: dataset_section(part) for name, part in (section[key] or {}).items()}
    return section

"""The order in which training goes through a dataset: without end, the same in every process, kept in a few numbers.

With a ratio, samples with and without a target are two decks of cards, dealt in a fixed proportion: a share left to
chance differs from batch to batch, and with it what saying "nothing is meant" earns.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch

from segmentation.sample import BrokenImage, Sample

LOOKED_AT = 100_000  # samples in a row, none of the kind looked for, before a shuffled dataset is said to have none
UNKNOWN, NEITHER = -1, -2  # in place of a sample's kind
Kind = bool | None  # has no target; None where that makes no difference


class Order:
    """Indices of a dataset, each of its kind once before any comes again.

    A sample's kind is known when it is made, so datasets without end will do: they are made as far as they are dealt.

    Args:
        samples: the dataset; without a ratio a range will do, since only the length matters.
        seed: another seed, another order.
        no_target_ratio: of any `n` samples in a row, `n * ratio` have no target, rounded down or up; the scarcer kind
            comes again while the other still goes on. None: the dataset's own share, left to chance.
        shuffle: false goes through each kind in the order of the dataset.
        on_error: with `skip`, a sample that cannot be made without its image, and has none, is of neither kind.

    Raises:
        ValueError: the ratio is not within 0 and 1, or there are no samples of a kind it needs.
    """

    def __init__(
        self,
        samples: Sequence[Sample] | range,
        seed: int = 0,
        no_target_ratio: float | None = None,
        shuffle: bool = True,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        if no_target_ratio is not None and not 0 <= no_target_ratio <= 1:
            raise ValueError(f"data.no_target_ratio={no_target_ratio}: it is a share, 0 to 1; null for the data's own.")
        self.ratio = None if no_target_ratio is None else Fraction(str(no_target_ratio))
        self.dealt = 0
        known = np.full(len(samples) if self.ratio is not None else 0, UNKNOWN, dtype=np.int8)
        wanted: tuple[Kind, ...] = (None,) if self.ratio is None else (True, False)
        self._decks = {kind: _Deck(samples, seed, kind, shuffle, known, on_error) for kind in wanted}
        for kind, deck in self._decks.items():
            if kind is None or self.ratio != int(not kind):  # a ratio of 0 needs none without target, 1 none with
                deck.next()
                deck.seek(0, 0)

    def kinds(self, count: int) -> list[Kind]:
        """The kinds of the next `count` samples."""
        before, self.dealt = self.dealt, self.dealt + count
        if self.ratio is None:
            return [None] * count
        return [int((i + 1) * self.ratio) > int(i * self.ratio) for i in range(before, self.dealt)]

    def take(self, kinds: Sequence[Kind]) -> list[int]:
        """The next indices of these kinds."""
        return [self._decks[kind].next() for kind in kinds]

    def state(self) -> dict[str, Any]:
        """Where it has come to; of numbers and lists, for a checkpoint."""
        return {"dealt": self.dealt, "decks": [[deck.passes, deck.position] for deck in self._decks.values()]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there. Raises ValueError for a state of an order with a ratio where this one has none, or back."""
        if len(state["decks"]) != len(self._decks):
            raise ValueError("data.no_target_ratio was changed between null and a share; resume with the one before.")
        self.dealt = state["dealt"]
        for deck, (passes, position) in zip(self._decks.values(), state["decks"], strict=True):
            deck.seek(passes, position)


class _Deck:
    """The samples of one kind, each pass in a new order; for kind None, in that of `trl.GRPOTrainer` with this seed."""

    def __init__(
        self, samples: Sequence[Any], seed: int, kind: Kind, shuffle: bool, known: np.ndarray, on_error: str
    ) -> None:
        self.samples, self.seed, self.kind, self.shuffle, self.known = samples, seed, kind, shuffle, known
        self.on_error = on_error
        self.seek(0, 0)

    def seek(self, passes: int, position: int) -> None:
        """Back or forth to a place: `position` cards into the pass after `passes` whole ones."""
        self.passes, self.position = passes, position
        self._generator = torch.Generator().manual_seed(self.seed)
        for _ in range(passes):
            self._shuffled()
        self._indices = self._shuffled()

    def next(self) -> int:
        """The next index of the kind; in a new pass where this one has no more."""
        limit = 2 * len(self.samples)  # the only one may come first in one pass and last in the next
        for _ in range(min(limit, LOOKED_AT) if self.shuffle else limit):
            if self.position == len(self._indices):
                self.passes, self.position, self._indices = self.passes + 1, 0, self._shuffled()
            index = int(self._indices[self.position])
            self.position += 1
            if self.kind is None or self._kind_of(index) == self.kind:
                return index
        kind = "without" if self.kind else "with"
        raise ValueError(f"data.no_target_ratio: the data have no samples {kind} a target; set it to null.")

    def _shuffled(self) -> torch.Tensor:
        count = len(self.samples)
        return torch.randperm(count, generator=self._generator) if self.shuffle else torch.arange(count)

    def _kind_of(self, index: int) -> int:
        if self.known[index] == UNKNOWN:
            try:
                self.known[index] = not self.samples[index].targets
            except BrokenImage:
                if self.on_error == "raise":
                    raise
                self.known[index] = NEITHER
        return int(self.known[index])

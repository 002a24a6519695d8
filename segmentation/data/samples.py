"""What every dataset is: a sequence of samples, each made when it is asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from segmentation.sample import Sample


class Samples(Sequence[Sample]):
    """A dataset that makes the sample of an index; slices (a list) and negative indices follow from it.

    Attributes:
        held_out: the images (`shown`) that this dataset's own files keep for validation and test, whatever split of
            them this is: what a mixture must not train on (`segmentation.data.leaks`).
        costly: making a sample reads files, so that looking at every one would take minutes.
        in_words: its samples are questions with answers in words (`Question`): for warm starts alone.
    """

    held_out: frozenset[int] = frozenset()
    costly: bool = False
    in_words: bool = False

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """The sample of an index between 0 and the length."""

    def image_id(self, index: int) -> int | None:
        """COCO id of the image of an index, None if it is not COCO's. Where it is known, no sample is made."""
        return self.sample(index).image_id

    def shown(self, index: int) -> int | None:
        """What `held_out` knows the image of an index by: its COCO id, or a negative number of the dataset's own."""
        return self.image_id(index)

    @property
    def parts(self) -> Sequence[Samples]:
        """The datasets this one is mixed of, or this one."""
        return (self,)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self.sample(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.sample(index % len(self))


class Shard(Samples):
    """Every `shards`-th sample of a dataset, from the `number`-th on: what one of `shards` processes sees of it."""

    def __init__(self, samples: Sequence[Sample], number: int, shards: int) -> None:
        if not 0 <= number < shards:
            raise ValueError(f"shard {number} of {shards}: shards are numbered from 0 to {shards - 1}.")
        self.samples, self.number, self.shards = samples, number, shards

    def __len__(self) -> int:
        return len(range(self.number, len(self.samples), self.shards))

    def sample(self, index: int) -> Sample:
        """The sample of an index of the shard."""
        return self.samples[self.number + index * self.shards]

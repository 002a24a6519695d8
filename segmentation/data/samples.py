"""What every dataset is: a sequence of samples, each made when it is asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from segmentation.sample import Sample


class Samples(Sequence[Sample]):
    """A dataset that makes the sample of an index; slices (a list) and negative indices follow from it."""

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """The sample of an index between 0 and the length."""

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

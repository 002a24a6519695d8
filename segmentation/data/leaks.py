"""Which samples of training datasets show an image that some validation or test split keeps for itself.

RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO draw from the same COCO images and split them differently: the training split
of one has thousands of images of another's val and test.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from segmentation.data.samples import Samples


def held_out(parts: Iterable[Samples], benchmarks: Iterable[Samples] = ()) -> frozenset[int]:
    """All images (`Samples.shown`) that the parts' own files keep for val and test, and all of the benchmarks."""
    own = frozenset[int]().union(*(part.held_out for part in parts))
    named = (benchmark.shown(index) for benchmark in benchmarks for index in range(len(benchmark)))
    return own | {image for image in named if image is not None}


def kept(part: Samples, images: frozenset[int]) -> np.ndarray:
    """The indices of the samples that show none of these images, `int64 (N,)`."""
    indices = np.arange(len(part), dtype=np.int64)
    if not images:
        return indices
    return indices[[part.shown(index) not in images for index in range(len(part))]]

"""What an answer of more objects than are meant keeps of its score."""

from __future__ import annotations

from segmentation.sample import Found, Sample


def kept(found: Found, sample: Sample, surplus: float) -> float:
    """`(N / M) ** surplus` of an answer of M objects where N < M are annotated; 1 for one of no more than are.

    The option `surplus` of rewards. An honest answer of as many objects as are meant keeps its score; one that lists
    many, in the hope that one is right, does not. Where boxes are matched, this comes on top of max(M, N).

    Raises:
        ValueError: `surplus` is negative.
    """
    if surplus < 0:
        raise ValueError(f"surplus={surplus} would pay for objects too many; set it to 0 or more.")
    return min(1.0, len(sample.targets) / len(found.instances)) ** surplus

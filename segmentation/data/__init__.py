"""Datasets, one file each: official files in, a `Sequence[Sample]` out."""

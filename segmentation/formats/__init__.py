"""Text formats: how a prediction is written as text, and read back. One file a format; `Format` is their contract."""

from segmentation.formats.base import Format
from segmentation.formats.box import BoxFormat
from segmentation.formats.bricks import BrickFormat

__all__ = ["BoxFormat", "BrickFormat", "Format"]

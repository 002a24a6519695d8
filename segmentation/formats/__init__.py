"""Text formats: how a prediction is written as text for one model family, and read back. One file a format."""

from segmentation.formats.base import Format
from segmentation.formats.box import BoxFormat
from segmentation.formats.bricks import BrickFormat
from segmentation.formats.descriptors import DescriptorFormat
from segmentation.formats.reasoning import Reasoning
from segmentation.formats.seg_token import SegTokenFormat

__all__ = ["BoxFormat", "BrickFormat", "DescriptorFormat", "Format", "Reasoning", "SegTokenFormat"]

"""Mask decoders: from what a completion says to masks. One file a decoder; `Decoder` is what all of them can do."""

from typing import Protocol

from segmentation.decoders.bricks import BrickDecoder, decode_grid, encode_grid
from segmentation.decoders.columns import decode_columns
from segmentation.decoders.filled_box import FilledBox
from segmentation.sample import Prediction


class Decoder(Protocol):
    """Makes the masks that a format leaves out.

    `NoTarget`, `Invalid` and masks that are already there pass through unchanged: after `fill` every instance of a
    `Found` has a mask of the image's size.
    """

    def fill(self, prediction: Prediction, height: int, width: int) -> Prediction:
        """`prediction` with all masks made, in an image of `height` x `width` original pixels."""
        ...


__all__ = ["BrickDecoder", "Decoder", "FilledBox", "decode_columns", "decode_grid", "encode_grid"]

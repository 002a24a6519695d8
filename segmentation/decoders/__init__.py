"""Mask decoders: from what a completion says to masks. One file a decoder.

`Decoder` is what the untrained ones can do, `MaskDecoder` what the trained ones can, which see the policy's features.
`Sam2Refiner` redraws the masks of any of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from segmentation.decoders.bricks import BrickDecoder, decode_grid, encode_grid
from segmentation.decoders.columns import decode_columns
from segmentation.decoders.filled_box import FilledBox
from segmentation.sample import Prediction

if TYPE_CHECKING:
    from segmentation.decoders.box_guided import BoxGuidedDecoder
    from segmentation.decoders.dsff import DSFFDecoder
    from segmentation.decoders.load import load_decoder
    from segmentation.decoders.mask_decoder import MaskDecoder
    from segmentation.decoders.refiner import Sam2Refiner
    from segmentation.decoders.self1e import Self1EHead

_TRAINED = {
    "BoxGuidedDecoder": "box_guided",
    "DSFFDecoder": "dsff",
    "MaskDecoder": "mask_decoder",
    "Sam2Refiner": "refiner",
    "Self1EHead": "self1e",
    "load_decoder": "load",
}


class Decoder(Protocol):
    """Makes the masks that a format leaves out.

    `NoTarget`, `Invalid` and masks that are already there pass through unchanged: after `fill` every instance of a
    `Found` has a mask of the image's size.
    """

    def fill(self, prediction: Prediction, height: int, width: int) -> Prediction:
        """`prediction` with all masks made, in an image of `height` x `width` original pixels."""
        ...


def __getattr__(name: str) -> Any:
    """Trained decoders are imported when they are asked for: they need torch, which parsing and scoring do not."""
    if name in _TRAINED:
        return getattr(import_module(f"{__name__}.{_TRAINED[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Decoder",
    "BrickDecoder",
    "FilledBox",
    "MaskDecoder",
    "DSFFDecoder",
    "BoxGuidedDecoder",
    "Self1EHead",
    "Sam2Refiner",
    "decode_columns",
    "decode_grid",
    "encode_grid",
    "load_decoder",
]

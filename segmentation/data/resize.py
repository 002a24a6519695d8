"""Resizes an image once, before anything else sees it, to a size the model's processor leaves as it is.

Then the trainer, the engine that generates, and the frame in which a model writes coordinates all have the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from segmentation.boxes import ResizedPixels


@dataclass(frozen=True, slots=True)
class Tiles:
    """The canvas of square tiles on which InternVL's processor puts an image: the arrangement nearest to its shape.

    An image of that size is cut without being resized again: the same arrangement fits it exactly, and one of twice as
    many rows and columns has more than twice its area, which the processor does not take.

    Args:
        side: pixels of a tile's side, 448 for the released models.
        fewest, most: tiles of an image, without the thumbnail that the processor adds to several.
    """

    side: int = 448
    fewest: int = 1
    most: int = 12

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the canvas for an image of that size."""
        # Imported when first used: it brings torch, which reading data does without.
        from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

        columns, rows = get_optimal_tiled_canvas((height, width), (self.side, self.side), self.fewest, self.most)
        return rows * self.side, columns * self.side


Frame = ResizedPixels | Tiles


def fit(image: Image.Image, frame: Frame) -> Image.Image:
    """The image at the size `frame` gives it, resampled as the models' processors do (bicubic); itself if it has it.

    Raises:
        ValueError: the image is more than 200 times longer than wide, or the limits of `frame` are so close to each
            other that the processor would resize what it gets again.
    """
    height, width = frame.size(image.height, image.width)
    if isinstance(frame, ResizedPixels) and frame.size(height, width) != (height, width):
        raise ValueError(
            f"min_pixels={frame.min_pixels} and max_pixels={frame.max_pixels} are too close: an image of "
            f"{image.width}x{image.height} becomes {width}x{height}, which the processor would resize again. "
            f"Set max_pixels to at least 4 * min_pixels."
        )
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)

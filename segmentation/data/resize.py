"""Resizes an image once, before anything else sees it, to a size the model's processor leaves as it is.

Then the trainer, the engine that generates, and the frame in which a model writes coordinates all have the same pixels.
"""

from __future__ import annotations

from PIL import Image

from segmentation.boxes import ResizedPixels


def fit(image: Image.Image, frame: ResizedPixels) -> Image.Image:
    """The image at the size `frame` gives it, resampled as Qwen's processors do (bicubic); itself if it has that size.

    Raises:
        ValueError: the image is more than 200 times longer than wide, or the limits of `frame` are so close to each
            other that the processor would resize what it gets again.
    """
    height, width = frame.size(image.height, image.width)
    if frame.size(height, width) != (height, width):
        raise ValueError(
            f"min_pixels={frame.min_pixels} and max_pixels={frame.max_pixels} are too close: an image of "
            f"{image.width}x{image.height} becomes {width}x{height}, which the processor would resize again. "
            f"Set max_pixels to at least 4 * min_pixels."
        )
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)

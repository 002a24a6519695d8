"""`decoder=filled_box`: each box stands for its mask. The floor that any mask decoder has to beat, and the cheapest."""

from __future__ import annotations

from dataclasses import replace

from segmentation.masks import from_box
from segmentation.sample import Found, Prediction


class FilledBox:
    """Fills each box: every pixel whose centre lies inside is foreground."""

    def fill(self, prediction: Prediction, height: int, width: int) -> Prediction:
        """`prediction` with the masks that are missing, in an image of `height` x `width` pixels.

        Raises:
            ValueError: an instance has no box, as with segmentation tokens: they need a trained decoder.
        """
        if not isinstance(prediction, Found):
            return prediction
        return Found(
            tuple(
                instance if instance.mask else replace(instance, mask=from_box(box, height, width))
                for instance, box in zip(prediction.instances, prediction.boxes, strict=True)
            )
        )

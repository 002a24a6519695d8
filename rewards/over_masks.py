"""What rewards of masks share: when they apply, and what objects too many cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rewards.surplus import kept
from segmentation.masks import RLE
from segmentation.sample import Found, Prediction, Sample


def over_masks(
    name: str,
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    masks: Sequence[RLE | None],
    score: Callable[[Sample, Found, RLE], float],
    surplus: float = 0.0,
) -> list[float | None]:
    """`score(sample, found, mask)` of each `Found`, 0 for `NoTarget` and `Invalid`.

    None where no answer could be scored: samples without target, and those annotated with boxes only.

    Args:
        name: of the reward, for messages.
        surplus: see `rewards.surplus`. The union of masks does not show how many were drawn, so without it a copy of an
            object, or a cloud of scraps around the right one, costs nothing.

    Raises:
        ValueError: `surplus` is negative, or a `Found` has no mask: the format needs a decoder, and none ran.
    """

    def one(prediction: Prediction, sample: Sample, mask: RLE | None) -> float | None:
        if not sample.targets or sample.mask is None:
            return None
        if not isinstance(prediction, Found):
            return 0.0
        if mask is None:
            raise ValueError(
                f"{name}: the answer to sample {sample.id} has boxes and no mask; "
                "configure a decoder or drop the reward."
            )
        return kept(prediction, sample, surplus) * score(sample, prediction, mask)

    return [one(*row) for row in zip(predictions, samples, masks, strict=True)]

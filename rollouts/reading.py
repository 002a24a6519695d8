"""From a completion to a prediction with masks: the same for training, evaluation and everything between."""

from __future__ import annotations

from segmentation.decoders import Decoder
from segmentation.formats import Format
from segmentation.sample import Invalid, Prediction, Sample


def read(text: str, truncated: bool, sample: Sample, format: Format, decoder: Decoder | None) -> Prediction:
    """What a completion says about its sample.

    One that was cut off before its end says nothing (`Invalid`), even where the format would read it: the policy had
    not finished. A format that keeps prefixes reads it.

    Args:
        text: the completion with its special tokens, without the token that ends it.
        truncated: whether that token is missing.
    """
    if truncated and format.on_broken == "invalid":
        return Invalid(f"cut off at character {len(text)}, before the end of the text")
    prediction = format.parse(text, sample.height, sample.width)
    return decoder.fill(prediction, sample.height, sample.width) if decoder else prediction

"""From a completion to a prediction with masks: the same for training, evaluation and everything between."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from segmentation.decoders import Decoder
from segmentation.formats import Format, Reasoning
from segmentation.formats.reasoning import Parts
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
        return _cut_off(text)
    prediction = format.parse(text, sample.height, sample.width)
    return decoder.fill(prediction, sample.height, sample.width) if decoder else prediction


def read_parts(text: str, truncated: bool, sample: Sample, format: Format) -> Parts | None:
    """The two halves of a completion, judged apart, for rewards of format; None if the format has no thoughts.

    One that was cut off has neither, as it has no prediction (`read`, whose arguments these are).
    """
    if not isinstance(format, Reasoning):
        return None
    if truncated and format.on_broken == "invalid":
        return Parts(_cut_off(text), _cut_off(text))
    return format.parts(text, sample.height, sample.width)


def answer_ids(ids: Tensor, format: Format, tokenizer: Any) -> Tensor:
    """Completions `(B, T)` with -1 in place of the tokens before their answers: with thoughts, those up to `<answer>`.

    What thoughts say in a format's tokens is no mask and no object. A completion without `<answer>` is all thought.
    Padding stands on the right, and may be -1.
    """
    if not isinstance(format, Reasoning):
        return ids
    answers = ids.clone()
    for row in answers:
        tokens = [token for token in row.tolist() if token >= 0]
        row[: bisect_left(range(len(tokens)), True, key=lambda n: _begun(tokens[:n], tokenizer))] = -1
    return answers


def _begun(tokens: Sequence[int], tokenizer: Any) -> bool:
    return "<answer>" in tokenizer.decode(tokens, skip_special_tokens=False)


def _cut_off(text: str) -> Invalid:
    return Invalid(f"cut off at character {len(text)}, before the end of the text")

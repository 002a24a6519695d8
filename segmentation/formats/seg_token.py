"""`format=seg_token`: a token for what is meant, whose hidden state a trained decoder turns into the mask.

    It is [SEG].                          one expression (LISA, arXiv 2308.00692)
    the dog: [SEG], a red car: [REJ].     several in one prompt (GSVA, arXiv 2312.10103; MLLMSeg, arXiv 2508.04107)

`[REJ]` says that nothing in the image is meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from segmentation.formats.base import BLANKS, OnBroken, Pieces, invalid, plain
from segmentation.sample import Found, Instance, NoTarget, Prediction, Sample, joined

TOKENS = ("[SEG]", "[REJ]")
_TOKEN = (" or ".join(TOKENS), r"\[(SEG|REJ)\]")
_ONE = Pieces(("It is", "It is"), ("a blank", " "), _TOKEN, (".", r"\."), ("the end", r"\Z"))


class SegTokenFormat:
    """One token an expression. All objects that it means are one region, as published.

    The box of a `Found` is not known before its decoder has made the mask: `Instance.box` is None. The token of the
    k-th expression is the k-th of `TOKENS` in the completion.

    White space may stand around the sentence. Anything else makes it Invalid. There is no prefix to keep of one token,
    so `on_broken` matters only to `parse_many`.

    Args:
        on_broken: `invalid`, or `prefix` to keep the answers before the break (`parse_many`).
    """

    new_tokens = TOKENS
    seg_token = TOKENS[0]
    mask_tags: tuple[str, str] | None = None

    def __init__(self, on_broken: OnBroken = "invalid") -> None:
        self.on_broken: OnBroken = on_broken

    def prompt(self, expression: str) -> str:
        """The text of the user's turn."""
        return f'Segment "{_name(expression)}" in the image.'

    def encode(self, sample: Sample) -> str:
        """The target completion."""
        return f"It is {_token(sample)}."

    def parse(self, text: str, height: int, width: int) -> Prediction:
        """What a completion says; the mask is a decoder's."""
        start = len(text) - len(text.lstrip(BLANKS))
        said = _ONE.match(text.rstrip(BLANKS), start)
        return _prediction(said[1]) if said else _ONE.missing(text.rstrip(BLANKS), start)

    def regions(self, sample: Sample) -> Sample:
        """The sample with all targets as one."""
        return joined(sample, [None] * len(sample.targets))

    def regex(self, max_instances: int) -> str:
        """The two sentences."""
        return r"It is \[(?:SEG|REJ)\]\."

    def prompt_many(self, expressions: Sequence[str]) -> str:
        """The text of the user's turn that asks for several expressions of one image at once."""
        return f"Segment each of these in the image: {'; '.join(map(_name, expressions))}."

    def encode_many(self, samples: Sequence[Sample]) -> str:
        """The target completion for samples that share an image."""
        return ", ".join(f"{_name(sample.expression)}: {_token(sample)}" for sample in samples) + "."

    def parse_many(self, text: str, expressions: Sequence[str]) -> list[Prediction]:
        """What a completion says about each expression, in their order.

        Every expression must be answered once, in order, under its own name. A break makes all Invalid, or, with
        `on_broken="prefix"`, those from the break on.
        """
        body = text.rstrip(BLANKS)
        at = len(body) - len(body.lstrip(BLANKS))
        answers: list[Prediction] = []
        for number, expression in enumerate(expressions):
            end = r"\.\Z" if number == len(expressions) - 1 else ", "
            piece = re.compile(rf"{re.escape(_name(expression))}: {_TOKEN[1]}{end}")
            said = piece.match(body, at)
            if said is None:
                broken = invalid(at, f"expected `{_name(expression)}: [SEG]` or [REJ], found {body[at : at + 16]!r}")
                kept = answers if self.on_broken == "prefix" else []
                return [*kept, *[broken] * (len(expressions) - len(kept))]
            answers.append(_prediction(said[1]))
            at = said.end()
        return answers


def _name(expression: str) -> str:
    """An expression without what could be read as a token."""
    return " ".join(re.sub(r"[\[\]]", " ", plain(expression)).split())


def _token(sample: Sample) -> str:
    return "[SEG]" if sample.targets else "[REJ]"


def _prediction(token: str) -> Prediction:
    return Found((Instance(None),)) if token == "SEG" else NoTarget()

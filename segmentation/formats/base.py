"""What the formats share: their contract, the reading of boxes, and reasons that name the place and the rule broken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, Protocol

from segmentation.boxes import Box, Convention, Relative, ResizedPixels, from_frame
from segmentation.sample import Found, Instance, Invalid, Prediction, Sample, Target

OnBroken = Literal["invalid", "prefix"]

BLANKS = " \t\r\n"  # JSON's white space
SPACE = f"[{BLANKS}]*+"
INTEGER = r"(-?(?:0|[1-9][0-9]{0,5})(?![0-9.eE]))"  # one group
LABEL = r'([^<>"\\\x00-\x1f]*+)'  # one group: free text that can close neither a tag nor a JSON string


class Format(Protocol):
    """How a prediction is written as text, and read back.

    `encode` and `parse` are inverse up to the rounding of coordinates and masks. `parse` is total: whatever the text,
    it returns one of the three states, in time linear in the text's length, and raises nothing. The states are never
    mixed: `NoTarget` is the format's own wording for "nothing is meant" and no other text; a text that is not a
    sentence of the format is `Invalid`, with the place and the rule broken; `Found` holds every object of a text that
    is valid to its last character.

    `on_broken` is the one exception. A format made with `on_broken="prefix"` keeps what stood before the break, if that
    is at least one whole object, as a lenient reader would. It is for looking at what a stricter reading costs: paid in
    training, it would teach to stop half-way.
    """

    @property
    def on_broken(self) -> OnBroken:
        """What a text that breaks half-way is: `invalid`, or its `prefix`."""
        ...

    @property
    def new_tokens(self) -> tuple[str, ...]:
        """Tokens to add to the vocabulary, in a fixed order; () if none."""
        ...

    @property
    def mask_tags(self) -> tuple[str, str] | None:
        """The tokens around a mask that is written after its box, None for formats without (`rl.credit`)."""
        ...

    @property
    def seg_token(self) -> str | None:
        """The token of `new_tokens` whose hidden state stands for a mask, None if a decoder gets none."""
        ...

    def prompt(self, expression: str) -> str:
        """The text of the user's turn."""
        ...

    def encode(self, sample: Sample) -> str:
        """The target completion."""
        ...

    def parse(self, text: str, height: int, width: int) -> Prediction:
        """What a completion says about an image of `height` x `width` original pixels."""
        ...

    def regions(self, sample: Sample) -> Sample:
        """The sample as a right text names it, for rewards: what is one region there is one target."""
        ...

    def regex(self, max_instances: int) -> str:
        """The language of `encode`, as near as a regular expression gets: no lookaround, no backreferences."""
        ...


class Pieces:
    """A fixed sequence of pieces `(what it is called, its regex)`, with `gap` allowed before each.

    One compiled regex reads the sequence; only when it fails are the pieces walked, to name the first one missing.
    """

    def __init__(self, *pieces: tuple[str, str], gap: str = "") -> None:
        self.match = re.compile("".join(gap + piece for _, piece in pieces)).match
        self._gap = re.compile(gap)
        self._pieces = [(name, re.compile(piece)) for name, piece in pieces]

    def missing(self, text: str, at: int) -> Invalid:
        """Why there is no match at `at`."""
        for name, piece in self._pieces:
            gap = self._gap.match(text, at)
            at = gap.end() if gap else at
            found = piece.match(text, at)
            if found is None:
                return unexpected(name, text, at)
            at = found.end()
        raise ValueError("the pieces match: nothing is missing.")


def invalid(at: int, rule: str) -> Invalid:
    """A rule broken at a character of the text, counted from 0."""
    return Invalid(f"at character {at}: {rule}")


def unexpected(expected: str, text: str, at: int) -> Invalid:
    """Something else than `expected` stands at `at`."""
    return invalid(at, f"expected {expected}, found {repr(text[at : at + 16]) if at < len(text) else 'the end'}")


def salvaged(instances: Sequence[Instance], broken: Invalid, on_broken: OnBroken) -> Prediction:
    """What is left of a text that broke after some objects: nothing, or those."""
    return Found(tuple(instances)) if on_broken == "prefix" and instances else broken


def one_of(name: str, value: str, known: Sequence[str]) -> str:
    """The value of the option `format.name`.

    Raises:
        ValueError: it is none of the known ones.
    """
    if value not in known:
        raise ValueError(f"format.{name}={value!r} is not one of {', '.join(known)}.")
    return value


def read_box(numbers: Sequence[str], at: int, height: int, width: int, convention: Convention) -> Box | Invalid:
    """The box of four integers written in the model's frame, in original pixels and clamped to the image.

    Invalid if it is inside out, has no area, or lies wholly outside the image.
    """
    written = tuple(map(int, numbers))
    x1, y1, x2, y2 = written
    if x1 >= x2 or y1 >= y2:
        return invalid(at, f"box {written} is inside out or has no area: x1 < x2 and y1 < y2 must hold")
    box = from_frame(written, height, width, convention)
    if box[0] >= box[2] or box[1] >= box[3]:
        frame_height, frame_width = convention.size(height, width)
        return invalid(at, f"box {written} lies outside the frame, {frame_width} wide and {frame_height} high")
    return box


def read_point(numbers: Sequence[str], height: int, width: int, convention: Convention) -> tuple[float, float]:
    """The middle of the unit of the model's frame that two integers name, in original pixels, clamped to the image."""
    x, y = map(int, numbers)
    x1, y1, x2, y2 = from_frame((x, y, x + 1, y + 1), height, width, convention)
    return (x1 + x2) / 2, (y1 + y2) / 2


def named_convention(convention: Convention | str) -> Convention:
    """A convention as it is, or by its name: relative1000, resized_pixels (Qwen2.5-VL's own limits)."""
    if not isinstance(convention, str):
        return convention
    names = {"relative1000": Relative(1000), "resized_pixels": ResizedPixels()}
    if convention not in names:
        raise ValueError(f"format.convention={convention!r} is not a convention; there are {', '.join(names)}.")
    return names[convention]


def plain(expression: str) -> str:
    """An expression without what could be read as a tag, a special token or the end of a string: `<`, `>`, `"`, `\\`.

    Runs of white space and control characters become one space.
    """
    return re.sub(r'[<>"\\\x00-\x1f\s]+', " ", expression).strip()


def left_to_right(targets: Sequence[Target]) -> list[Target]:
    """Targets by left edge, then top: one order, so that there is one right answer to learn."""
    return sorted(targets, key=lambda target: target.box)


def up_to(last: int, least: Literal[0, 1] = 0) -> str:
    """Regex of the integers from `least` to `last`, without leading zeros."""
    digits = str(last)
    fewer = ["[1-9]" + "[0-9]" * more for more in range(len(digits) - 1)]  # digits than `last`
    choices = [*["0"][least:], *fewer]
    for place, digit in enumerate(digits):  # as many, smaller from `place` on
        low = 0 if place else 1
        if int(digit) > low:
            choices.append(f"{digits[:place]}[{low}-{int(digit) - 1}]" + "[0-9]" * (len(digits) - place - 1))
    return "(?:" + "|".join([*choices, digits]) + ")"

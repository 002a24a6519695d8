"""`format=box`: the grounding JSON that Qwen2.5-VL, Qwen3-VL and InternVL are pre-trained on.

    [{"bbox_2d": [112, 40, 305, 221]}, {"bbox_2d": [330, 52, 498, 240], "label": "the left dog"}]

`[]` says that nothing in the image is meant. Sources: the Qwen2.5-VL report (arXiv 2502.13923, 2.1.2) and the grounding
cookbooks of QwenLM/Qwen3-VL.
"""

from __future__ import annotations

import json

from segmentation.boxes import Convention, Relative, to_frame
from segmentation.formats.base import (
    INTEGER,
    LABEL,
    SPACE,
    Pieces,
    invalid,
    left_to_right,
    named_convention,
    plain,
    read_box,
    up_to,
)
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample

_INTEGER = ("an integer of at most 6 digits", INTEGER)
_COMMA = ("a comma", ",")
_OPENING = Pieces(("", "(```json)?"), ("[", r"\["), ("", SPACE), gap=SPACE)
_CLOSING = Pieces(("a comma or ]", r"\]"), ("the end", r"\Z"), gap=SPACE)
_FENCED_CLOSING = Pieces(("a comma or ]", r"\]"), ("```", "```"), ("the end", r"\Z"), gap=SPACE)
_OBJECT = Pieces(
    *[("{", r"\{"), ('"bbox_2d"', '"bbox_2d"'), (":", ":"), ("[", r"\[")],
    *[_INTEGER, _COMMA, _INTEGER, _COMMA, _INTEGER, _COMMA, _INTEGER],
    ("]", r"\]"),
    ("", rf'(?:,{SPACE}"label"{SPACE}:{SPACE}"{LABEL}")?'),
    ('} or , "label": "..."', r"\}"),
    ("", SPACE),
    gap=SPACE,
)


class BoxFormat:
    """Boxes as JSON; a decoder makes their masks.

    What is read is what these models write, and no more: white space as in JSON, an optional ```` ```json ```` fence
    around the whole, in each object `bbox_2d` and after it an optional `label`, free of `"`, `\\`, `<`, `>` and control
    characters, so that nothing needs escaping. Any other key, a number that is not an integer of at most six ASCII
    digits, a box inside out or without area, or one wholly outside the frame makes the text Invalid. A box partly
    outside is clamped.

    Args:
        convention: the model's frame (`segmentation.boxes`), or its name: relative1000 for Qwen3-VL and InternVL,
            resized_pixels for Qwen2.5-VL with its processor's own limits.
        label: write the expression as each object's label, as the models were pre-trained to. Off, completions are
            shorter. Reading takes both.
        max_instances: a text with more objects is Invalid: what a reader spends on one completion is bounded.
    """

    new_tokens: tuple[str, ...] = ()

    def __init__(
        self, convention: Convention | str = "relative1000", label: bool = False, max_instances: int = 64
    ) -> None:
        self.convention = named_convention(convention)
        self.label = label
        self.max_instances = max_instances

    def prompt(self, expression: str) -> str:
        """The text of the user's turn."""
        return f'Locate "{plain(expression)}" in the image, report bbox in JSON format.'

    def encode(self, sample: Sample) -> str:
        """The target completion: the boxes of the targets from left to right."""
        label = {"label": plain(sample.expression)} if self.label else {}
        boxes = [
            to_frame(target.box, sample.height, sample.width, self.convention)
            for target in left_to_right(sample.targets)
        ]
        return json.dumps([{"bbox_2d": list(box), **label} for box in boxes], ensure_ascii=False)

    def parse(self, text: str, height: int, width: int) -> Prediction:
        """What a completion says about an image of `height` x `width` original pixels; no instance has a mask yet."""
        opening = _OPENING.match(text)
        if opening is None:
            return _OPENING.missing(text, 0)
        at = opening.end()
        instances: list[Instance] = []
        more = not text.startswith("]", at)
        while more:
            if len(instances) == self.max_instances:
                return invalid(at, f"more than {self.max_instances} objects")
            item = _OBJECT.match(text, at)
            if item is None:
                return _OBJECT.missing(text, at)
            *numbers, label = item.groups()
            box = read_box(numbers, item.start(1), height, width, self.convention)
            if isinstance(box, Invalid):
                return box
            instances.append(Instance(box, label=label))
            at = item.end()
            more = text.startswith(",", at)
            at += more
        closing = _FENCED_CLOSING if opening[1] else _CLOSING
        if closing.match(text, at) is None:
            return closing.missing(text, at)
        return Found(tuple(instances)) if instances else NoTarget()

    def regex(self, max_instances: int) -> str:
        """What `encode` can write, for structured decoding.

        That x1 < x2 is beyond a regular expression of bearable size (y1 stands between them and both must be
        remembered), so a box may still be inside out, and so Invalid.
        """
        number = up_to(self.convention.units if isinstance(self.convention, Relative) else 9999)
        label = r', "label": "[^<>"\\\x00-\x1f]*"' if self.label else ""
        item = rf'\{{"bbox_2d": \[{number}(?:, {number}){{3}}\]{label}\}}'
        return rf"\[(?:{item}(?:, {item}){{0,{max_instances - 1}}})?\]"

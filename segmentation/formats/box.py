"""`format=box`: the grounding JSON that Qwen2.5-VL, Qwen3-VL and InternVL are pre-trained on.

    [{"bbox_2d": [112, 40, 305, 221]}, {"bbox_2d": [330, 52, 498, 240], "label": "the left dog"}]

`[]` says that nothing in the image is meant. Sources: the Qwen2.5-VL report (arXiv 2502.13923, 2.1.2) and the grounding
cookbooks of QwenLM/Qwen3-VL; a point for each object as in Seg-Zero (arXiv 2503.06520) and VisionReasoner (2505.12081);
a mask token for each object as in Qwen3-VL-Seg.
"""

from __future__ import annotations

import json
from typing import get_args

from segmentation.boxes import Convention, Relative, to_frame
from segmentation.formats.base import (
    INTEGER,
    LABEL,
    SPACE,
    OnBroken,
    Pieces,
    invalid,
    left_to_right,
    named_convention,
    one_of,
    plain,
    read_box,
    read_point,
    salvaged,
    up_to,
)
from segmentation.masks import deepest
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample, Target

_INTEGER = ("an integer of at most 6 digits", INTEGER)
_COMMA = ("a comma", ",")
_OPENING = Pieces(("", "(```json)?"), ("[", r"\["), ("", SPACE), gap=SPACE)
_CLOSING = Pieces(("a comma or ]", r"\]"), ("the end", r"\Z"), gap=SPACE)
_FENCED_CLOSING = Pieces(("a comma or ]", r"\]"), ("```", "```"), ("the end", r"\Z"), gap=SPACE)
MASK_TOKENS = ("<mask_start>", "<mask_token>", "<mask_end>")
_MASK = "".join(MASK_TOKENS)


def _object(point: bool, mask_token: bool) -> Pieces:
    """One object: groups x1, y1, x2, y2, then x, y if there is a point, then the label or None."""
    pieces = [("{", r"\{"), ('"bbox_2d"', '"bbox_2d"'), (":", ":"), ("[", r"\[")]
    pieces += [_INTEGER, _COMMA, _INTEGER, _COMMA, _INTEGER, _COMMA, _INTEGER, ("]", r"\]")]
    if point:
        pieces += [_COMMA, ('"point_2d"', '"point_2d"'), (":", ":"), ("[", r"\["), _INTEGER, _COMMA, _INTEGER]
        pieces.append(("]", r"\]"))
    pieces.append(("", rf'(?:,{SPACE}"label"{SPACE}:{SPACE}"{LABEL}")?'))
    if mask_token:
        pieces += [_COMMA, ('"mask"', '"mask"'), (":", ":"), (f'"{_MASK}"', f'"{_MASK}"')]
    pieces += [("}" if mask_token else '} or , "label": "..."', r"\}"), ("", SPACE)]
    return Pieces(*pieces, gap=SPACE)


class BoxFormat:
    """Boxes as JSON; a decoder makes their masks.

    What is read is what these models write, and no more: white space as in JSON, an optional ```` ```json ```` fence
    around the whole, in each object `bbox_2d` and after it an optional `label`, free of `"`, `\\`, `<`, `>` and control
    characters, so that nothing needs escaping. Any other key, a number that is not an integer of at most six ASCII
    digits, a box inside out or without area, or one wholly outside the frame makes the text Invalid. A box partly
    outside is clamped. With `point` or `mask_token` every object has one, and without none.

    Args:
        convention: the model's frame (`segmentation.boxes`), or its name: relative1000 for Qwen3-VL and InternVL,
            resized_pixels for Qwen2.5-VL with its processor's own limits.
        label: write the expression as each object's label, as the models were pre-trained to. Off, completions are
            shorter. Reading takes both.
        point: each object also has `point_2d`, the pixel of its mask that lies deepest inside.
        mask_token: each object also has `mask`, a token whose hidden state a trained decoder turns into the mask.
        on_broken: `invalid`, or `prefix` to keep the objects before the break (`segmentation.formats.base.Format`).
        max_instances: a text with more objects is Invalid: what a reader spends on one completion is bounded.
    """

    mask_tags: tuple[str, str] | None = None

    def __init__(
        self,
        convention: Convention | str = "relative1000",
        label: bool = False,
        point: bool = False,
        mask_token: bool = False,
        on_broken: OnBroken = "invalid",
        max_instances: int = 64,
    ) -> None:
        one_of("on_broken", on_broken, get_args(OnBroken))
        self.convention = named_convention(convention)
        self.label, self.point, self.mask_token = label, point, mask_token
        self.on_broken: OnBroken = on_broken
        self.max_instances = max_instances
        self.new_tokens = MASK_TOKENS if mask_token else ()
        self.seg_token = MASK_TOKENS[1] if mask_token else None
        self._object = _object(point, mask_token)

    def prompt(self, expression: str) -> str:
        """The text of the user's turn."""
        return f'Locate "{plain(expression)}" in the image, report bbox in JSON format.'

    def encode(self, sample: Sample) -> str:
        """The target completion: the boxes of the targets from left to right.

        Raises:
            ValueError: a point is asked for and a target has no mask, as in box-only data.
        """
        return json.dumps([self._write(target, sample) for target in left_to_right(sample.targets)], ensure_ascii=False)

    def _write(self, target: Target, sample: Sample) -> dict[str, list[int] | str]:
        height, width = sample.height, sample.width
        written: dict[str, list[int] | str] = {"bbox_2d": list(to_frame(target.box, height, width, self.convention))}
        if self.point:
            if target.mask is None:
                raise ValueError(f"sample {sample.id}: a point needs a mask and this target has none; unset point.")
            x, y = deepest(target.mask) or ((target.box[0] + target.box[2]) / 2, (target.box[1] + target.box[3]) / 2)
            written["point_2d"] = list(to_frame((x, y, x, y), height, width, self.convention)[:2])
        if self.label:
            written["label"] = plain(sample.expression)
        return {**written, "mask": _MASK} if self.mask_token else written

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
            instance = self._read(text, at, height, width)
            if isinstance(instance, Invalid):
                return salvaged(instances, instance, self.on_broken)
            at, found = instance
            instances.append(found)
            more = text.startswith(",", at)
            at += more
        closing = _FENCED_CLOSING if opening[1] else _CLOSING
        if closing.match(text, at) is None:
            return salvaged(instances, closing.missing(text, at), self.on_broken)
        return Found(tuple(instances)) if instances else NoTarget()

    def _read(self, text: str, at: int, height: int, width: int) -> tuple[int, Instance] | Invalid:
        """Where the object that begins at `at` ends, and what it says."""
        item = self._object.match(text, at)
        if item is None:
            return self._object.missing(text, at)
        *numbers, label = item.groups()
        box = read_box(numbers[:4], item.start(1), height, width, self.convention)
        if isinstance(box, Invalid):
            return box
        point = read_point(numbers[4:], height, width, self.convention) if self.point else None
        return item.end(), Instance(box, label=label, point=point)

    def regions(self, sample: Sample) -> Sample:
        """The sample: a text names each object."""
        return sample

    def regex(self, max_instances: int) -> str:
        """What `encode` can write, for structured decoding.

        That x1 < x2 is beyond a regular expression of bearable size (y1 stands between them and both must be
        remembered), so a box may still be inside out, and so Invalid.
        """
        number = up_to(self.convention.units if isinstance(self.convention, Relative) else 9999)
        point = rf', "point_2d": \[{number}, {number}\]' if self.point else ""
        label = r', "label": "[^<>"\\\x00-\x1f]*"' if self.label else ""
        mask = f', "mask": "{_MASK}"' if self.mask_token else ""
        item = rf'\{{"bbox_2d": \[{number}(?:, {number}){{3}}\]{point}{label}{mask}\}}'
        return rf"\[(?:{item}(?:, {item}){{0,{max_instances - 1}}})?\]"

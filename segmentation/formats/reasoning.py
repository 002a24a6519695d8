"""`format.reasoning=true`: thoughts before the answer, around any format (DeepSeek-R1, arXiv 2501.12948).

<think>One object matches "the red dog".</think><answer>[{"bbox_2d": [112, 40, 305, 221]}]</answer>
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from segmentation.formats.base import Format, OnBroken, Pieces, invalid, plain
from segmentation.sample import Found, Invalid, Prediction, Sample

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_PLACE = re.compile(r"^at character (\d+)")
_WHOLE = re.compile(r"\s*+<think>(.*?)</think>\s*+<answer>(.*?)</answer>\s*+", re.DOTALL)
_OUTLINE = Pieces(
    ("<think>", "<think>"),
    ("</think>", r"(?s:.*?)</think>"),
    ("<answer>", "<answer>"),
    ("</answer>", r"(?s:.*?)</answer>"),
    ("the end", r"\Z"),
    gap=r"\s*+",
)


@dataclass(frozen=True, slots=True)
class Parts:
    """The two halves of a completion, judged apart, so that a reward can pay them apart.

    `thought` is what stands in `<think>`, or why the outline is broken; `answer` is what the format makes of the text
    in `<answer>`, wherever that stands, Invalid if there is not exactly one.
    """

    thought: str | Invalid
    answer: Prediction


class Reasoning:
    """Another format, with thoughts before it.

    The outline is strict: the whole completion is `<think>…</think><answer>…</answer>`, each tag once and in this
    order, nothing around them but white space. A completion is valid if both its outline and its answer are.

    `encode` writes one true sentence as the thought, how many objects match: samples carry no reasoning. It teaches the
    outline; what is worth thinking is left to reinforcement.

    Args:
        format: the format of the answer.
        longest: characters that `regex` lets a thought have; `parse` takes any number.
    """

    def __init__(self, format: Format, longest: int = 1000) -> None:
        self.format, self.longest = format, longest
        self.new_tokens, self.seg_token = format.new_tokens, format.seg_token
        self.on_broken: OnBroken = format.on_broken
        self.mask_tags = format.mask_tags

    def prompt(self, expression: str) -> str:
        """The text of the user's turn."""
        outline = "Think first, between <think> and </think>, then answer between <answer> and </answer>."
        return f"{self.format.prompt(expression)} {outline}"

    def encode(self, sample: Sample) -> str:
        """The target completion."""
        count = len(sample.targets)
        match count:
            case 0:
                said = "Nothing in the image matches"
            case 1:
                said = "One object matches"
            case _:
                said = f"{count} objects match"
        thought = f'{said} "{plain(sample.expression)}".'
        return f"<think>{thought}</think><answer>{self.format.encode(sample)}</answer>"

    def parse(self, text: str, height: int, width: int) -> Prediction:
        """What a completion says about an image of `height` x `width` original pixels."""
        parts = self.parts(text, height, width)
        salvaged = self.on_broken == "prefix" and isinstance(parts.answer, Found)
        return parts.thought if isinstance(parts.thought, Invalid) and not salvaged else parts.answer

    def parts(self, text: str, height: int, width: int) -> Parts:
        """The outline and the answer, each judged by itself."""
        return Parts(self._thought(text), self._answer(text, height, width))

    def _thought(self, text: str) -> str | Invalid:
        for tag in _TAGS:
            if text.count(tag) > 1:
                return invalid(text.index(tag, text.index(tag) + 1), f"a second {tag}")
        whole = _WHOLE.fullmatch(text)
        return whole[1] if whole else _OUTLINE.missing(text, 0)

    def _answer(self, text: str, height: int, width: int) -> Prediction:
        opening, closing = text.count("<answer>"), text.count("</answer>")
        if opening == 1 and closing == 0 and self.on_broken == "prefix":
            closing, text = 1, text + "</answer>"
        if (opening, closing) != (1, 1) or text.index("</answer>") < text.index("<answer>"):
            return invalid(0, f"{opening} <answer> and {closing} </answer>: there must be one of each, in this order")
        at = text.index("<answer>") + len("<answer>")
        answer = self.format.parse(text[at : text.index("</answer>")], height, width)
        if not isinstance(answer, Invalid):
            return answer
        return Invalid(_PLACE.sub(lambda place: f"at character {int(place[1]) + at}", answer.reason))

    def regions(self, sample: Sample) -> Sample:
        """The sample as an answer names it."""
        return self.format.regions(sample)

    def regex(self, max_instances: int) -> str:
        """What `encode` can write, with any thought of at most `longest` characters, free of `<`."""
        return rf"<think>[^<]{{0,{self.longest}}}</think><answer>{self.format.regex(max_instances)}</answer>"

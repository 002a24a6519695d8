"""Texts that break a rule, with `^` where: what the tests of formats say of them."""

from __future__ import annotations

from segmentation.formats import Format
from segmentation.sample import Invalid


def assert_broken(form: Format, marked: str, rule: str, height: int, width: int) -> None:
    """The text without its mark is Invalid, and the reason names the marked place and the rule."""
    place, text = marked.index("^"), marked.replace("^", "")
    prediction = form.parse(text, height, width)
    assert isinstance(prediction, Invalid), prediction
    assert prediction.reason.startswith(f"at character {place}: {rule}"), prediction.reason

"""A card of the gallery as HTML: the expression, the ground truth, and beside it what each evaluation answered.

Expressions, texts and reasons are data, whoever wrote them: each goes through `words` before it is put into the page.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from evaluation.gallery import Answer, Card, score
from segmentation.boxes import Box
from segmentation.masks import RLE
from segmentation.panels import PREDICTED, TRUTH, tinted
from segmentation.sample import BrokenImage, Found, Invalid, Sample, open_image

QUALITY = 80  # of WebP
LONGEST = 2_000  # characters of a raw text that are shown
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff\ufeff]"
)


def words(text: str) -> str:
    """Text as it may stand in HTML, in an attribute too; what cannot be seen or saved is written as its escape."""
    seen = UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return html.escape(seen, quote=True)


def card(shown: Card, names: Sequence[str], side: int) -> str:
    """The `<article>` of a card.

    Args:
        names: of the evaluations, by number.
        side: pixels of a picture's longer side.
    """
    sample = shown.sample
    try:
        picture = open_image(sample)
    except BrokenImage as error:
        picture = str(error)
    panels = [_truth(sample, picture, side), *(_answer(one, sample, picture, names, side) for one in shown.answers)]
    return f"""<article class="card">
<h3>{words(sample.expression)}</h3>
<p class="id">{words(sample.id)} <span>{sample.width}&times;{sample.height}</span></p>
<div class="panels">
{"".join(panels)}</div>
</article>
"""


def _truth(sample: Sample, picture: Image.Image | str, side: int) -> str:
    count = len(sample.targets)
    meant = f"{count} object{'s' * (count > 1)}" if count else "nothing is meant"
    boxes = [target.box for target in sample.targets]
    drawn = _picture(picture, sample.mask if count else None, boxes, TRUTH, side, f"ground truth: {meant}")
    return f'<figure class="truth">{drawn}<figcaption><b>ground truth</b> {meant}</figcaption></figure>\n'


def _answer(answer: Answer, sample: Sample, picture: Image.Image | str, names: Sequence[str], side: int) -> str:
    said, record, value = answer.record.prediction, answer.record, score(answer.row)
    name = names[answer.evaluation] if len(names) > 1 else "prediction"
    points = "no mask" if value is None else f"{'box ' if answer.row.iou is None else ''}IoU {value:.2f}"
    match said:
        case Found(instances):
            boxes = [instance.box for instance in instances if instance.box is not None]
            drawn = _picture(picture, record.mask, boxes, PREDICTED, side, f"{name}: {len(instances)} found")
            verdict = "false alarm" if not sample.targets else ""
        case Invalid(reason):
            drawn, verdict = _stamp("invalid", sample), f"<code>{words(reason)}</code>"
        case _:
            drawn, verdict = _stamp("no target", sample), "missed" if sample.targets else "right"
    value_in_page = "" if value is None else f"{value:.6f}"
    caption = " ".join(filter(None, (f"<b>{words(name)}</b>", points, verdict)))
    text = record.text[:LONGEST]
    cut = f" <i>{len(record.text) - LONGEST} more characters</i>" if len(record.text) > LONGEST else ""
    return (
        f'<figure class="answer {answer.row.state}" data-evaluation="{answer.evaluation}" '
        f'data-kinds="{" ".join(answer.kinds)}" data-score="{value_in_page}">{drawn}<figcaption>{caption}</figcaption>'
        f"<details><summary>text, {record.tokens} tokens</summary><pre>{words(text)}{cut}</pre></details></figure>\n"
    )


def _picture(
    picture: Image.Image | str, mask: RLE | None, boxes: Sequence[Box], colour: str, side: int, alt: str
) -> str:
    """The picture with a mask and boxes in a colour; its problem in words where it could not be opened."""
    if isinstance(picture, str):
        return f'<div class="stamp">{words(picture)}</div>'
    pixels = tinted(picture, mask, colour, side, dim=mask is not None)
    drawn = Image.fromarray((pixels * 255).round().astype(np.uint8))
    pen, scale = ImageDraw.Draw(drawn), side / max(picture.size)
    for box in boxes:
        x1, y1, x2, y2 = (round(min(max(edge * scale, -9), side + 9)) for edge in box)
        # Pillow's right and bottom are inside. A white rim keeps the line seen on any colour.
        pen.rectangle((x1 - 2, y1 - 2, max(x1, x2 + 1), max(y1, y2 + 1)), outline="white", width=3)
        pen.rectangle((x1 - 1, y1 - 1, max(x1, x2), max(y1, y2)), outline=colour, width=2)
    written = io.BytesIO()
    drawn.save(written, "WEBP", quality=QUALITY)
    data = base64.b64encode(written.getvalue()).decode()
    size = f'width="{drawn.width}" height="{drawn.height}"'
    return f'<img {size} alt="{words(alt)}" decoding="async" src="data:image/webp;base64,{data}">'


def _stamp(text: str, sample: Sample) -> str:
    """In place of a picture on which nothing would be painted."""
    return f'<div class="stamp" style="aspect-ratio:{sample.width}/{sample.height}">{text}</div>'

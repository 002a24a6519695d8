"""Pictures of answers: the expression, the ground truth, and what each checkpoint found, side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from segmentation.metrics import Evaluator
from segmentation.panels import (
    BAD,
    FAIR,
    GAP,
    GOOD,
    INK,
    LINE,
    MARGIN,
    MUTED,
    PANEL,
    PREDICTED,
    Page,
    Panel,
    annotated,
    draw,
)
from segmentation.sample import BrokenImage, Found, Invalid, Prediction, Sample, open_image, prediction_mask

HEADING, TITLE, BETWEEN = 0.28, 0.17, 0.4  # inches


def before_after(
    samples: Sequence[Sample],
    columns: Mapping[str, Sequence[Prediction]],
    path: Path,
    rows: int = 12,
) -> None:
    """Draw the first `rows` samples, each as its expression, the ground truth and one panel a column.

    More than four samples are laid out in two blocks. What is painted is tinted, the rest dimmed, boxes are outlined; a
    no-target and an invalid answer are stamped as such. A picture that cannot be opened is left white. The IoU printed
    is the metric's (protocol `lisa`).

    Args:
        columns: for each heading ("before", "after") one prediction a sample, with its masks made.
        path: the PNG to write; its folder is created.

    Raises:
        ValueError: no samples, or a column of another length.
    """
    if not samples:
        raise ValueError("no samples to draw.")
    for name, predictions in columns.items():
        if len(predictions) != len(samples):
            raise ValueError(f"column {name!r} has {len(predictions)} predictions for {len(samples)} samples.")
    samples = samples[:rows]
    blocks = 2 if len(samples) > 4 else 1
    lines = -(-len(samples) // blocks)
    block_width = (1 + len(columns)) * (PANEL + GAP) - GAP
    titles = [textwrap.wrap(s.expression, int(block_width * 13), max_lines=2, placeholder=" ...") for s in samples]
    shapes = [PANEL * min(s.height / s.width, 1) for s in samples]  # inches of height each picture needs
    title_heights = [TITLE * max(map(len, titles[line::lines])) + GAP for line in range(lines)]
    panels = [
        _panels(sample, {name: column[index] for name, column in columns.items()})
        for index, sample in enumerate(samples)
    ]
    words = [[_wrapped(panel.caption) for panel in row.values()] for row in panels]
    captions = [LINE[7.5] * max(len(one) for row in words[line::lines] for one in row) + 0.11 for line in range(lines)]
    heights = [title_heights[line] + max(shapes[line::lines]) + captions[line] for line in range(lines)]
    page = Page(
        width=2 * MARGIN + blocks * (block_width + BETWEEN) - BETWEEN,
        height=2 * MARGIN + HEADING + sum(heights),
    )
    for index, sample in enumerate(samples):
        block, line = divmod(index, lines)
        left, top = MARGIN + block * (block_width + BETWEEN), MARGIN + HEADING + sum(heights[:line])
        page.write(left, top, "\n".join(titles[index]), ha="left", size=9.5, color=INK, weight="bold")
        top += title_heights[line]
        try:
            picture = open_image(sample)
        except BrokenImage:
            picture = Image.new("RGB", (sample.width, sample.height), "white")
        for place, (name, panel) in enumerate(panels[index].items()):
            x = left + place * (PANEL + GAP)
            if line == 0:
                page.write(x + PANEL / 2, MARGIN, name, size=8.5, color=MUTED)
            draw(page.panel(x, top, PANEL, shapes[index]), picture, panel)
            caption = "\n".join(words[index][place])
            page.write(x + PANEL / 2, top + shapes[index] + 0.05, caption, size=7.5, color=panel.ink)
    page.save(path)


def _panels(sample: Sample, predictions: Mapping[str, Prediction]) -> dict[str, Panel]:
    """What stands in a row, by heading."""
    return {"ground truth": annotated(sample)} | {name: _answer(sample, one) for name, one in predictions.items()}


def _wrapped(caption: str) -> list[str]:
    """Lines of a caption: why an answer is invalid takes up to four."""
    return textwrap.wrap(caption, 29, max_lines=4, placeholder=" ...")


def _answer(sample: Sample, prediction: Prediction) -> Panel:
    mask = prediction_mask(prediction, sample.height, sample.width)
    row = Evaluator().add(sample, prediction, mask)
    iou = row.box_iou if row.iou is None else row.iou
    score = "no mask" if iou is None else f"{'box ' if row.iou is None else ''}IoU {iou:.2f}"
    ink = GOOD if (iou or 0) >= 0.5 else FAIR if iou else BAD
    match prediction:
        case Invalid(reason):
            return Panel(f"invalid: {reason}", BAD, PREDICTED, stamp="invalid")
        case Found(instances):
            caption = score if sample.targets else f"false alarm, {score}"
            boxes = tuple(instance.box for instance in instances if instance.box is not None)
            return Panel(caption, ink, PREDICTED, mask, boxes)
        case _:
            return Panel("correct" if not sample.targets else f"missed, {score}", ink, PREDICTED, stamp="no target")

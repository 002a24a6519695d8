"""Pictures of answers: the expression, the ground truth, and what each checkpoint found, side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from segmentation import masks
from segmentation.boxes import Box
from segmentation.masks import RLE
from segmentation.metrics import Evaluator
from segmentation.sample import Found, Invalid, Prediction, Sample, open_image, prediction_mask

TRUTH, PREDICTED = "#0ca678", "#e64980"
GOOD, FAIR, BAD, INK, MUTED = "#087f5b", "#a15c00", "#c92a2a", "#1f2328", "#6e7781"
PANEL, HEADING, TITLE, CAPTION, GAP, BETWEEN, MARGIN = 1.5, 0.28, 0.17, 0.38, 0.08, 0.4, 0.15  # inches
SIDE = 360  # pixels of a panel's longer side


@dataclass(frozen=True, slots=True)
class Panel:
    """What one picture shows: a mask and boxes, or a stamp where there is nothing to show; and the words under it."""

    caption: str
    ink: str
    colour: str
    mask: RLE | None = None
    boxes: tuple[Box, ...] = ()
    stamp: str = ""


def before_after(
    samples: Sequence[Sample],
    columns: Mapping[str, Sequence[Prediction]],
    path: Path,
    rows: int = 12,
) -> None:
    """Draw the first `rows` samples, each as its expression, the ground truth and one panel a column.

    More than four samples are laid out in two blocks. What is painted is tinted, the rest dimmed, boxes are outlined; a
    no-target and an invalid answer are stamped as such. The IoU printed is the metric's (protocol `lisa`).

    Args:
        columns: for each heading ("before", "after") one prediction a sample, with its masks made.
        path: the PNG to write; its folder is created.

    Raises:
        ValueError: no samples, or a column of another length.
        BrokenImage: see `segmentation.sample.open_image`.
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
    heights = [title_heights[line] + max(shapes[line::lines]) + CAPTION for line in range(lines)]
    page = Page(
        width=2 * MARGIN + blocks * (block_width + BETWEEN) - BETWEEN,
        height=2 * MARGIN + HEADING + sum(heights),
    )
    for index, sample in enumerate(samples):
        block, line = divmod(index, lines)
        left, top = MARGIN + block * (block_width + BETWEEN), MARGIN + HEADING + sum(heights[:line])
        page.write(left, top, "\n".join(titles[index]), ha="left", size=9.5, color=INK, weight="bold")
        top += title_heights[line]
        picture = open_image(sample)
        panels = {"ground truth": _truth(sample)}
        panels |= {name: _answer(sample, predictions[index]) for name, predictions in columns.items()}
        for place, (name, panel) in enumerate(panels.items()):
            x = left + place * (PANEL + GAP)
            if line == 0:
                page.write(x + PANEL / 2, MARGIN, name, size=8.5, color=MUTED)
            _draw(page.panel(x, top, PANEL, shapes[index]), picture, panel)
            caption = "\n".join(textwrap.wrap(panel.caption, 29, max_lines=2, placeholder=" ..."))
            page.write(x + PANEL / 2, top + shapes[index] + 0.05, caption, size=7.5, color=panel.ink)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.figure.savefig(path, dpi=160)


class Page:
    """A figure measured in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(self.figure)  # no display, no global state

    def write(self, x: float, y: float, text: str, ha: str = "center", **style) -> None:
        """Text that hangs from that point; dollar signs are dollar signs, half a surrogate pair a question mark."""
        text = text.encode("utf-8", "replace").decode()
        self.figure.text(x / self.width, 1 - y / self.height, text, ha=ha, va="top", parse_math=False, **style)

    def panel(self, x: float, y: float, width: float, height: float) -> Axes:
        """An axes with its top left corner there."""
        bottom = 1 - (y + height) / self.height
        return self.figure.add_axes((x / self.width, bottom, width / self.width, height / self.height))


def _truth(sample: Sample) -> Panel:
    if not sample.targets:
        return Panel("nothing is meant", MUTED, TRUTH, stamp="no target")
    meant = "1 object" if len(sample.targets) == 1 else f"{len(sample.targets)} objects"
    return Panel(meant, MUTED, TRUTH, sample.mask, tuple(target.box for target in sample.targets))


def _answer(sample: Sample, prediction: Prediction) -> Panel:
    mask = prediction_mask(prediction, sample.height, sample.width)
    row = Evaluator().add(sample, prediction, mask)
    iou = row.box_iou if row.iou is None else row.iou
    score = "no mask" if iou is None else f"{'box ' if row.iou is None else ''}IoU {iou:.2f}"
    ink = GOOD if (iou or 0) >= 0.5 else FAIR if iou else BAD
    match prediction:
        case Invalid(reason):
            return Panel(f"invalid: {reason}", BAD, PREDICTED, stamp="invalid")
        case Found():
            caption = score if sample.targets else f"false alarm, {score}"
            return Panel(caption, ink, PREDICTED, mask, prediction.boxes)
        case _:
            return Panel("correct" if not sample.targets else f"missed, {score}", ink, PREDICTED, stamp="no target")


def tinted(picture: Image.Image, mask: RLE | None, colour: str, side: int, dim: bool = True) -> np.ndarray:
    """The picture with what the mask covers tinted and outlined, `(h, w, 3)` float32 in 0..1.

    Args:
        side: pixels of the longer side of what is returned.
        dim: whether the picture is dimmed where there is no mask, or outside of it.
    """
    scale = side / max(picture.size)
    size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
    # Pixels of a small picture stay crisp squares, and its mask lies exactly on them.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    pixels = np.asarray(picture.resize(size, how), np.float32) / 255
    drawn = 0.7 * pixels + 0.08 if dim else pixels.copy()
    if mask is not None:
        inside = np.asarray(Image.fromarray(masks.decode(mask)).resize(size, Image.Resampling.NEAREST))
        tint = np.array(to_rgb(colour), np.float32)
        drawn[inside] = 0.62 * pixels[inside] + 0.38 * tint
        drawn[_outline(inside)] = tint
    return drawn.clip(0, 1)


def _draw(axes: Axes, picture: Image.Image, panel: Panel) -> None:
    scale = SIDE / max(picture.size)
    drawn = tinted(picture, panel.mask, panel.colour, SIDE, dim=panel.mask is not None or not panel.boxes)
    axes.imshow(drawn, interpolation="antialiased")
    axes.set_axis_off()
    for x1, y1, x2, y2 in panel.boxes:
        corner, width, height = (x1 * scale - 0.5, y1 * scale - 0.5), (x2 - x1) * scale, (y2 - y1) * scale
        for colour, line in (("white", 2.0), (panel.colour, 1.0)):  # a white rim keeps the line seen on any colour
            axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=line))
    if panel.stamp:
        plate = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": panel.ink, "linewidth": 1}
        axes.text(
            0.5,
            0.08,
            panel.stamp,
            transform=axes.transAxes,
            ha="center",
            va="bottom",
            size=8,
            color=panel.ink,
            weight="bold",
            bbox=plate,
        )


def _outline(inside: np.ndarray, width: int = 3) -> np.ndarray:
    """Pixels of the mask within `width` of its edge."""
    core = np.pad(inside, width)
    for axis in (0, 1):
        core = np.logical_and.reduce([np.roll(core, shift, axis) for shift in range(-width, width + 1)])
    return inside & ~core[width:-width, width:-width]

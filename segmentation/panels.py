"""Pictures with masks and boxes on them, and pages of such pictures with words around them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
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
from segmentation.sample import Found, Invalid, NoTarget, Prediction, Sample, prediction_mask

TRUTH, PREDICTED = "#0ca678", "#e64980"
GOOD, FAIR, BAD, INK, MUTED = "#087f5b", "#a15c00", "#c92a2a", "#1f2328", "#6e7781"
PANEL, GAP, MARGIN = 1.5, 0.08, 0.15  # inches
LINE = {9.5: 0.17, 8.5: 0.155, 7.5: 0.135}  # inches of a line of text of that size
LETTERS = {9.5: 12.5, 8.5: 13.5, 7.5: 16.5}  # letters that fit into an inch
SIDE = 360  # pixels of a panel's longer side
DPI = 160


@dataclass(frozen=True, slots=True)
class Panel:
    """What one picture shows: a mask and boxes, or a stamp where there is nothing to show; and the words under it."""

    caption: str
    ink: str
    colour: str
    mask: RLE | None = None
    boxes: tuple[Box, ...] = ()
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture on a page of its kind (`gallery`), with a heading above it and the panel's caption below."""

    heading: str
    picture: Image.Image
    panel: Panel


def gallery(title: str, tiles: Sequence[Tile], path: Path, columns: int = 4, width: float = 2.2) -> None:
    """Write a page of pictures, line by line.

    Args:
        title: above all of them; empty for none.
        path: the PNG to write; its folder is created, a file that is there is replaced.
        columns: pictures in a line.
        width: of a picture, in inches at 160 pixels each.

    Raises:
        ValueError: no tiles.
    """
    if not tiles:
        raise ValueError("no pictures to draw.")
    columns = min(columns, len(tiles))
    page_width = columns * (width + GAP) - GAP
    above = _wrapped(title, page_width, 9.5, most=4)
    lines = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
    headings = [[_wrapped(tile.heading, width, 8.5, most=4) for tile in line] for line in lines]
    captions = [[_wrapped(tile.panel.caption, width, 7.5, most=9) for tile in line] for line in lines]
    shapes = [[width * min(tile.picture.height / tile.picture.width, 1) for tile in line] for line in lines]
    tops = [LINE[8.5] * max(map(len, line)) + 0.04 for line in headings]
    bottoms = [0.05 + LINE[7.5] * max(map(len, line)) + 0.12 for line in captions]
    heights = [top + max(shape) + bottom for top, shape, bottom in zip(tops, shapes, bottoms, strict=True)]
    head = len(above) * LINE[9.5] + (0.08 if above else 0)
    page = Page(2 * MARGIN + page_width, 2 * MARGIN + head + sum(heights))
    page.write(MARGIN, MARGIN, "\n".join(above), ha="left", size=9.5, color=INK, weight="bold")
    for row, line in enumerate(lines):
        for column, tile in enumerate(line):
            x, y = MARGIN + column * (width + GAP), MARGIN + head + sum(heights[:row])
            page.write(x, y, "\n".join(headings[row][column]), ha="left", size=8.5, color=INK)
            y, shape = y + tops[row], shapes[row][column]
            axes = page.panel(x, y, width, shape)
            axes.set_anchor("NW")  # a picture higher than wide stands where its words begin
            draw(axes, tile.picture, tile.panel, max(SIDE, round(width * DPI)))
            caption = "\n".join(captions[row][column])
            page.write(x, y + shape + 0.05, caption, ha="left", size=7.5, color=tile.panel.ink)
    page.save(path)


class Page:
    """A figure measured in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(self.figure)  # no display, no global state

    def write(self, x: float, y: float, text: str, ha: str = "center", **style) -> None:
        """Text that hangs from that point; dollar signs are dollar signs, what cannot be printed a question mark."""
        text = "".join(one if one.isprintable() or one == "\n" else "?" for one in text)
        self.figure.text(x / self.width, 1 - y / self.height, text, ha=ha, va="top", parse_math=False, **style)

    def panel(self, x: float, y: float, width: float, height: float) -> Axes:
        """An axes with its top left corner there."""
        bottom = 1 - (y + height) / self.height
        return self.figure.add_axes((x / self.width, bottom, width / self.width, height / self.height))

    def save(self, path: Path) -> None:
        """Write it as PNG; the folder is created."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.figure.savefig(path, dpi=DPI)


def annotated(sample: Sample) -> Panel:
    """What is annotated."""
    if not sample.targets:
        return Panel("nothing is meant", MUTED, TRUTH, stamp="no target")
    meant = "1 object" if len(sample.targets) == 1 else f"{len(sample.targets)} objects"
    return Panel(meant, MUTED, TRUTH, sample.mask, tuple(target.box for target in sample.targets))


def answered(prediction: Prediction, height: int, width: int) -> Panel:
    """What was answered about a picture of that size, without a word on whether it is right."""
    match prediction:
        case Invalid(reason):
            return Panel(f"invalid: {reason}", BAD, PREDICTED, stamp="invalid")
        case NoTarget():
            return Panel("no target", MUTED, PREDICTED, stamp="no target")
        case Found(instances):
            found = "1 object" if len(instances) == 1 else f"{len(instances)} objects"
            boxes = tuple(instance.box for instance in instances if instance.box is not None)
            return Panel(found, INK, PREDICTED, prediction_mask(prediction, height, width), boxes)


def _wrapped(text: str, width: float, size: float, most: int) -> list[str]:
    """Lines of a text, each line of it wrapped to inches of width."""
    letters = int(width * LETTERS[size])
    lines = [
        part for line in text.splitlines() for part in textwrap.wrap(line, letters, break_on_hyphens=False) or [""]
    ]
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1][: letters - 4] + " ..."]


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


def draw(axes: Axes, picture: Image.Image, panel: Panel, side: int = SIDE) -> None:
    """Draw a panel: what is painted is tinted, the rest dimmed, boxes are outlined, the stamp is put on top.

    Args:
        picture: RGB, at the size that the panel's mask and boxes are of.
        side: pixels of the longer side at which it is drawn.
    """
    scale = side / max(picture.size)
    drawn = tinted(picture, panel.mask, panel.colour, side, dim=panel.mask is not None or not panel.boxes)
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

"""One scene in every text format: what is written, and the mask that comes back out of the text.

    python tests/bench/draw_formats.py outputs/formats.jpg

Formats are those of configs/format, as `format=` gives them. Boxes are filled where no decoder is asked.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from configs import instantiate, plain
from segmentation import masks
from segmentation.data.scenes import Scenes
from segmentation.decoders import FilledBox
from segmentation.formats import Format
from segmentation.panels import GAP, INK, LINE, MARGIN, MUTED, PREDICTED, Page, Panel, annotated, draw
from segmentation.sample import Found, Sample, prediction_mask
from tests.runs import ROOT

FORMATS = ("box", "bricks", "bricks_box", "descriptors", "seg_token", "mask_token")
SIDE, WIDTH, LETTERS, LINES = 1.35, 5.5, 86, 7  # inches of a picture and of a text; letters a line, lines
SIZE = 7.5
SCENE = 62  # of testA at 256 pixels


def main() -> None:
    """Draw, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    sample = Scenes("testA", SCENE + 1, size=256)[SCENE]
    assert isinstance(sample.image, Image.Image)
    page = Page(2 * MARGIN + SIDE + 2 * GAP + WIDTH, MARGIN + (1 + len(FORMATS)) * (SIDE + MARGIN))
    meant = annotated(sample)
    rows = [(f'"{sample.expression}": what is annotated', "", meant), *(row(name, sample) for name in FORMATS)]
    for number, (heading, text, panel) in enumerate(rows):
        y = MARGIN + number * (SIDE + MARGIN)
        draw(page.panel(MARGIN, y, SIDE, SIDE), sample.image, panel, sample.width)
        x = MARGIN + SIDE + 2 * GAP
        page.write(x, y, heading, ha="left", size=8.5, color=INK, weight="bold")
        lines = textwrap.wrap(text.replace("\n", "\\n"), LETTERS, break_on_hyphens=False)
        if len(lines) > LINES:
            lines = [*lines[: LINES - 1], f"… {len(text)} characters"]
        page.write(x, y + 0.2, "\n".join(lines), ha="left", size=SIZE, color=INK, family="monospace")
        page.write(x, y + SIDE - LINE[SIZE], panel.caption, ha="left", size=SIZE, color=MUTED)
    page.save(args.output)


def row(name: str, sample: Sample) -> tuple[str, str, Panel]:
    """Heading, text, and what is read out of it."""
    values = plain(cast(DictConfig, OmegaConf.load(ROOT / f"configs/format/{name}.yaml")))
    values.pop("reasoning")
    frame = {"convention": "relative1000"} if "convention" in values else {}
    form: Format = instantiate(values | frame, where=name)
    text = form.encode(sample)
    said = form.parse(text, sample.height, sample.width)
    assert isinstance(said, Found)
    boxes = tuple(one.box for one in said.instances if one.box)
    drawn = all(one.mask for one in said.instances)
    if form.seg_token:
        stamp = "" if boxes else "a decoder's"
        return f"format={name}", text, Panel("the mask is a trained decoder's", MUTED, PREDICTED, None, boxes, stamp)
    mask = prediction_mask(FilledBox().fill(said, sample.height, sample.width), sample.height, sample.width)
    assert mask and sample.mask
    iou = masks.iou_matrix([mask], [sample.mask])[0, 0]
    how = "the mask in the text" if drawn else "filled boxes"
    return f"format={name}", text, Panel(f"{how}: IoU {iou:.3f}", MUTED, PREDICTED, mask, boxes)


if __name__ == "__main__":
    main()

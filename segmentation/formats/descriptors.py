"""`format=descriptors`: what each cell of a grid over the image shows, in words (Text4Seg, arXiv 2410.09855).

    <seg>others *2| white dog *2
     others *4
    </seg>

`others` is background. Rows are run-length encoded one by one (`rle="row"`, the paper's R-RLE), all together
(`"image"`, I-RLE), or not at all (`"none"`).
"""

from __future__ import annotations

import re
import zlib
from itertools import groupby
from typing import Literal, get_args

import numpy as np

from segmentation import masks
from segmentation.boxes import Box
from segmentation.decoders.bricks import decode_grid, encode_grid
from segmentation.formats.base import BLANKS, OnBroken, invalid, one_of, plain, salvaged, unexpected, up_to
from segmentation.masks import RLE, Resize
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample, joined

RunLength = Literal["row", "image", "none"]
OTHERS = "others"
QUESTIONS = (
    'Segment "{}" in the image.',
    'Where is "{}"? Answer with a segmentation mask.',
    'Find "{}" in this picture and mark its cells.',
    'Which part of the image is "{}"? Give its mask.',
    'Mark every cell of the grid that shows "{}".',
    'Please give the segmentation mask of "{}".',
)
_LABEL = re.compile(r"[^|*<>\x00-\x1f]++")
_COUNT = re.compile(r"[1-9][0-9]{0,4}")


class DescriptorFormat:
    """A label for each cell; parsing makes the masks, one for each label.

    What the paper and its code leave open is decided so:

    - A grid of `others` alone says that nothing in the image is meant, as in the published gRefCOCO data.
    - A row is complete: the runs of each sum to `grid` (`rle="image"`: all together to its square). Anything else, and
      any text around the tags, makes the text Invalid, where the published reader pads, cuts, or returns an empty mask.
    - All targets are one region, as published, and so is all that is read as another label than `others`;
      `labels="target"` names each by its own label, for semantic segmentation: those of one label are one region, and
      where targets overlap the smaller is seen.
    - A label is written without `|`, `*`, `<`, `>`, `"`, `\\`; one that would read as background, as "the others".
    - Down to cells: the pixel under the centre. An object too small for that keeps every cell it touches.

    Args:
        grid: cells a side; 16, 24, 32 and 64 in the paper.
        rle: `row`, `image` or `none`.
        labels: what a cell is called: `phrase`, the expression; `target`, the target's label.
        resize: `bilinear` (> 0.5), or `nearest`, as published.
        varied: choose among several wordings of the question, by the expression; off, all are the first.
        on_broken: `invalid`, or `prefix` to keep the rows before the break (`segmentation.formats.base.Format`).
        max_instances: with `labels="target"`, a text with more labels is Invalid.
    """

    new_tokens = ("<seg>", "</seg>")
    seg_token: str | None = None
    mask_tags: tuple[str, str] | None = None

    def __init__(
        self,
        grid: int = 16,
        rle: RunLength = "row",
        labels: Literal["phrase", "target"] = "phrase",
        resize: Resize = "bilinear",
        varied: bool = True,
        on_broken: OnBroken = "invalid",
        max_instances: int = 64,
    ) -> None:
        if grid < 1:
            raise ValueError(f"format.grid={grid}: a grid has at least one cell.")
        one_of("rle", rle, get_args(RunLength))
        one_of("labels", labels, ("phrase", "target"))
        one_of("on_broken", on_broken, get_args(OnBroken))
        self.grid, self.rle, self.labels, self.varied = grid, rle, labels, varied
        self.resize: Resize = resize
        self.on_broken: OnBroken = on_broken
        self.max_instances = max_instances
        self._unit = "a label" if rle == "none" else "a run, as `label *3`"

    def prompt(self, expression: str) -> str:
        """The text of the user's turn; one expression always has the same wording."""
        chosen = zlib.crc32(expression.encode()) % len(QUESTIONS) if self.varied else 0
        return QUESTIONS[chosen].format(plain(expression))

    def encode(self, sample: Sample) -> str:
        """The target completion.

        Raises:
            ValueError: a target has no mask, as in box-only data, or no label though `labels="target"`.
        """
        names = [OTHERS]
        cells = np.zeros((self.grid, self.grid), dtype=np.intp)
        for label, mask in self._regions(sample):
            if label not in names:
                names.append(label)
            whole = (0.0, 0.0, float(sample.width), float(sample.height))
            cells[encode_grid(masks.decode(mask), whole, self.grid, self.grid)] = names.index(label)
        return f"<seg>{self.write([[names[cell] for cell in row] for row in cells.tolist()])}</seg>"

    def _regions(self, sample: Sample) -> list[tuple[str, RLE]]:
        """Labels and what they cover, in the order in which they are painted: the largest first."""
        if any(target.mask is None for target in sample.targets):
            raise ValueError(f"sample {sample.id}: descriptors need masks and a target has none; use format=box.")
        if self.labels == "phrase":
            return [(_label(sample.expression), sample.mask)] if sample.targets and sample.mask else []
        if any(target.label is None for target in sample.targets):
            raise ValueError(f"sample {sample.id}: a target has no label; use format.labels=phrase.")
        painted = [(_label(target.label or ""), target.mask) for target in sample.targets if target.mask]
        return sorted(painted, key=lambda region: -masks.area(region[1]))

    def write(self, cells: list[list[str]]) -> str:
        """The text of a grid of labels, `grid` rows of `grid`."""
        if self.rle == "image":
            return _runs([label for row in cells for label in row]) + "\n"
        return "\n ".join(_runs(row) if self.rle == "row" else "| ".join(row) for row in cells) + "\n"

    def parse(self, text: str, height: int, width: int) -> Prediction:
        """What a completion says about an image of `height` x `width` original pixels; every instance has its mask."""
        start = len(text) - len(text.lstrip(BLANKS))
        if not text.startswith("<seg>", start):
            return unexpected("<seg>", text, start)
        start += len("<seg>")
        closing = text.find("</seg>", start)
        end = len(text) if closing < 0 else closing
        rows, fault = self.read(text[start:end], start)
        if fault is None and not text.startswith("</seg>", end):
            fault = unexpected("</seg>", text, end)
        elif fault is None and text[end + len("</seg>") :].strip(BLANKS):
            fault = unexpected("the end", text, end + len("</seg>"))
        if fault is not None and self.on_broken == "invalid":
            return fault
        instances = self._paint(rows, height, width)
        if fault is not None:
            return salvaged(instances, fault, self.on_broken)
        if len(instances) > self.max_instances:
            return invalid(start, f"more than {self.max_instances} labels")
        return Found(tuple(instances)) if instances else NoTarget()

    def read(self, text: str, at: int = 0) -> tuple[list[list[str]], Invalid | None]:
        """The rows of labels up to the first rule broken, and that rule; `at` is where `text` starts in its whole."""
        whole = self.rle == "image"
        wanted, most = (1, self.grid**2) if whole else (self.grid, self.grid)
        rows: list[list[str]] = []
        at += len(text) - len(text.lstrip(BLANKS))
        lines = text.strip(BLANKS).split("\n", wanted)
        for number, line in enumerate(lines[:wanted]):
            row, fault = self._row(line, at, most)
            if fault is None and len(row) < most:
                fault = invalid(at + len(line), f"row {number} is {len(row)} cells wide, not {most}")
            if fault is not None:
                return rows, fault
            rows.append(row)
            at += len(line) + 1
        if whole:
            rows = [rows[0][i : i + self.grid] for i in range(0, most, self.grid)]
        if len(lines) != wanted:
            if len(lines) < wanted:
                return rows, invalid(at - 1, f"the grid has {len(lines)} of {wanted} rows")  # no new line was there
            return rows, invalid(at, f"the grid has more than {wanted} rows")
        return rows, None

    def _row(self, line: str, at: int, most: int) -> tuple[list[str], Invalid | None]:
        """The labels of a line's cells, `most` at most, and the rule it breaks."""
        cells: list[str] = []
        for part in line.split("|", most):
            label, count = part, "1"
            if self.rle != "none":
                label, _, count = part.rpartition("*")
            label, count = label.strip(BLANKS), count.strip(BLANKS)
            if not (_LABEL.fullmatch(label) and _COUNT.fullmatch(count)):
                return cells, invalid(at, f"expected {self._unit}, found {part[:16]!r}")
            if len(cells) + int(count) > most:
                return cells, invalid(at, f"a row is more than {most} cells wide")
            cells.extend([label] * int(count))
            at += len(part) + 1
        return cells, None

    def _paint(self, rows: list[list[str]], height: int, width: int) -> list[Instance]:
        """One instance for each label but `others`, or for all; rows that are missing are background."""
        number = {OTHERS: 0}
        cells = np.zeros((self.grid, self.grid), dtype=np.intp)
        for row, labels in enumerate(rows):
            cells[row] = [number.setdefault(label, len(number)) for label in labels]
        whole = (0.0, 0.0, float(width), float(height))
        instances = []
        apart = list(number.items())[1 : self.max_instances + 2]
        for label, index in apart[:1] if self.labels == "phrase" else apart:
            grid = cells > 0 if self.labels == "phrase" else cells == index
            mask = decode_grid(grid, whole, height, width, self.resize)
            box = masks.box(mask) or self._around(grid, height, width)
            instances.append(Instance(box, mask, label))
        return instances

    def _around(self, grid: np.ndarray, height: int, width: int) -> Box:
        """The box of a label's cells, which are smaller than a pixel."""
        y, x = np.nonzero(grid)
        across, down = width / self.grid, height / self.grid
        return x.min() * across, y.min() * down, (x.max() + 1) * across, (y.max() + 1) * down

    def regions(self, sample: Sample) -> Sample:
        """The sample with targets of one label as one."""
        phrase = self.labels == "phrase"
        return joined(sample, [None if phrase else _label(target.label or "") for target in sample.targets])

    def regex(self, max_instances: int) -> str:
        """What `encode` can write, for structured decoding; that a row sums to `grid` must be counted."""
        label = r"[^|*<>\"\\\x00-\x1f ](?:[^|*<>\"\\\x00-\x1f]{0,62}[^|*<>\"\\\x00-\x1f ])?"
        if self.rle == "none":
            row = rf"{label}(?:\| {label}){{{self.grid - 1}}}"
        else:
            most = self.grid**2 if self.rle == "image" else self.grid
            run = rf"{label} \*{up_to(most, 1)}"
            row = rf"{run}(?:\| {run}){{0,{most - 1}}}"
        more = "" if self.rle == "image" else rf"(?:\n {row}){{{self.grid - 1}}}"
        return f"<seg>{row}{more}\n</seg>"


def _runs(labels: list[str]) -> str:
    return "| ".join(f"{label} *{len(list(run))}" for label, run in groupby(labels))


def _label(said: str) -> str:
    """A label as it is written: without what separates cells; never that of the background."""
    label = " ".join(re.sub(r"[|*]", " ", plain(said)).split())
    return label if label not in ("", OTHERS) else f"the {label or 'object'}"

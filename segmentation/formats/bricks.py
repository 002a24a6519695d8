"""`format=bricks`: masks as text, in runs of foreground and background (Text4Seg++, arXiv 2509.06321, III-C).

    <ref>roi0</ref><box>[[12 5 15 7]]</box><seg><bg1><fg2><row><fg3></seg>

One such sentence an object, one after the other, from left to right. Inside the box each row of cells is written from
left to right in *bricks*, tokens that stand for a run: `<fg3>` is three cells of foreground, `<bg1>` one of background.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Literal

import numpy as np

from segmentation import masks
from segmentation.boxes import Convention, Relative, from_frame, to_frame
from segmentation.decoders.bricks import decode_grid, encode_grid
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
    unexpected,
    up_to,
)
from segmentation.masks import Resize
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample, Target

Label = Literal["roi", "phrase", "none"]
_REFS = {  # how an object is named: (what it is called, its regex)
    "roi": ("<ref>roi0</ref>", "<ref>roi[0-9]{1,3}</ref>"),
    "phrase": ("<ref>phrase</ref>", f"<ref>{LABEL}</ref>"),
    "none": ("", ""),
}
_INTEGER = ("an integer of at most 6 digits", INTEGER)
_BLANK = ("a blank", " ")
_NO_TARGET = Pieces(("<none>", "<none>"), ("the end", r"\Z"), gap=SPACE)
_TOKEN = re.compile(r"<([a-z]+[0-9]*)>")
_ROW = b"\2"  # the mark of <row> among the cells, which are 0 and 1


class BrickFormat:
    """Boxes and bricks; parsing makes the masks.

    Two scopes. `image` is the paper's: `grid` x `grid` cells lie over the whole image, coordinates count them, and the
    bricks tell the cells inside the box. `box` spends its cells where the object is: coordinates are in the model's own
    frame and `grid` x `grid` cells are stretched over the box, which is shorter and, on small objects, far better (mean
    IoU on coco128: 70 with 64 cells over the image, 96 with 24 over the box).

    What the paper leaves open is decided so:

    - The right and bottom edges of a box are exclusive, as everywhere here. Coordinates of scope `image` run from 0 to
      `grid`, a box is `x2 - x1` cells wide, and one outside the grid is Invalid, not clamped: its rows would not fit.
    - A run is 1 to `grid` cells long, so that a row as wide as the image is one brick (the paper's end at 63 of 64).
    - `<row>` stands between two rows, none after the last. Every row sums to exactly the width of the grid, and there
      are as many rows as it is high: a wrong brick spoils its own row and shifts no other.
    - Two bricks of a kind may follow each other; `encode` never writes it.
    - `<none>` alone says that nothing in the image is meant. An object without a foreground brick is Invalid: that
      nothing is there has one wording, not two.
    - White space may stand between objects and around them, not inside, but for one blank between coordinates.
    - A text that breaks any of this is Invalid as a whole, with the place and the rule; nothing of it is salvaged.
    - The box written is the one around the mask. A mask without a pixel is written as its filled box.
    - Down to cells, scope `image` takes the pixel under the cell's centre and scope `box` half of the cell's area; an
      object too small for either keeps every cell it touches. Up to pixels: `resize`.

    Args:
        grid: cells a side; 64 for scope `image`, 24 for scope `box` unless given.
        scope: `image` or `box`.
        convention: frame of the coordinates of scope `box` (`segmentation.boxes`), or its name; `image` has its own.
        label: what `<ref>` holds: `roi` a number, roi0, roi1, ...; `phrase` the expression; `none` leaves the tag out.
        resize: `bilinear` (> 0.5), or `nearest`, both down and up, as published.
        max_instances: a text with more objects is Invalid: what a reader spends on one completion is bounded.
    """

    def __init__(
        self,
        grid: int | None = None,
        scope: Literal["image", "box"] = "image",
        convention: Convention | str = "relative1000",
        label: Label = "roi",
        resize: Resize = "bilinear",
        max_instances: int = 64,
    ) -> None:
        if scope not in ("image", "box"):
            raise ValueError(f"format.scope={scope!r} is not a scope; there are image, box.")
        if label not in _REFS:
            raise ValueError(f"format.label={label!r} is not a label; there are {', '.join(_REFS)}.")
        if grid is not None and grid < 1:
            raise ValueError(f"format.grid={grid}: a grid has at least one cell.")
        self.grid = grid or (64 if scope == "image" else 24)
        self.scope, self.label, self.max_instances = scope, label, max_instances
        self.resize: Resize = resize
        self.convention = Relative(self.grid) if scope == "image" else named_convention(convention)
        runs = range(1, self.grid + 1)
        tags = ("<ref>", "</ref>", "<box>", "</box>", "<seg>", "</seg>", "<row>", "<none>")
        self.new_tokens = (*tags, *(f"<fg{n}>" for n in runs), *(f"<bg{n}>" for n in runs))
        self._cells = {"row": _ROW, **{f"fg{n}": b"\1" * n for n in runs}, **{f"bg{n}": b"\0" * n for n in runs}}
        self._header = Pieces(
            ("", SPACE),
            _REFS[label],
            ("<box>[[", r"<box>\[\["),
            *[_INTEGER, _BLANK, _INTEGER, _BLANK, _INTEGER, _BLANK, _INTEGER],
            ("]]</box><seg>", r"\]\]</box><seg>"),
        )

    def prompt(self, expression: str) -> str:
        """The text of the user's turn."""
        return f'Locate and segment "{plain(expression)}" in the image.'

    def encode(self, sample: Sample) -> str:
        """The target completion.

        Raises:
            ValueError: a target has no mask, as in box-only data.
        """
        if not sample.targets:
            return "<none>"
        targets = enumerate(left_to_right(sample.targets))
        return "".join(self._sentence(number, target, sample) for number, target in targets)

    def _sentence(self, number: int, target: Target, sample: Sample) -> str:
        if target.mask is None:
            raise ValueError(f"sample {sample.id}: bricks need a mask and this target has none; use format=box.")
        height, width = sample.height, sample.width
        coordinates = to_frame(masks.box(target.mask) or target.box, height, width, self.convention)
        rows, columns = self._shape(coordinates)
        how = "area" if self.scope == "box" and self.resize == "bilinear" else "nearest"
        box = from_frame(coordinates, height, width, self.convention)
        bricks = self.write_grid(encode_grid(masks.decode(target.mask), box, rows, columns, how))
        ref = {"roi": f"<ref>roi{number}</ref>", "phrase": f"<ref>{plain(sample.expression)}</ref>", "none": ""}
        x1, y1, x2, y2 = coordinates
        return f"{ref[self.label]}<box>[[{x1} {y1} {x2} {y2}]]</box><seg>{bricks}</seg>"

    def _shape(self, coordinates: tuple[int, ...]) -> tuple[int, int]:
        """(rows, columns) of the cells inside a box written in the model's frame."""
        x1, y1, x2, y2 = coordinates
        return (y2 - y1, x2 - x1) if self.scope == "image" else (self.grid, self.grid)

    def parse(self, text: str, height: int, width: int) -> Prediction:
        """What a completion says about an image of `height` x `width` original pixels; every instance has its mask."""
        if _NO_TARGET.match(text):
            return NoTarget()
        instances: list[Instance] = []
        at, end = 0, len(text.rstrip(" \t\r\n"))
        while at < end or not instances:
            if len(instances) == self.max_instances:
                return invalid(at, f"more than {self.max_instances} objects")
            header = self._header.match(text, at)
            if header is None:
                return self._header.missing(text, at)
            closing = text.find("</seg>", header.end())
            if closing < 0:
                return unexpected("a </seg> further on", text, header.end())
            instance = self._instance(header, text[header.end() : closing], height, width)
            if isinstance(instance, Invalid):
                return instance
            instances.append(instance)
            at = closing + len("</seg>")
        return Found(tuple(instances))

    def _instance(self, header: re.Match[str], bricks: str, height: int, width: int) -> Instance | Invalid:
        *label, x1, y1, x2, y2 = header.groups()
        place = header.start(len(header.groups()) - 3)
        box = read_box((x1, y1, x2, y2), place, height, width, self.convention)
        if isinstance(box, Invalid):
            return box
        coordinates = int(x1), int(y1), int(x2), int(y2)
        if self.scope == "image" and not 0 <= min(coordinates) <= max(coordinates) <= self.grid:
            return invalid(place, f"box {coordinates} leaves the grid of {self.grid} x {self.grid} cells")
        grid = self.read_grid(bricks, *self._shape(coordinates), at=header.end())
        if isinstance(grid, Invalid):
            return grid
        return Instance(box, decode_grid(grid, box, height, width, self.resize), label[0] if label else None)

    def write_grid(self, grid: np.ndarray) -> str:
        """The bricks of a grid of cells `bool (rows, columns)`."""
        return "<row>".join(
            "".join(f"<{'fg' if filled else 'bg'}{len(list(run))}>" for filled, run in groupby(row))
            for row in grid.tolist()
        )

    def read_grid(self, bricks: str, rows: int, columns: int, at: int = 0) -> np.ndarray | Invalid:
        """The grid `uint8 (rows, columns)` that `write_grid` wrote; `at` is where the bricks start in their text."""
        # One byte a cell, one mark a <row>: right if and only if a mark, and no other, follows each `columns` cells. An
        # unknown name becomes two marks, that is an empty row, which no grid has.
        cells = b"".join([self._cells.get(name, 2 * _ROW) for name in bricks[1:-1].split("><")])
        marks = cells[columns :: columns + 1]
        complete = len(cells) == rows * (columns + 1) - 1 and marks == _ROW * cells.count(_ROW)
        if not (complete and bricks.startswith("<") and bricks.endswith(">")):
            return self._fault(bricks, rows, columns, at)
        if b"\1" not in cells:
            return invalid(at, "no cell is foreground: an answer without an object is <none>")
        return np.frombuffer(cells + _ROW, np.uint8).reshape(rows, columns + 1)[:, :columns]

    def _fault(self, bricks: str, rows: int, columns: int, at: int) -> Invalid:
        """The first rule that bricks break."""
        read = row = filled = 0
        while read < len(bricks) or not bricks:
            token = _TOKEN.match(bricks, read)
            cells = self._cells.get(token[1]) if token else None
            if token is None or cells is None:
                found = bricks[read : read + 16] or "</seg>"
                return invalid(at + read, f"expected a brick, <row> or </seg>, found {found!r}")
            if cells == _ROW:
                if filled != columns:
                    break
                row, filled = row + 1, 0
            else:
                filled += len(cells)
            read = token.end()
        if filled != columns:
            return invalid(at + read, f"row {row} is {filled} cells wide, not {columns}")
        return invalid(at + read, f"the grid has {row + 1} of {rows} rows")

    def regex(self, max_instances: int) -> str:
        """What `encode` can write, for structured decoding, but for three things that must be counted.

        Rows need not sum to the width of the grid, scope `image` does not tie the number of rows to the box, and a box
        may be inside out: an expression that remembers these has millions of states.
        """
        number = up_to(self.convention.units if isinstance(self.convention, Relative) else 9999)
        ref = {"roi": "<ref>roi[0-9]{1,3}</ref>", "phrase": r'<ref>[^<>"\\\x00-\x1f]*</ref>', "none": ""}[self.label]
        row = f"(?:<(?:fg|bg)(?:{'|'.join(map(str, range(1, self.grid + 1)))})>){{1,{self.grid}}}"
        more = f"(?:<row>{row}){{{0 if self.scope == 'image' else self.grid - 1},{self.grid - 1}}}"
        sentence = rf"{ref}<box>\[\[{number}(?: {number}){{3}}\]\]</box><seg>{row}{more}</seg>"
        return f"(?:<none>|(?:{sentence}){{1,{max_instances}}})"

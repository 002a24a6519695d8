"""`format=bricks`: masks as text, in runs of foreground and background (Text4Seg++, arXiv 2509.06321, III-C).

    <ref>roi0</ref><box>[[12 5 15 7]]</box><seg><bg1><fg2><row><fg3></seg>

One such sentence an object, one after the other, from left to right. A grid of cells lies over the box and is written
in *bricks*, tokens that stand for a run: `<fg3>` is three cells of foreground, `<bg1>` one of background.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from segmentation import masks
from segmentation.boxes import Convention, Relative, from_frame, to_frame
from segmentation.formats.base import (
    BLANKS,
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
    salvaged,
    unexpected,
    up_to,
)
from segmentation.formats.brick_codes import MOST_COLUMNS, BrickCode, ColumnCode, RowCode, WrappedCode
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


class BrickFormat:
    """Boxes and bricks; parsing makes the masks.

    Two scopes. `image` is the paper's: `grid` x `grid` cells lie over the whole image, coordinates count them, and the
    bricks tell the cells inside the box. `box` spends its cells where the object is: coordinates are in the model's own
    frame and the grid is stretched over the box, which is shorter and, on small objects, far better.

    Three codes (`segmentation.formats.brick_codes`). `rows` is the paper's, on a square grid; `wrapped` lets runs go on
    over the ends of rows, for comparison; `columns` writes a few columns of fine cells and joins their outlines, at a
    quarter of the paper's tokens. It needs scope `box`.

    What the paper leaves open is decided so:

    - The right and bottom edges of a box are exclusive, as everywhere here. Coordinates of scope `image` run from 0 to
      `grid`, a box is `x2 - x1` cells wide, and one outside the grid is Invalid, not clamped: its rows would not fit.
    - `<none>` alone says that nothing in the image is meant. An object without a foreground brick is Invalid: that
      nothing is there has one wording, not two.
    - White space may stand between objects and around them, not inside, but for one blank between coordinates.
    - A text that breaks any of this is Invalid as a whole, with the place and the rule; see `on_broken`.
    - The box written is the one around the mask. A mask without a pixel is written as its filled box.
    - Down to cells, scope `image` takes the pixel under the cell's centre and scope `box` half of the cell's area; an
      object too small for either keeps every cell it touches. Up to pixels: `resize`.

    Args:
        grid: cells a side, with `columns` cells down a column; 64, but 24 for rows of scope `box`, unless given.
        scope: `image` or `box`.
        code: `rows`, `wrapped` or `columns`.
        columns: how many columns `encode` writes, at most 64 (code `columns`); `parse` reads up to 128.
        convention: frame of the coordinates of scope `box` (`segmentation.boxes`), or its name; `image` has its own.
        label: what `<ref>` holds: `roi` a number, roi0, roi1, ...; `phrase` the expression; `none` leaves the tag out.
        resize: `bilinear` (> 0.5), or `nearest`, both down and up, as published (code `rows`).
        on_broken: `invalid`, or `prefix` to keep the objects before the break (`segmentation.formats.base.Format`).
        max_instances: a text with more objects is Invalid: what a reader spends on one completion is bounded.
    """

    mask_tags: tuple[str, str] | None = ("<seg>", "</seg>")
    seg_token: str | None = None

    def __init__(
        self,
        grid: int | None = None,
        scope: Literal["image", "box"] = "image",
        code: Literal["rows", "wrapped", "columns"] = "rows",
        columns: int = 16,
        convention: Convention | str = "relative1000",
        label: Label = "roi",
        resize: Resize = "bilinear",
        on_broken: OnBroken = "invalid",
        max_instances: int = 64,
    ) -> None:
        one_of("scope", scope, ("image", "box"))
        one_of("code", code, ("rows", "wrapped", "columns"))
        one_of("label", label, tuple(_REFS))
        one_of("on_broken", on_broken, get_args(OnBroken))
        if min(1 if grid is None else grid, columns) < 1:
            raise ValueError(f"format.grid={grid}, format.columns={columns}: a grid has at least one cell.")
        if columns > MOST_COLUMNS:
            raise ValueError(f"format.columns={columns} is more than {MOST_COLUMNS}.")
        if code == "columns" and (scope == "image" or resize == "nearest"):
            raise ValueError(f"format.code=columns needs scope=box, resize=bilinear, not {scope}, {resize}.")
        self.grid = grid or (24 if scope == "box" and code != "columns" else 64)
        self.scope, self.label, self.max_instances = scope, label, max_instances
        self.columns = columns if code == "columns" else self.grid
        self.convention = Relative(self.grid) if scope == "image" else named_convention(convention)
        rows = WrappedCode if code == "wrapped" else RowCode
        self.code: BrickCode = (
            ColumnCode(self.grid) if code == "columns" else rows(self.grid, resize, area=scope == "box")
        )
        self.on_broken: OnBroken = on_broken
        self.new_tokens = ("<ref>", "</ref>", "<box>", "</box>", "<seg>", "</seg>", "<none>", *self.code.tokens)
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
        box = from_frame(coordinates, height, width, self.convention)
        bricks = self.code.write(self.code.sample(masks.decode(target.mask), box, rows, columns))
        ref = {"roi": f"<ref>roi{number}</ref>", "phrase": f"<ref>{plain(sample.expression)}</ref>", "none": ""}
        x1, y1, x2, y2 = coordinates
        return f"{ref[self.label]}<box>[[{x1} {y1} {x2} {y2}]]</box><seg>{bricks}</seg>"

    def _shape(self, coordinates: tuple[int, ...]) -> tuple[int, int]:
        """(rows, columns) of the cells inside a box written in the model's frame."""
        x1, y1, x2, y2 = coordinates
        return (y2 - y1, x2 - x1) if self.scope == "image" else (self.grid, self.columns)

    def parse(self, text: str, height: int, width: int) -> Prediction:
        """What a completion says about an image of `height` x `width` original pixels; every instance has its mask."""
        if _NO_TARGET.match(text):
            return NoTarget()
        instances: list[Instance] = []
        at, end = 0, len(text.rstrip(BLANKS))
        while at < end or not instances:
            if len(instances) == self.max_instances:
                return invalid(at, f"more than {self.max_instances} objects")
            sentence = self._read(text, at, height, width)
            if isinstance(sentence, Invalid):
                return salvaged(instances, sentence, self.on_broken)
            at, instance = sentence
            instances.append(instance)
        return Found(tuple(instances))

    def _read(self, text: str, at: int, height: int, width: int) -> tuple[int, Instance] | Invalid:
        """Where the sentence that begins at `at` ends, and its object."""
        header = self._header.match(text, at)
        if header is None:
            return self._header.missing(text, at)
        closing = text.find("</seg>", header.end())
        if closing < 0:
            return unexpected("a </seg> further on", text, header.end())
        instance = self._instance(header, text[header.end() : closing], height, width)
        return instance if isinstance(instance, Invalid) else (closing + len("</seg>"), instance)

    def _instance(self, header: re.Match[str], bricks: str, height: int, width: int) -> Instance | Invalid:
        *label, x1, y1, x2, y2 = header.groups()
        place = header.start(len(header.groups()) - 3)
        box = read_box((x1, y1, x2, y2), place, height, width, self.convention)
        if isinstance(box, Invalid):
            return box
        coordinates = int(x1), int(y1), int(x2), int(y2)
        if self.scope == "image" and not 0 <= min(coordinates) <= max(coordinates) <= self.grid:
            return invalid(place, f"box {coordinates} leaves the grid of {self.grid} x {self.grid} cells")
        grid = self.code.read(bricks, *self._shape(coordinates), at=header.end())
        if isinstance(grid, Invalid):
            return grid
        return Instance(box, self.code.draw(grid, box, height, width), label[0] if label else None)

    def regions(self, sample: Sample) -> Sample:
        """The sample: a text names each object."""
        return sample

    def regex(self, max_instances: int) -> str:
        """What `encode` can write, for structured decoding, but for three things that must be counted.

        Runs need not sum to the size of the grid, scope `image` does not tie the number of rows to the box, and a box
        may be inside out: an expression that remembers these has millions of states.
        """
        number = up_to(self.convention.units if isinstance(self.convention, Relative) else 9999)
        ref = {"roi": "<ref>roi[0-9]{1,3}</ref>", "phrase": r'<ref>[^<>"\\\x00-\x1f]*</ref>', "none": ""}[self.label]
        bricks = self.code.regex((1 if self.scope == "image" else self.columns, self.columns))
        sentence = rf"{ref}<box>\[\[{number}(?: {number}){{3}}\]\]</box><seg>{bricks}</seg>"
        return f"(?:<none>|(?:{sentence}){{1,{max_instances}}})"

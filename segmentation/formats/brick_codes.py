"""Bricks: how a grid of cells becomes text, and text a grid. `RowCode` is Text4Seg++'s; `ColumnCode` is ours.

Both read a grid back exactly as it was written, in time linear in the text, and name the first rule that a text breaks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

import numpy as np

from segmentation.boxes import Box
from segmentation.decoders.bricks import Downsample, decode_grid, encode_grid
from segmentation.decoders.columns import decode_columns
from segmentation.formats.base import invalid
from segmentation.masks import RLE, Resize
from segmentation.sample import Invalid

_TOKEN = re.compile(r"<([a-z]+[0-9]*)>")
_MARK = b"\2"  # the mark of <row> or <col> among the cells, which are 0 and 1
MOST_COLUMNS = 64  # that are written for one object; twice as many are read, and no more: what it costs is bounded
_EMPTY = "no cell is foreground: an answer without an object is <none>"


class BrickCode(Protocol):
    """A grid of cells as text. `rows` and `columns` are the size of the grid that lies over a box."""

    tokens: tuple[str, ...]

    def write(self, grid: np.ndarray) -> str:
        """The bricks of a grid of cells `bool (rows, columns)`."""
        ...

    def read(self, text: str, rows: int, columns: int, at: int = 0) -> np.ndarray | Invalid:
        """The grid `uint8` that `write` wrote; `at` is where the bricks start in their text."""
        ...

    def regex(self, lines: tuple[int, int]) -> str:
        """What `write` writes for a grid of `lines[0]` to `lines[1]` lines; runs need not sum to the grid's size."""
        ...

    def sample(self, mask: np.ndarray, box: Box, rows: int, columns: int) -> np.ndarray:
        """The cells `bool (rows, columns)` of a mask `bool (H, W)` inside a box; at least one is foreground."""
        ...

    def draw(self, grid: np.ndarray, box: Box, height: int, width: int) -> RLE:
        """The mask of a grid that fills a box in an image of `height` x `width` pixels."""
        ...


class RowCode:
    """Text4Seg++ (arXiv 2509.06321, III-C): each row from left to right, every cell in a run, `<row>` between two rows.

        <bg1><fg2><row><fg3>

    - A run is 1 to `longest` cells long, so that a row as wide as the image is one brick (the paper's end at 63 of 64).
    - Every row sums to exactly the width of the grid, and there are as many rows as it is high: a wrong brick spoils
      its own row and shifts no other.
    - Two bricks of a kind may follow each other; `write` never writes it.
    """

    def __init__(self, longest: int, resize: Resize = "bilinear", area: bool = True) -> None:
        self.longest = longest
        self.resize: Resize = resize
        self._how: Downsample = "area" if area and resize == "bilinear" else "nearest"
        runs = range(1, longest + 1)
        self.tokens = ("<row>", *(f"<fg{n}>" for n in runs), *(f"<bg{n}>" for n in runs))
        self._cells = {"row": _MARK, **{f"fg{n}": b"\1" * n for n in runs}, **{f"bg{n}": b"\0" * n for n in runs}}

    def write(self, grid: np.ndarray) -> str:
        """The bricks of a grid of cells `bool (rows, columns)`."""
        return "<row>".join("".join(_brick(*run) for run in _runs(row)) for row in grid.tolist())

    def read(self, text: str, rows: int, columns: int, at: int = 0) -> np.ndarray | Invalid:
        """The grid `uint8 (rows, columns)` that `write` wrote; `at` is where the bricks start in their text."""
        # One byte a cell, one mark a <row>: right if and only if a mark, and no other, follows each `columns` cells. An
        # unknown name becomes two marks, that is an empty row, which no grid has.
        cells = b"".join([self._cells.get(name, 2 * _MARK) for name in text[1:-1].split("><")])
        marks = cells[columns :: columns + 1]
        complete = len(cells) == rows * (columns + 1) - 1 and marks == _MARK * cells.count(_MARK)
        if not (complete and text.startswith("<") and text.endswith(">")):
            return self._fault(text, rows, columns, at)
        if b"\1" not in cells:
            return invalid(at, _EMPTY)
        return np.frombuffer(cells + _MARK, np.uint8).reshape(rows, columns + 1)[:, :columns]

    def _fault(self, text: str, rows: int, columns: int, at: int) -> Invalid:
        """The first rule that bricks break."""
        read = row = filled = 0
        while read < len(text) or not text:
            token = _TOKEN.match(text, read)
            cells = self._cells.get(token[1]) if token else None
            if token is None or cells is None:
                return _no_brick("a brick, <row>", text, read, at)
            if cells == _MARK:
                if filled != columns:
                    break
                row, filled = row + 1, 0
            else:
                filled += len(cells)
            read = token.end()
        if filled != columns:
            return invalid(at + read, f"row {row} is {filled} cells wide, not {columns}")
        return invalid(at + read, f"the grid has {row + 1} of {rows} rows")

    def regex(self, lines: tuple[int, int]) -> str:
        """Rows of any runs."""
        row = f"(?:<(?:fg|bg){_numbers(range(1, self.longest + 1))}>){{1,{self.longest}}}"
        return f"{row}(?:<row>{row}){{{lines[0] - 1},{lines[1] - 1}}}"

    def sample(self, mask: np.ndarray, box: Box, rows: int, columns: int) -> np.ndarray:
        """Half of a cell's area (`area`), or the pixel under its centre."""
        return encode_grid(mask, box, rows, columns, self._how)

    def draw(self, grid: np.ndarray, box: Box, height: int, width: int) -> RLE:
        """Cells blown up."""
        return decode_grid(grid, box, height, width, self.resize)


class WrappedCode(RowCode):
    """`RowCode` without rows: runs go on over the ends of rows, and all of them sum to the cells of the grid.

    About 40% fewer tokens, but one wrong brick shifts all that follows; Text4Seg measured the same trade (R-RLE against
    I-RLE, arXiv 2410.09855). For comparison.
    """

    def __init__(self, longest: int, resize: Resize = "bilinear", area: bool = True) -> None:
        super().__init__(longest, resize, area)
        self.tokens = self.tokens[1:]
        del self._cells["row"]

    def write(self, grid: np.ndarray) -> str:
        """The bricks of a grid of cells `bool (rows, columns)`."""
        text = []
        for filled, length in _runs(grid.ravel().tolist()):
            full, rest = divmod(length, self.longest)
            text += [_brick(filled, n) for n in [self.longest] * full + [rest] * (rest > 0)]
        return "".join(text)

    def read(self, text: str, rows: int, columns: int, at: int = 0) -> np.ndarray | Invalid:
        """The grid `uint8 (rows, columns)` that `write` wrote; `at` is where the bricks start in their text."""
        cells = _joined(text, self._cells) if text.startswith("<") and text.endswith(">") else None
        if cells is None:
            return self._unknown(text, at)
        if len(cells) != rows * columns:
            return invalid(at, f"the bricks are {len(cells)} cells, not {rows} x {columns}")
        if b"\1" not in cells:
            return invalid(at, _EMPTY)
        return np.frombuffer(cells, np.uint8).reshape(rows, columns)

    def _unknown(self, text: str, at: int) -> Invalid:
        read = 0
        while (token := _TOKEN.match(text, read)) and token[1] in self._cells:
            read = token.end()
        return _no_brick("a brick", text, read, at)

    def regex(self, lines: tuple[int, int]) -> str:
        """Any runs."""
        most = lines[1] * self.longest
        return f"(?:<(?:fg|bg){_numbers(range(1, self.longest + 1))}>){{1,{most}}}"


class ColumnCode:
    """Few columns of many cells, and between two columns the outline goes straight.

        <col1><fg2><col0><fg3><bg2><fg4><col>

    `<col1>` begins a column whose foreground begins one cell down; runs follow, foreground first and last, and what
    is left of the column is background. `<col>` is a column of background. So a convex object costs two tokens a
    column, however fine its cells: precision along a column is free, and across columns it comes from interpolating
    the outline (`segmentation.decoders.columns`) instead of repeating it.

    Little can go wrong: the columns that are written, however many, share the box evenly, and a run that leaves the
    grid ends there. A wrong brick spoils its own column and shifts no other.

    On the 67 real masks of refer_mini, 16 columns of 64 cells: 97.2 mIoU at 35 tokens, where rows over the image
    (64 x 64) have 96.9 at 145 and 24 x 24 rows over the box 96.7 at 79 (`tests/bench/bench_formats.py`).
    """

    def __init__(self, cells: int) -> None:
        self.cells = cells
        runs = range(1, cells + 1)
        starts, gaps = range(cells), range(1, cells - 1)
        self.tokens = (
            *("<col>", *(f"<col{n}>" for n in starts)),
            *(f"<fg{n}>" for n in runs),
            *(f"<bg{n}>" for n in gaps),
        )
        self._cells = {
            **{"col": _MARK, **{f"col{n}": _MARK + b"\0" * n for n in starts}},
            **{f"fg{n}": b"\1" * n for n in runs},
            **{f"bg{n}": b"\0" * n for n in gaps},
        }
        self._column = re.compile(r"<col(?:[0-9]+><fg[0-9]+>(?:<bg[0-9]+><fg[0-9]+>)*+|>)")
        self._columns = re.compile(f"(?:{self._column.pattern})*+")

    def write(self, grid: np.ndarray) -> str:
        """The bricks of a grid of cells `bool (rows, columns)`."""
        return "".join(map(self._write_column, grid.T.tolist()))

    def _write_column(self, cells: list[bool]) -> str:
        runs = _runs(cells)
        if not runs[-1][0]:
            runs.pop()
        if not runs:
            return "<col>"
        start = 0 if runs[0][0] else runs.pop(0)[1]
        return f"<col{start}>" + "".join(_brick(*run) for run in runs)

    def read(self, text: str, rows: int, columns: int, at: int = 0) -> np.ndarray | Invalid:
        """The grid `uint8 (rows, columns written)`; `at` is where the bricks start in their text."""
        if not self._columns.fullmatch(text):
            return self._fault(text, at)
        cells = _joined(text, self._cells)
        if cells is None:
            return self._fault(text, at)
        if b"\1" not in cells:
            return invalid(at, _EMPTY)
        lines = cells.split(_MARK)[1:]  # nothing stands before the first mark
        if len(lines) > 2 * MOST_COLUMNS:
            return invalid(at, f"{len(lines)} columns are more than {2 * MOST_COLUMNS}")
        filled = b"".join([line[:rows].ljust(rows, b"\0") for line in lines])
        return np.frombuffer(filled, np.uint8).reshape(len(lines), rows).T

    def _fault(self, text: str, at: int) -> Invalid:
        """The first rule that bricks break."""
        read = 0
        while line := self._column.match(text, read):
            for token in _TOKEN.finditer(line[0]):
                if token[1] not in self._cells:
                    return _no_brick("a brick, <col>", text, read + token.start(), at)
            read = line.end()
        return self._broken_column(text, read, at)

    def _broken_column(self, text: str, read: int, at: int) -> Invalid:
        """Foreground must follow the start of a column, and a gap."""
        for expected, piece in (("<col>", r"<col[0-9]*>"), ("a brick of foreground", r"<fg[0-9]+>")):
            token = re.compile(piece).match(text, read)
            if token is None:
                return _no_brick(expected, text, read, at)
            read = token.end()
        raise AssertionError(f"a column matches its pieces and not its pattern: {text[read : read + 64]!r}")

    def regex(self, lines: tuple[int, int]) -> str:
        """Columns of any runs, at least one of them not empty; up to twice `lines`, which reading does not mind."""
        runs, gaps = _numbers(range(1, self.cells + 1)), _numbers(range(1, max(2, self.cells - 1)))
        more = f"(?:<bg{gaps}><fg{runs}>){{0,{(self.cells - 1) // 2}}}"
        filled = f"<col{_numbers(range(self.cells))}><fg{runs}>{more}"
        more_lines = lines[1] - 1
        return f"(?:<col>){{0,{more_lines}}}{filled}(?:{filled}|<col>){{0,{more_lines}}}"

    def sample(self, mask: np.ndarray, box: Box, rows: int, columns: int) -> np.ndarray:
        """Half of a cell's area."""
        return encode_grid(mask, box, rows, columns, "area")

    def draw(self, grid: np.ndarray, box: Box, height: int, width: int) -> RLE:
        """Columns joined by straight outlines."""
        return decode_columns(grid, box, height, width)


def _runs(cells: list[bool]) -> list[tuple[bool, int]]:
    return [(filled, len(list(run))) for filled, run in groupby(cells)]


def _brick(filled: bool, length: int) -> str:
    return f"<{'fg' if filled else 'bg'}{length}>"


def _joined(text: str, cells: dict[str, bytes]) -> bytes | None:
    """The cells of a text of tokens, None if one is unknown."""
    known = [cells.get(name) for name in text[1:-1].split("><")]
    return None if None in known else b"".join(filter(None, known))


def _numbers(numbers: Sequence[int]) -> str:
    return f"(?:{'|'.join(map(str, numbers))})"


def _no_brick(expected: str, text: str, read: int, at: int) -> Invalid:
    found = text[read : read + 16] or "</seg>"
    return invalid(at + read, f"expected {expected} or </seg>, found {found!r}")

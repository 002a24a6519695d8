"""Reads pickles of plain data, and nothing else: the official `refs(<split_by>).p` are Python-2 pickles from the web.

A pickle is a program for a small stack machine. This reader knows only the instructions that make lists, dicts, tuples,
text, numbers, booleans and None; every other one is refused by name before it does anything. What is left cannot call
code: no globals, reductions, persistent ids, or extension codes (which C's `Unpickler` serves from a cache without
asking `find_class`). Nor can it claim memory it does not fill: reads stop at the end of the file, `bytearray`, which is
allocated before it is read, is not plain data, and the memo is a dict (C's is an array as long as its largest key).
That is why this is the standard library's unpickler in Python, `pickle._Unpickler`: 1.8 to 2.8 s for RefCOCO's 50,000
refs, where vetting the instructions first (`pickletools.genops`) takes as long again as C takes to load them.

The real files need no class at all, so none is allowed.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

PLAIN = set(
    """
    PROTO FRAME STOP MARK POP POP_MARK DUP PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    LIST EMPTY_LIST APPEND APPENDS DICT EMPTY_DICT SETITEM SETITEMS TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3
    """.split()  # noqa: SIM905
)
NAMING = {"GLOBAL", "STACK_GLOBAL", "INST"}  # run only as far as `find_class`, which names the class and stops


class UnsafePickle(ValueError):
    """The file is not a pickle of plain data. The message names the file and the class or instruction refused."""


def load(path: Path) -> Any:
    """The lists, dicts, tuples, text, numbers, booleans and None in a pickle of any protocol.

    Python-2 `str` is read as Latin-1: every byte is some character, so no text can stop the load.

    Raises:
        UnsafePickle: the pickle asks for a class, runs code, is cut short, or is no pickle.
        OSError: the file cannot be read.
    """
    stream = io.BytesIO(path.read_bytes())  # its read(n) returns what there is, whatever n
    try:
        return _PlainUnpickler(stream, encoding="latin1").load()
    except UnsafePickle as error:
        raise UnsafePickle(f"{path}: {error} Nothing was run. Get the official file again.") from None
    except Exception as error:  # a damaged pickle can fail in any instruction, in any way
        problem = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise UnsafePickle(
            f"{path}: not a complete pickle; stopped at byte {stream.tell()} of {len(stream.getbuffer())} ({problem}). "
            "Get the official file again."
        ) from error


def _refuse(name: str) -> Callable[[Any], NoReturn]:
    def refuse(_: Any) -> NoReturn:
        raise UnsafePickle(f"the pickle instruction {name} is not allowed; only plain data is.")

    return refuse


class _PlainUnpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        ord(op.code): pickle._Unpickler.dispatch[ord(op.code)] if op.name in PLAIN | NAMING else _refuse(op.name)
        for op in pickletools.opcodes
    }

    def find_class(self, module: str, name: str) -> NoReturn:
        raise UnsafePickle(f"the pickle asks for {module}.{name}, and no class is allowed; only plain data is.")

"""Annotation files: JSON, what is in it, and names out of it, with errors that say where in which file the fault is."""

from __future__ import annotations

import gc
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from segmentation.sample import opened, orientation


def require(root: str | Path, files: Sequence[Path], layout: str) -> None:
    """Raises FileNotFoundError, which shows the layout that `data.root` needs, unless all of the files are there."""
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file}: no such file. data.root={root} needs {layout}.")


def read_json(path: Path, fallback: str | None = None) -> Any:
    """What a JSON file holds.

    Args:
        path: the file.
        fallback: encoding to read it in if it is not UTF-8 (ReasonSeg has files in cp1252).

    Raises:
        ValueError: it is not complete JSON.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if fallback is not None:
        try:
            content.decode()
        except UnicodeDecodeError:
            content = content.decode(fallback).encode()
    try:
        return from_json(content)  # a third of the time of the standard library's
    except ValueError as error:
        raise ValueError(f"{path}: not complete JSON ({error}). Get the official file again.") from error


def as_list(content: Any, where: str) -> list[Any]:
    """The content, which must be a list. Raises ValueError."""
    if not isinstance(content, list):
        raise ValueError(f"{where}: holds a {type(content).__name__}; a list was expected. Is it the right file?")
    return content


def get(entry: dict[str, Any], key: str, *kinds: type) -> Any:
    """A field of one of those types (True is no int). Raises KeyError or TypeError, for `located` to explain."""
    value = entry[key]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{key} is a {type(value).__name__}, {reprlib.repr(value)}; it must be {wanted}")
    return value


def by_id(entries: Iterable[dict[str, Any]], where: str) -> dict[Any, dict[str, Any]]:
    """Entries by their `id`. Raises ValueError if two have the same."""
    entries = list(entries)
    found = {entry["id"]: entry for entry in entries}
    if len(found) < len(entries):
        seen: set[Any] = set()
        twice = next(entry["id"] for entry in entries if entry["id"] in seen or seen.add(entry["id"]))
        raise ValueError(f"{where} has two entries of id {twice!r}; each needs its own. Get the official file again.")
    return found


def size_of(image: Path, upright: bool = False) -> tuple[int, int]:
    """(height, width) in pixels, out of the head of an image file, as stored or `upright`. Raises BrokenImage."""
    with opened(image, str(image)) as file:
        return (file.width, file.height) if upright and orientation(file) >= 5 else (file.height, file.width)


def inside(folder: Path, name: str) -> Path:
    """`folder / name` for a name out of a file.

    Raises:
        ValueError: the name leads out of the folder. (A link inside it may: links are the user's own.)
    """
    path = Path(name)
    if not path.parts or path.anchor or ".." in path.parts or "\0" in name:
        raise ValueError(f"file_name {name!r} leads out of {folder}; it must be a plain relative path.")
    return folder / path


@contextmanager
def located(where: str) -> Iterator[None]:
    """Says where in which file a malformed entry is."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{where}: has no field {error}.") from error
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """No cyclic collection inside: it would walk millions of new lists again and again, a third of the JSON's time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()

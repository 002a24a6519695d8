"""What predict.py is asked to do: pictures, what to look for in each, and the names of what comes out."""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from configs import ConfigError, unknown

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
RESULTS = (".json", ".mask.png", ".overlay.png")
KEYS = ("image", "expression")
EXISTING = ("stop", "replace", "keep")
STEM, WORDS = 120, 50  # bytes of each half of a name: well below the 255 that file systems take


@dataclass(frozen=True, slots=True)
class Job:
    """One expression about one picture. Its results are files called `name` and an ending each (`RESULTS`)."""

    image: Path
    expression: str
    name: str


def make_jobs(image: str | None, expression: str | None, batch: str | None) -> list[Job]:
    """The jobs, in order; names are the picture's and the expression's, numbered where two would be the same.

    Args:
        image: a picture, a folder (all pictures right in it) or a pattern.
        expression: what to look for in each of them.
        batch: a .csv or .jsonl with `image` and `expression` instead; whether its pictures are there is not looked at.

    Raises:
        ConfigError: the arguments do not fit together, nothing is there, or a line of the batch lacks something.
    """
    if batch is not None:
        if image is not None or expression is not None:
            raise ConfigError("batch: its lines name pictures and expressions; give it alone, or image and expression.")
        pairs = list(_lines(Path(batch).expanduser()))
    elif image is None or expression is None:
        raise ConfigError(
            "image, expression: no value; give both (image=photo.jpg expression='the left cup'), or batch=."
        )
    elif not expression.strip():
        raise ConfigError("expression: empty; say what to look for.")
    else:
        pairs = [(path, expression) for path in _pictures(Path(image).expanduser())]
    names: set[str] = set()
    return [Job(path, text, _name(path, text, names)) for path, text in pairs]


def due(jobs: Sequence[Job], output: Path, existing: str) -> list[Job]:
    """The jobs to do, given what lies in `output`; with `replace`, all.

    Raises:
        ConfigError: `existing` is no choice; it is `stop` and there are results of one of the jobs; or it is `keep` and
            those of another job have the name.
    """
    if existing not in EXISTING:
        raise unknown("value of existing", existing, EXISTING)
    if existing == "replace":
        return list(jobs)
    if existing == "keep":  # the .json is written last
        return [job for job in jobs if not _is_done(job, output / f"{job.name}.json")]
    there = [path for job in jobs for end in RESULTS if (path := output / f"{job.name}{end}").exists()]
    if there:
        more = f" and {len(there) - 1} more files are" if len(there) > 1 else " is"
        raise ConfigError(
            f"output_dir={output}: {there[0].name}{more} already there. Name another folder, or set existing=replace, "
            "or existing=keep to do only what is not there yet."
        )
    return list(jobs)


def _is_done(job: Job, answer: Path) -> bool:
    """Whether the file is there, and of this job: names leave punctuation out, and all but the first words."""
    if not answer.exists():
        return False
    try:
        of = from_json(answer.read_bytes())
        done = of["image"], of["expression"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"output_dir: {answer} is no result of predict.py ({error}); set existing=replace."
        ) from error
    if done != (str(job.image), job.expression):
        raise ConfigError(
            f"output_dir: {answer} is of {done[1]!r} about {done[0]}, not of {job.expression!r} about {job.image}. "
            "Name another folder, or set existing=replace."
        )
    return True


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if one.suffix.lower() in PICTURES)
        if not found:
            raise ConfigError(f"image={path}: no picture in this folder; they end with {', '.join(PICTURES)}.")
        return found
    if path.exists():
        return [path]
    found = sorted(map(Path, glob.glob(str(path), recursive=True)))
    if not found:
        raise ConfigError(f"image={path}: no such file or folder.")
    return found


def _lines(batch: Path) -> Iterator[tuple[Path, str]]:
    """Picture and expression of each line of a batch."""
    readers = {".csv": _csv, ".jsonl": _jsonl}
    if batch.suffix not in readers:
        raise ConfigError(f"batch={batch}: ends with {batch.suffix!r}; it is a .csv or a .jsonl.")
    if not batch.is_file():
        raise ConfigError(f"batch={batch}: no such file.")
    number = 0
    try:
        for number, entry in readers[batch.suffix](batch):
            image, expression = (_text(entry.get(key), f"batch={batch}, line {number}: {key}") for key in KEYS)
            yield batch.parent / Path(image).expanduser(), expression
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"batch={batch}, after line {number}: {error}; it must be UTF-8 text.") from error
    if not number:
        raise ConfigError(f"batch={batch}: no line in it.")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{where} is {value!r}; each line needs one.")
    return value


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets begin with a mark of the byte order
        rows = csv.DictReader(file)
        if missing := set(KEYS) - set(rows.fieldnames or ()):
            raise ConfigError(f"batch={path}: its first line names no column {min(missing)}.")
        for row in rows:
            yield rows.line_num, row


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                entry = from_json(line)
            except ValueError as error:
                raise ConfigError(f"batch={path}, line {number}: not JSON ({error}).") from error
            if not isinstance(entry, dict):
                raise ConfigError(f"batch={path}, line {number}: a {type(entry).__name__}; an object was expected.")
            yield number, entry


def _name(image: Path, expression: str, taken: set[str]) -> str:
    words = re.sub(r"\W+", "-", expression.lower()).strip("-")
    name = first = f"{_cut(image.stem, STEM)}--{_cut(words, WORDS)}"
    number = 1
    while name in taken:
        number += 1
        name = f"{first}-{number}"
    taken.add(name)
    return name


def _cut(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore").rstrip("-")

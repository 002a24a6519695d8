"""What `--help` prints of a command, made of its docstring and its YAML's own comments: nothing is said twice."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

WIDTH = 100  # columns
WORD = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")  # of a command line, what is quoted being one
ENTRY = re.compile(r"- (optional )?(\w+): *(\S+)(?: +# (.*))?")  # of the defaults: a group, its choice, a comment
KEY = re.compile(r"(\w+):(?: +([^#\s].*?))?(?: +# (.*))?")
MORE = """\
--cfg job prints the whole config and stops; every key of it can be given, GROUP.KEY=VALUE for those of a choice.
--multirun runs once for each of KEY=VALUE,VALUE; --hydra-help lists what else hydra takes."""


def help_text(name: str, documentation: str | None, configs: Path) -> str:
    """What a command does, how it is called, its groups with their choices, and its own keys.

    Args:
        name: of the command's file in `configs`, which ends with .yaml.
        documentation: the docstring of the command's module, of which the first paragraph is shown.
    """
    lines = (configs / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    head = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    about = " ".join((documentation or "").strip().partition("\n\n")[0].split())
    parts = [textwrap.fill(about, WIDTH), *(_command(line.removeprefix("# ")) for line in lines[:head])]
    groups = _groups(lines[head:], configs)
    if groups:
        title = "Groups, GROUP=CHOICE; * is chosen unless told otherwise. What each is: configs/GROUP/CHOICE.yaml"
        parts.append(_listed(title, groups))
    parts += [_listed("Keys, KEY=VALUE; as they are unless told otherwise", _keys(lines[head:])), _filled(MORE)]
    return "\n\n".join(part for part in parts if part)


def _command(line: str) -> str:
    """A command line, broken as a shell takes it."""
    rows = [" "]
    for word in WORD.findall(line):
        if len(rows[-1]) + 1 + len(word) > WIDTH - 2 and rows[-1].strip():
            rows[-1] += " \\"
            rows.append("     ")
        rows[-1] += f" {word}"
    return "\n".join(rows)


def _groups(lines: Sequence[str], configs: Path) -> list[tuple[str, str]]:
    """Each group of the defaults list, with its choices."""
    found = []
    for line in lines:
        entry = ENTRY.fullmatch(line.strip())
        if entry is None or entry[1]:  # an optional one follows from another choice
            continue
        _, group, chosen, comment = entry.groups()
        choices = sorted(path.stem for path in (configs / group).glob("*.yaml"))
        choices.sort(key=lambda choice: choice != chosen)
        words = ", ".join(f"{choice}*" if choice == chosen else choice for choice in choices)
        found.append((group, f"{words} ({comment})" if comment else words))
    return found


def _keys(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Each top-level key with its value, and the comment behind it."""
    found = []
    for line in lines:
        key = KEY.fullmatch(line)
        if key is None or key[1] in ("defaults", "hydra"):
            continue
        name, value, comment = key.groups()
        given = "..." if value in ("???", None) else value
        needed = ["needed"] if value == "???" else []
        found.append((f"{name}={given}", ": ".join([*needed, comment or ""]) if needed and comment else comment or ""))
    return found


def _listed(title: str, rows: Sequence[tuple[str, str]]) -> str:
    indent = min(max(len(first) for first, _ in rows), 28) + 4
    return "\n".join([title, *(_row(first, second, indent) for first, second in rows)])


def _row(first: str, second: str, indent: int) -> str:
    start = f"  {first}".ljust(indent - 1) + " "
    return textwrap.fill(
        start + second, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
    ).rstrip()


def _filled(text: str) -> str:
    return "\n".join(textwrap.fill(line, WIDTH) for line in text.splitlines())

"""The commands of the READMEs and of TROUBLESHOOTING.md, as printed: in blocks without a language, and in the text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.runs import ROOT

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = r"python|accelerate launch|make|pytest|(?:uv )?pip install"
INLINE = re.compile(rf"`((?:\w+=\S+ )?(?:{PROGRAMS}) [^`]+)`")
OTHERS = ("outputs", "build")  # folders that are not the repository's
REST = "..."  # of a command: what the reader knows already


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a README.

    Args:
        readme: its file, from the root of the repository.
        words: as a shell takes it, without what stands before it in the environment, and without `...`.
        open: a `...` was in it, so that what it needs may be missing.
    """

    readme: str = field(compare=False)
    words: tuple[str, ...]
    open: bool = False

    def __str__(self) -> str:
        return shlex.join(self.words)

    @property
    def script(self) -> str:
        """The file, the module behind `-m`, or the program where there is neither."""
        if self.words[1] == "-m":
            return self.words[2]
        return next((word for word in self.words if word.endswith(".py")), self.words[0])

    @property
    def arguments(self) -> list[str]:
        """What stands behind the script."""
        return list(self.words[self.words.index(self.script) + 1 :])


def readmes() -> list[str]:
    """Every README.md of the repository, the one at the top first, and TROUBLESHOOTING.md."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in OTHERS and path.name[0] != "."]
    found = [ROOT / "README.md", *(path for folder in folders for path in folder.rglob("README.md"))]
    names = sorted((str(path.relative_to(ROOT)) for path in found), key=lambda name: (name != "README.md", name))
    return [*names, "TROUBLESHOOTING.md"]


def commands() -> list[Command]:
    """Each once, in the order in which they are read."""
    return list(dict.fromkeys(command for readme in readmes() for command in read(readme)))


def read(readme: str) -> Iterator[Command]:
    """Raises ValueError for a line of a block that is no command known here."""
    text = (ROOT / readme).read_text()
    for block in (body for language, body in BLOCK.findall(text) if not language):
        before: tuple[str, ...] = ()
        for line in block.replace("\\\n", " ").splitlines():
            command = parsed(readme, line, before)
            before = command.words[: command.words.index(command.script) + 1]
            yield command
    for line in INLINE.findall(BLOCK.sub("", text)):
        yield parsed(readme, " ".join(line.split()), ())


def parsed(readme: str, line: str, before: tuple[str, ...]) -> Command:
    """A line as a command; one that begins with `...` is the command of the line before, on other arguments."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    if words and words[0] == REST:
        words = [*before, *words]
    if not re.match(rf"(?:{PROGRAMS})\b", " ".join(words)) or len(words) < 2:
        raise ValueError(f"{readme}: {line!r} is no command.")
    kept = [word for word in words if word != REST and not word.endswith(f"={REST}")]
    return Command(readme, tuple(kept), kept != words)

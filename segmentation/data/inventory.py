"""Which of the field's datasets lie in a folder, and whether they are whole: `make check-data`.

    make check-data ROOT=/data
    python -m segmentation.data.inventory root=/data opened=200  # pictures read of each; 0: none

Each choice of `data=` and `benchmark=` that has a root is tried with this one: made from its files,
counted, compared with the published number where there is one, and looked over as a training would
(`segmentation.data.check`). Files that are not there are named, with the layout they belong to.
Exit status 1 if a dataset that is there is not whole, and if none is there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from rich.console import Console
from rich.text import Text

from segmentation.data.check import check
from segmentation.data.export import CONFIGS, dataset, fail, help_text, run
from segmentation.published import SIZES

USAGE = "python -m segmentation.data.inventory root=FOLDER [opened=32]"
STYLES = {"whole": "green", "absent": "dim", "broken": "bold red"}
# By the choice that reads the split: `refcoco_plus_val` of benchmark=, `refcoco_plus` of data=, which is train.
PUBLISHED = {
    f"{name.replace('+', '_plus')}_{split}".removesuffix("_train"): size for (name, split), size in SIZES.items()
}
console = Console(highlight=False, soft_wrap=True)


def main(arguments: Sequence[str]) -> None:
    """The command."""
    if "--help" in arguments:
        print(help_text(__doc__, USAGE, ()))
        return
    given = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
    if not given.get("root") or given.keys() - {"root", "opened"} or not given.get("opened", "0").isdecimal():
        fail(f"usage: {USAGE}")
    if not Path(given["root"]).is_dir():
        fail(f"inventory: error: root={given['root']}: no such folder.")
    found = dict.fromkeys(STYLES, 0)
    for group, name in choices():
        condition, said = look(group, name, given["root"], int(given.get("opened", 32)))
        found[condition] += 1
        console.print(Text.assemble((f"{condition:7}", STYLES[condition]), f" {group}={name:21} ", said))
    console.print(", ".join(f"{count} {condition}" for condition, count in found.items()))
    sys.exit(1 if found["broken"] or not found["whole"] else 0)


def choices() -> Iterator[tuple[str, str]]:
    """Every choice that is read from files under a root, and needs no more than that: `(group, name)`."""
    for group in ("data", "benchmark"):
        for path in sorted((CONFIGS / group).glob("*.yaml")):
            values = OmegaConf.load(path)
            if "parts" not in values and OmegaConf.missing_keys(values) == {"root"}:
                yield group, path.stem


def look(group: str, name: str, root: str, opened: int) -> tuple[str, str]:
    """Whether a dataset is whole, absent or broken, and what there is to say about it."""
    try:
        samples, _ = dataset(group, name, [f"{group}.root={root}"])
        check(samples, opened=opened)
    except InstantiationException as error:  # hydra's, around what the dataset raised
        return ("absent" if isinstance(error.__cause__, FileNotFoundError) else "broken"), str(error.__cause__)
    except ValueError as error:
        return "broken", str(error)
    published = PUBLISHED.get(name)
    if published and len(samples) != published:
        return "broken", f"{len(samples):,} samples; published are {published:,}. Get the official files again."
    return "whole", f"{len(samples):,} samples{', as published' if published else ''}"


if __name__ == "__main__":
    run(main)

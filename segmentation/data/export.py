"""Writes any dataset as the project's own JSONL (`segmentation.data.jsonl`, schema in README.md).

    python -m segmentation.data.export data=refcoco data.root=/data output=/data/refcoco.jsonl
    python -m segmentation.data.export benchmark=reasonseg_val benchmark.root=/data output=val.jsonl

`data` and `benchmark` are the groups in `configs/`; `--config-dir FOLDER` adds choices of one's
own. Names of images are relative to `root=`, which is the dataset's own root unless given; pictures
that are in no file (scenes, RefCOCO-M) are saved beside the output, which must then lie in the
root, and is the root where there is none.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.entry import config_dir, explained, looking_in
from segmentation.data.files import size_of
from segmentation.data.jsonl import save_picture, to_entry
from segmentation.data.mixture import dataset_section
from segmentation.sample import Sample, open_image, opened, orientation

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
USAGE = "python -m segmentation.data.export (data|benchmark)=NAME [data.KEY=VALUE ...] output=FILE\n[root=FOLDER]"


def main(arguments: Sequence[str]) -> None:
    """The command."""
    if "--help" in arguments:
        print(help_text(__doc__, USAGE, ("data", "benchmark")))
        return
    arguments, beside = own_choices(arguments)
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    groups = [group for group in ("data", "benchmark") if group in given]
    strange = [argument for argument in arguments if "=" not in argument and not argument.startswith("~")]
    if len(groups) != 1 or "output" not in given or strange:
        fail(f"usage: {USAGE}")
    group, output = groups[0], Path(given["output"])
    overrides = [argument for argument in arguments if argument.split("=", 1)[0] not in (group, "output", "root")]
    try:
        samples, root = dataset(group, given[group], [*overrides, *beside])
        count = export(samples, output, Path(given.get("root", root or output.parent)))
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, HydraException) and error.__cause__ else error
        fail(f"export: error: {cause}")
    print(f"{count} samples in {output}")


def run(command: Callable[[Sequence[str]], None]) -> None:
    """Call a command with the program's arguments; Ctrl-C ends it with one line."""
    try:
        command(sys.argv[1:])
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)


def help_text(documentation: str | None, usage: str, groups: Sequence[str]) -> str:
    """A module's docstring, its usage, and the choices of groups."""
    parts = [(documentation or "").strip(), f"usage: {usage}"]
    for group in groups:
        names = ", ".join(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))
        parts.append(textwrap.fill(f"{group}: {names}", 100, subsequent_indent="  ", break_on_hyphens=False))
    return "\n\n".join(parts)


def fail(message: str) -> NoReturn:
    """End the program for what was asked of it, status 2."""
    print(message, file=sys.stderr)
    sys.exit(2)


def export(samples: Sequence[Sample], output: Path, root: Path) -> int:
    """Writes the samples to `output`, with names of images relative to `root`, and returns how many there were.

    Raises:
        ValueError: an image, or the output where pictures are saved beside it, does not lie in the root.
    """
    beside = output.parent / f"{output.stem}_images"
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f"{output.name}.part")  # an export that was cut short is not taken for a whole one
    with open(unfinished, "w", encoding="utf-8") as lines:
        for sample in samples:
            image = sample.image if _is_read_alike(sample) else save_picture(open_image(sample), beside)
            assert isinstance(image, Path)
            try:
                name = image.absolute().relative_to(root.absolute()).as_posix()
            except ValueError as error:
                raise ValueError(
                    f"{image} (sample {sample.id}) does not lie in root={root}; name a folder that holds all images."
                ) from error
            lines.write(json.dumps(to_entry(sample, name), ensure_ascii=False) + "\n")
    unfinished.replace(output)
    return len(samples)


def _is_read_alike(sample: Sample) -> bool:
    """Whether a JSONL may name the file: its reader turns pictures upright, and brings none to another size."""
    if not isinstance(sample.image, Path):
        return False
    alike = not sample.resized or size_of(sample.image, sample.upright) == (sample.height, sample.width)
    with opened(sample.image, str(sample.image)) as file:
        return alike and (sample.upright or orientation(file) == 1)


def own_choices(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without hydra's `--config-dir FOLDER`, and the overrides that make `compose` look there, too."""
    rest, folder = config_dir(arguments)
    return rest, looking_in(folder)


def dataset(group: str, name: str, overrides: list[str]) -> tuple[Sequence[Sample], str | None]:
    """The dataset of a config file, and the root that its section names."""
    values = section(group, name, overrides)
    return instantiate(dataset_section(values), _convert_="all"), values.get("root")


def section(group: str, name: str, overrides: list[str]) -> dict[str, Any]:
    """What a config file of a group says, changed by overrides.

    Raises:
        ConfigError: there is no such file, or no such key.
        ValueError: a key still has no value.
    """
    try:
        with initialize_config_dir(str(CONFIGS), version_base=None):
            composed = compose(None, [f"+{group}={name}", *overrides])[group]
    except (HydraException, OmegaConfBaseException) as error:
        raise explained(error) from error
    missing = OmegaConf.missing_keys(cast(DictConfig, composed))
    if missing:
        raise ValueError(f"{min(missing)}: no value; give one: {min(missing)}=...")
    return cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))


if __name__ == "__main__":
    run(main)

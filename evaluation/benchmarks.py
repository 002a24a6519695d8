"""What evaluate.py is asked to evaluate on: one benchmark, or several with a folder each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import configs
from segmentation.data.mixture import dataset_section
from segmentation.data.samples import Samples

ABSENT = ("stop", "name")


@dataclass(frozen=True)
class Benchmark:
    """A dataset, the section that made it, and the folder for what is answered about it."""

    section: dict[str, Any]
    samples: Samples
    folder: Path


def make_benchmarks(section: Mapping[str, Any], output: Path) -> tuple[list[Benchmark], dict[str, str]]:
    """The benchmarks of a config section, and of those left out, by name, what is not there.

    Args:
        section: of one benchmark, or `configs/benchmark/several.yaml` with others as its parts.
        output: the folder of a single benchmark; of several each has one inside it, by its name.

    Raises:
        ConfigError: files are not there (unless `absent=name` and some are) or not what they should be.
    """
    values = configs.plain(section)
    if "parts" not in values or "_target_" in values:
        return [_make(values, "benchmark", output)], {}
    if values["absent"] not in ABSENT:
        raise configs.unknown("value of benchmark.absent", values["absent"], ABSENT)
    made, absent = [], {}
    for name, part in values["parts"].items():
        where = f"benchmark.parts.{name}"
        if "root" in part and part["root"] is None:
            raise configs.ConfigError(f"{where}.root: no value; give one: benchmark.root=...")
        try:
            made.append(_make(part, where, output / name))
        except configs.ConfigError as error:
            if not (isinstance(error.__cause__, FileNotFoundError) and values["absent"] == "name"):
                raise
            absent[name] = str(error.__cause__)
    if not made:
        looked = " ".join(list(absent.values())[:1]) or "Name some: benchmark=[refcoco_val,grefcoco_val]."
        raise configs.ConfigError(f"benchmark.root={values['root']}: no benchmark is there. {looked}")
    return made, absent


def _make(section: dict[str, Any], where: str, folder: Path) -> Benchmark:
    return Benchmark(section, configs.instantiate(dataset_section(section), where=where), folder)

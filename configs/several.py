"""Several choices of one config group in one run: `data=[refcoco,grefcoco]`, `benchmark=[...]`, or `benchmark=all`.

Hydra lays the files of such a list over each other, so that the last `_target_` wins. Here each choice becomes a
section of its own, `benchmark.parts.refcoco_val`, whose `root` is `benchmark.root` unless it is given another. The
group's `several.yaml` says what they make together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from configs.strict import ConfigError

CONFIGS = Path(__file__).resolve().parent


def expanded(arguments: Sequence[str], groups: Sequence[str]) -> list[str]:
    """A command line whose lists of choices of these groups are written as hydra composes them.

    Raises:
        ConfigError: several choices of another group, each of which makes a thing: hydra would make the last of them.
    """
    return [one for argument in arguments for one in _expanded(argument, groups, arguments)]


def _expanded(argument: str, groups: Sequence[str], arguments: Sequence[str]) -> Iterator[str]:
    group, _, value = argument.partition("=")
    listed = value.startswith("[") and value.endswith("]")
    every = value == "all" and group == "benchmark"
    if group not in groups or not (listed or every):
        if listed and any("_target_" in OmegaConf.load(path) for path in (CONFIGS / group).glob("*.yaml")):
            raise ConfigError(f"{argument}: this command takes one {group}, not several.")
        yield argument
        return
    yield f"{group}=several"
    if every:
        yield f"{group}.absent=name"
    for name in dict.fromkeys(part.strip() for part in value[1:-1].split(",")) if listed else _needing_files(group):
        part = f"{group}.parts.{name}"
        yield f"+{group}@{part}={name}"
        own = any(other.startswith(f"{part}.root=") for other in arguments)
        if not own and "root" in _missing(group, name):
            yield f"{part}.root=${{{group}.root}}"


def _needing_files(group: str) -> list[str]:
    """The choices that need a root and nothing else: not those that are made up, or whose file anyone may name."""
    names = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
    return [name for name in names if _missing(group, name) == {"root"}]


def _missing(group: str, name: str) -> set[str]:
    """What a choice leaves to the command line; nothing is known of one that lies elsewhere (`--config-dir`)."""
    path = CONFIGS / group / f"{name}.yaml"
    return OmegaConf.missing_keys(OmegaConf.load(path)) if path.is_file() else set()

"""What the steps of a sweep were begun with: choices are files, and may say something else under the same name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from configs import ConfigError

SEEDS = ("seed", "data.seed")  # a step's overrides have them, and its name knows them


def check_made(composed: Mapping[str, DictConfig], root: Path) -> None:
    """Hold the steps that were begun to the configs they were begun with, and write down those of the others.

    Args:
        composed: the steps' configs by id (`plan.check_configs`).
        root: the sweep's folder; the configs lie in `configs/` of it, one file a step.

    Raises:
        ConfigError: a begun step would now be another one. Nothing is written then.
    """
    written = {key: root / "configs" / f"{key}.yaml" for key in composed}
    now = {key: dict(_values(cfg)) for key, cfg in composed.items()}
    for key, path in written.items():
        folder = root / "steps" / key
        if not (path.exists() and folder.exists()):
            continue
        before = dict(_values(OmegaConf.load(path)))
        differ = [name for name in now[key] | before if now[key].get(name) != before.get(name)]
        if differ:
            name = differ[0]
            raise ConfigError(
                f"{folder} was begun with another config ({', '.join(differ[:5])} differ; {name} was "
                f"{before.get(name)!r}, is {now[key].get(name)!r}): a file that it is made of has changed. "
                f"Take another output_dir, undo the change, or delete {folder} to have it made anew."
            )
    for key, path in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(OmegaConf.to_yaml(composed[key]), encoding="utf-8")


def _values(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a config that has no keys below it, and its value as written; seeds left out."""
    node = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _values(value, f"{prefix}{key}.")
        elif f"{prefix}{key}" not in SEEDS:
            yield f"{prefix}{key}", value

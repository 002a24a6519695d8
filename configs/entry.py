"""`main`: what makes a function a command with a hydra config.

Hydra composes the config; the command then runs as plain Python, outside of hydra, with ordinary tracebacks. What is
wrong with the config itself ends the run before it starts: one line that names the key and the nearest valid one, exit
status 2. `HYDRA_FULL_ERROR=1` shows the traceback of that, too. Ctrl-C ends it with one line, as SIGINT does (130).
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from configs.help import help_text
from configs.several import CONFIGS, expanded
from configs.strict import ConfigError, plain, unknown
from configs.terminal import first_rank, loading, one_gpu, tidy

Task = Callable[[DictConfig], None]


def main(
    config_name: str,
    texts: Sequence[str] = (),
    several: Sequence[str] = (),
    script: str = "",
    every_gpu: bool = False,
) -> Callable[[Task], Callable[[], None]]:
    """Run the decorated function with `configs/{config_name}.yaml`, changed by the command line.

    The function gets a config with every interpolation resolved, every value present, and top-level values of the type
    that their file gives them; sections are checked where they are read (`build`, `instantiate`), and before that for
    text in a number's place. A ConfigError raised there is reported like one of the config's own. With --multirun the
    function is called once for each config.

    Args:
        texts: keys whose value on the command line is text as it stands: to hydra `the man's hat, left` is a broken
            quote and two values, `[a, b]` a list, and 3 a number.
        several: groups of which a run may take several choices (`configs.several`).
        script: `__name__` of the command's file. If that is the program, its command line is checked, and `--help` and
            `--cfg` are answered, right here: above imports that take seconds.
        every_gpu: whether a program that was not launched as one of several processes is to see more than one GPU.
    """

    def checked(module: str) -> list[DictConfig]:
        return _checked(sys.modules[module].__doc__, config_name, texts, several)

    early: list[DictConfig] = []
    if script == "__main__":
        tidy()
        with _reported():
            early = checked(script)
        if not early:  # --help, --cfg
            sys.exit()
        if not every_gpu:
            one_gpu()
        loading()

    def decorate(task: Task) -> Callable[[], None]:
        @functools.wraps(task)
        def run() -> None:
            with _reported():
                for cfg in early or checked(task.__module__):
                    task(cfg)

        return run

    return decorate


@contextmanager
def _reported() -> Iterator[None]:
    """A ConfigError is said in one line, and is exit status 2."""
    try:
        yield
    except ConfigError as error:
        if os.environ.get(_FULL_ERROR) == "1":
            raise
        if first_rank():
            print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)


_FULL_ERROR = "HYDRA_FULL_ERROR"


def _checked(
    documentation: str | None, config_name: str, texts: Sequence[str], several: Sequence[str]
) -> list[DictConfig]:
    """The configs that the command line asks for, held to the rules of `main`; none after --help or --cfg."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        if first_rank():
            print(help_text(config_name, documentation, CONFIGS))
        return []
    composed = _compose(config_name, texts, several)
    for cfg, files in composed:
        check_config(cfg, files)
    return [cfg for cfg, _ in composed]


def _compose(config_name: str, texts: Sequence[str], several: Sequence[str]) -> list[tuple[DictConfig, DictConfig]]:
    """The configs that the command line asks for, each with what its files alone say; none after --cfg."""
    composed = []

    def collect(cfg: DictConfig) -> None:
        files = _from_files()
        _check_hardware(files)
        composed.append((cfg, files))

    arguments = expanded([_quoted(argument, texts) for argument in sys.argv], several)
    with _hydra_raises(), _arguments(arguments):
        try:
            hydra.main(version_base=None, config_path=str(CONFIGS), config_name=config_name)(collect)()
        except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: `group=3`
            raise explained(error) from error
    return composed


def _quoted(argument: str, texts: Sequence[str]) -> str:
    """An argument whose value is text, in hydra's quotes, unless it has them already."""
    key, _, value = argument.partition("=")
    if key not in texts or not value or (len(value) > 1 and value[0] == value[-1] and value[0] in "'\""):
        return argument
    escaped = re.sub(r"(\\*)'", r"\1\1\'", value)  # hydra unescapes backslashes only before a quote, or at the end
    end = len(escaped) - len(escaped.rstrip("\\"))
    return f"{key}='{escaped}{escaped[len(escaped) - end :]}'"


@contextmanager
def _arguments(arguments: list[str]) -> Iterator[None]:
    """`sys.argv` for hydra, which reads nothing else; a run's record shows what was really typed."""
    before, sys.argv = sys.argv, arguments
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Hydra prints its errors and exits unless this variable is set. The command's own children must not inherit it."""
    before = os.environ.get(_FULL_ERROR)
    os.environ[_FULL_ERROR] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FULL_ERROR]
        else:
            os.environ[_FULL_ERROR] = before


def check_config(cfg: DictConfig, files: DictConfig) -> None:
    """Resolve a composed config in place and hold it to the rules of `main`.

    Args:
        cfg: the config with the command line's values in it.
        files: the same without them.
    """
    try:
        if missing := OmegaConf.missing_keys(cfg):
            raise ConfigError(f"{', '.join(sorted(missing))}: no value; give one: {min(missing)}=...")
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}.") from error
    keys = [str(key) for key in files if key != "hydra"]
    if gone := set(keys) - set(cfg):
        raise ConfigError(f"{', '.join(sorted(gone))}: needed, it cannot be removed.")
    values = plain(cfg)
    for key, value in values.items():
        if key not in keys:
            raise unknown("key", key, keys)
        if not (OmegaConf.is_missing(files, key) or OmegaConf.is_interpolation(files, key)):
            _check_type(key, value, files[key])
    _check_numbers(values, files)


def _from_files(leave_out: Sequence[str] = ()) -> DictConfig:
    """The same choice of files, without the values that the command line adds or changes.

    Args:
        leave_out: groups whose choice is that of the files alone, too.
    """
    state = HydraConfig.get()
    groups = {choice.partition("@")[0] for choice in state.runtime.choices} - set(leave_out)
    given = _typed()
    overrides = OverridesParser.create().parse_overrides(given)
    choices = [text for text, override in zip(given, overrides, strict=True) if override.key_or_group in groups]
    loader = GlobalHydra.instance().config_loader()
    return loader.load_configuration(state.job.config_name, overrides=choices, run_mode=RunMode.RUN)


def _typed() -> list[str]:
    """The overrides of the command line, as text: `x=${y}` is no interpolation here."""
    return cast(list[str], OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))


def _check_hardware(files: DictConfig) -> None:
    """A typed trainer or engine would be lost in silence beside a hardware, whose file comes after theirs."""
    hardware = HydraConfig.get().runtime.choices.get("hardware", "any")
    typed = [argument for argument in _typed() if argument.startswith(("trainer=", "rollouts="))]
    if hardware == "any" or not typed:
        return
    alone = _from_files(leave_out=("recipe", "hardware"))
    for argument in typed:
        group = argument.partition("=")[0]
        decisive = alone[group] if group == "trainer" else ("use_vllm",)  # a GPU's share may well be the hardware's
        if lost := [f"{group}.{key}" for key in decisive if files[group].get(key) != alone[group].get(key)]:
            raise ConfigError(
                f"{argument}: hardware={hardware} sets {', '.join(lost[:3])}{', ...' * (len(lost) > 3)} after it. "
                f"Leave it out and type what is to differ: {lost[0]}={alone[group][lost[0].partition('.')[2]]}"
            )


def _check_type(key: str, value: Any, example: Any) -> None:
    """A value outside of any section keeps the type that its file gives it; a null in the file takes every type."""
    expected = dict if isinstance(example, DictConfig) else list if isinstance(example, ListConfig) else type(example)
    if example is None or type(value) is expected or (expected, type(value)) == (float, int):
        return
    raise ConfigError(f"{key}: expected {expected.__name__}, got {value!r} ({type(value).__name__}).")


def _check_numbers(values: Mapping[str, Any], files: DictConfig, prefix: str = "") -> None:
    """Text where a section's file has a number or a truth value: no need to import what would say so, seconds later."""
    for key, value in values.items():
        if key not in files or OmegaConf.is_missing(files, key) or OmegaConf.is_interpolation(files, key):
            continue
        example = files[key]
        if isinstance(value, Mapping) and isinstance(example, DictConfig):
            _check_numbers(value, example, f"{prefix}{key}.")
        elif isinstance(value, str) and isinstance(example, bool | int | float):
            raise ConfigError(f"{prefix}{key}: expected {type(example).__name__}, got {value!r} (str).")


def config_dir(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """A command line without hydra's `--config-dir FOLDER`, and that folder."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    given, rest = parser.parse_known_args(list(arguments))
    return rest, str(Path(given.config_dir).resolve()) if given.config_dir else None


def looking_in(folder: str | None) -> list[str]:
    """The overrides that make hydra's `compose` look for choices in that folder, too."""
    return [f"hydra.searchpath=['file://{folder}']"] if folder else []


def explained(error: Exception) -> ConfigError:
    """Hydra's error, with the nearest valid name in place of its hint to add a key that does not exist."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        choices = error.options or [file.stem for file in (CONFIGS / group).glob("*.yaml")]  # none told of a list's
        if group and choices:
            return unknown(f"choice of {group}", name, choices)
    cause = error.__cause__ or error
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key and cause.parent_node is not None:
        keys = [*_keys(cause.parent_node._get_root())]
        section = cause.full_key.rpartition(".")[0]
        explained = unknown("key", cause.full_key, [key for key in keys if key.startswith(f"{section}.")] or keys)
        if "." in cause.full_key:  # it may still be a parameter that the section's file leaves at its default
            explained = ConfigError(f"{explained} A key that is in no file is added with a plus: +{cause.full_key}=...")
        return explained
    if group := re.match(r"Could not override '([^']+)'", str(error)):
        return ConfigError(f"unknown key '{group[1]}': no group of this command; --help lists them.")
    return ConfigError(str(error))


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a composed config, hydra's own left out."""
    for key in node:
        path = f"{prefix}{key}"
        if path == "hydra":
            continue
        yield path
        child = node._get_node(key)  # unlike node[key], not an error where the value is still missing
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _keys(child, f"{path}.")

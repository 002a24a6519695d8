"""Objects out of config sections, every key and value checked against what the object takes.

A section is read in one of two ways: `build(GRPOConfig, cfg.trainer, where="trainer")` where the code knows the type,
`instantiate(cfg.format, where="format")` where the section names it in `_target_`. Both take their rules from the
signature, so nothing is declared twice. A config names code to run: run only those you trust.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from difflib import SequenceMatcher
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

T = TypeVar("T")
Parameter = inspect.Parameter


class ConfigError(ValueError):
    """A config that cannot be run. The message names the key, and what it could be instead."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> ConfigError:
    """The error for a name that is not among the valid ones, naming the nearest. The caller raises it."""
    valid = sorted(valid)
    if not valid:
        return ConfigError(f"unknown {kind} '{name}'; none is valid here.")
    if longer := [one for one in valid if one.startswith(f"{name}_")]:  # refcoco: refcoco_val, refcoco_testA
        return ConfigError(f"unknown {kind} '{name}'; valid are {', '.join(longer[:8])}{', ...' * (len(longer) > 8)}.")
    listed = f" (of {', '.join(valid)})" if len(valid) <= 12 else ""
    near = nearest(name, valid)
    if listed and SequenceMatcher(None, name, near).ratio() < 0.4:  # like none
        return ConfigError(f"unknown {kind} '{name}'; valid are {', '.join(valid)}.")
    return ConfigError(f"unknown {kind} '{name}'; the nearest valid one is '{near}'{listed}.")


def nearest(name: str, valid: Iterable[str]) -> str:
    """The valid name most like this one. The last part of a dotted name counts twice: `beat` is near to `rl.beta`."""

    def likeness(other: str) -> float:
        last = name.rpartition(".")[2], other.rpartition(".")[2]
        return SequenceMatcher(None, name, other).ratio() + SequenceMatcher(None, *last).ratio()

    return max(valid, key=likeness)


def build(target: Callable[..., T], values: Mapping[str, Any], /, *, where: str = "", **given: Any) -> T:
    """`target(**values, **given)`, after a check of every name and type in `values`.

    Sections inside are built first: those with a `_target_`, and those of a parameter annotated with a dataclass (or
    one or None). A parameter annotated with a dict gets its section as it is.

    Args:
        target: a dataclass, class or function.
        values: the section, such as `cfg.trainer`, or a plain mapping.
        where: the section's own key, for messages; empty for the whole config.
        given: arguments made at run time, which are not checked; `values` may say the same, or null.

    Raises:
        ConfigError: a key is unknown, ill-typed, left out or also given, or `target` itself raised a ValueError or
            OSError.
    """
    hints, values = _hints(target), plain(values)
    for key, made in given.items():
        said = values.pop(key, None)
        if said is not None and not (type(said) is type(made) and said == made):
            raise ConfigError(f"{_join(where, key)}: the command sets it itself, to {made!r}; leave it out.")
    values = check(target, values, where)
    arguments = {key: _make(hints.get(key, Any), value, _join(where, key)) for key, value in values.items()}
    try:
        inspect.signature(target).bind(**arguments, **given)
    except TypeError as error:
        raise ConfigError(f"{where or _name(target)}: {error}.") from error
    try:
        return target(**arguments, **given)
    except ConfigError:
        raise
    except (ValueError, OSError) as error:
        raise ConfigError(f"{where or _name(target)}: {error}") from error


def instantiate(section: Mapping[str, Any], /, *, where: str, **given: Any) -> Any:
    """What the section's `_target_` makes of its other keys; see `build`."""
    values = plain(section)
    if "_target_" not in values:
        raise ConfigError(f"{where}: names no _target_, the class or function to call.")
    return build(locate(values.pop("_target_"), where), values, where=where, **given)


def check(target: Callable[..., Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values as `target` takes them: a list as the tuple it asks for, text as a Path, sections as they are.

    What is left out is no error here: it may be given at run time.
    """
    parameters = _parameters(target, where)
    named = [name for name, parameter in parameters.items() if parameter.kind not in _UNNAMED]
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    hints = _hints(target)
    checked = {}
    for key, value in values.items():
        path = _join(where, key)
        if key not in named and not takes_any:
            raise unknown("key", path, [_join(where, name) for name in named])
        upstream_none = value is None and key in named and parameters[key].default is None  # `x: int = None`
        checked[key] = value if upstream_none else _checked(hints.get(key, Any), value, path)
    return checked


def locate(path: str, where: str) -> Callable[..., Any]:
    """The class, function or method of a dotted path."""
    try:
        return _attribute(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{_join(where, '_target_')}: cannot get {path!r}: {error}.") from error


def plain(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section as a dict of its own, without OmegaConf inside; interpolations resolved."""
    if isinstance(section, DictConfig):
        return typing.cast(dict[str, Any], OmegaConf.to_container(section, resolve=True))
    return {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in section.items()
    }


_UNNAMED = (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def _checked(hint: Any, value: Any, path: str) -> Any:
    if _has_section(hint, value):
        return value
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        # JSON's rules are a config's: a list may stand for a tuple, text for a path, an int for a float; nothing else.
        return adapter.validate_json(json.dumps(value), strict=True)
    except PydanticUserError:
        return value  # a type pydantic has no rules for; the target's own checks remain
    except ValidationError as error:
        expected = inspect.formatannotation(hint)
        raise ConfigError(f"{path}: expected {expected}, got {value!r} ({type(value).__name__}).") from error


def _has_section(hint: Any, value: Any) -> bool:
    """Whether there is something to build in a value, so that its type can be told only afterwards."""
    if isinstance(value, dict):
        return "_target_" in value or bool(_dataclass(hint)) or any(_has_section(Any, item) for item in value.values())
    return isinstance(value, list) and any(_has_section(Any, item) for item in value)


def _make(hint: Any, value: Any, path: str) -> Any:
    if isinstance(value, list):
        return [_make(Any, item, f"{path}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, dict) or {dict, Mapping} & {typing.get_origin(one) or one for one in _members(hint)}:
        return value
    if "_target_" in value:
        return instantiate(value, where=path)
    if section := _dataclass(hint):
        return build(section, value, where=path)
    return {key: _make(Any, item, _join(path, key)) for key, item in value.items()}


def _members(hint: Any) -> tuple[Any, ...]:
    """The types that a union allows; of another hint, the hint itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _dataclass(hint: Any) -> type | None:
    """The dataclass that a hint such as `Settings` or `Settings | None` asks for."""
    found = [one for one in _members(hint) if dataclasses.is_dataclass(one) and isinstance(one, type)]
    return found[0] if len(found) == 1 else None


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Annotations by parameter name. A dataclass is asked itself: fields it inherits resolve in their own modules."""
    annotated = target
    if inspect.isclass(target) and not dataclasses.is_dataclass(target):
        annotated = target.__init__
    try:
        return typing.get_type_hints(annotated)
    except NameError:  # imported under TYPE_CHECKING only: names are still checked, types are the target's own business
        return {}


def _attribute(path: str) -> Any:
    holder, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(holder), name)
    except ModuleNotFoundError as error:
        if error.name != holder or "." not in holder:  # a module that it imports is missing, or all of it
            raise
        return getattr(_attribute(holder), name)  # a class, and `name` one of its methods


def _parameters(target: Callable[..., Any], where: str) -> Mapping[str, Parameter]:
    try:
        return inspect.signature(target).parameters
    except ValueError as error:
        raise ConfigError(f"{where}: {error}, so its keys cannot be checked; wrap it in a function.") from error


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _name(target: Callable[..., Any]) -> str:
    return getattr(target, "__name__", repr(target))

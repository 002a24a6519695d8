"""Objects that several entry points make from the same sections of their configs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from omegaconf import DictConfig
from peft import LoraConfig
from PIL import Image

import configs
from configs import strict
from rollouts.policy import LANGUAGE_LINEARS, Processor, check_tokens, family, load_processor
from segmentation import masks
from segmentation.data.check import BrokenData, Opened, check
from segmentation.data.mixture import dataset_section
from segmentation.data.order import Order
from segmentation.formats import Format, Reasoning
from segmentation.formats.reasoning import Parts
from segmentation.processor import own_frame
from segmentation.sample import Found, Instance, Sample, Target

TOKENS = ("all", "mask", "rest")  # what a reward may pay (`rl.credit`)
COLUMNS = ("texts", "parts", "completion_ids", "completions", "prompts")  # what a reward may ask the trainer for
Reward = Callable[..., list[float | None]]


@dataclass(frozen=True)
class ModelSection:
    """The types of `configs/model`'s keys; what they mean stands there."""

    path: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    max_pixels: int | None
    freeze_vision: bool
    lora: dict[str, Any] | None


def make_processor(cfg: DictConfig, knows: bool = True) -> tuple[Processor, Format]:
    """The policy's processor and the run's format, from the sections `model` and `format`.

    Args:
        knows: whether the policy is to know the format's tokens already.

    Raises:
        ConfigError: an ill-typed key, a policy that is not there, or one that does not know the format's tokens.
    """
    model = configs.build(ModelSection, cfg.model, where="model")
    try:
        processor = load_processor(model.path, model.max_pixels)
        format = make_format(cfg.format, family(model.path), processor)
        if knows:
            check_tokens(processor, format.new_tokens, model.path)
    except (OSError, ValueError) as error:
        raise configs.ConfigError(str(error)) from error
    return processor, format


def make_format(section: Mapping[str, Any], model_type: str, processor: Processor) -> Format:
    """The format in the policy's own frame, unless the section names another; within thoughts if asked."""
    values = configs.plain(section)
    thoughts = values.pop("reasoning", False)
    format = configs.instantiate(values, where="format", **own_frame(values, model_type, processor))
    return Reasoning(format) if thoughts else format


def make_samples(section: Mapping[str, Any], where: str = "data") -> Sequence[Sample]:
    """The dataset that the section names. `on_error` is no business of the dataset's, but of who opens its images."""
    return configs.instantiate(dataset_section(configs.plain(section)), where=where)


def make_training_samples(section: Mapping[str, Any], in_words: bool = False, ordered: bool = False) -> Opened:
    """The dataset, looked over before any model is loaded.

    Args:
        in_words: whether the caller takes questions to be answered in words.
        ordered: whether the caller goes through it in `make_order`'s order.

    Raises:
        ConfigError: it has questions to be answered in words, and `in_words` does not allow them: they have no targets.
            Or a ratio is asked for that nobody would keep: by a caller that draws at random, or in a part. Or
            something is wrong with a sample (`segmentation.data.check`).
    """
    for name, part in {"data": section, **_parts(section, "data")}.items():
        if part.get("no_target_ratio") is not None and not (ordered and name == "data"):
            raise configs.ConfigError(f"{name}.no_target_ratio: it is data.no_target_ratio of rl/grpo.py alone.")
        if part.get("on_error", "raise") not in ("raise", section["on_error"]):
            raise configs.ConfigError(f"{name}.on_error: it is one for all parts, data.on_error={part['on_error']}.")
    samples = make_samples(section)
    if not in_words and any(part.in_words for part in getattr(samples, "parts", ())):
        raise configs.ConfigError(
            "data: has VQA rows, which are answered in words and have no mask to learn or to be paid for; "
            "only sft/warm_start.py trains on them."
        )
    check_samples(samples, "data", section["on_error"])
    return Opened(samples, section["on_error"])


def check_samples(samples: Sequence[Sample], where: str, on_error: Literal["raise", "skip"] = "raise") -> None:
    """`segmentation.data.check`, of a section. Raises ConfigError, with what is wrong and how to go on without it."""
    try:
        check(samples, on_error=on_error)
    except BrokenData as error:
        images = any(said in str(error) for said in ("no such file", "cannot be read"))
        skips = images and where == "data" and on_error == "raise"
        then = f"\n{where}.on_error=skip leaves out images that are missing or cannot be read." if skips else ""
        raise configs.ConfigError(f"{where}: {error}{then}") from error


def _parts(section: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Every section of a dataset inside of a mixture's, by its key."""
    found: dict[str, Any] = {}
    for kind in ("parts", "held_out"):
        for name, part in (section.get(kind) or {}).items():
            key = f"{where}.{kind}.{name}"
            found |= {key: part, **_parts(part, key)}
    return found


def make_order(section: Mapping[str, Any], samples: Opened, seed: int, shuffle: bool) -> Order:
    """The order to go through a training set in, with the share of no-target samples that the section asks for."""
    ratio = {"no_target_ratio": section.get("no_target_ratio")}
    order: dict[str, Any] = {"seed": seed, "shuffle": shuffle, "on_error": samples.on_error}
    return configs.build(Order, ratio, where="data", samples=samples.samples, **order)


def make_decoder(section: Mapping[str, Any] | None) -> Any:
    """The decoder that fills in masks, None for formats whose text has them.

    Raises:
        ConfigError: the section is of a decoder that is yet to be trained.
    """
    if section and "vision_layers" in section:
        name = str(section.get("_target_")).rpartition(".")[2]
        then = "then decoder=trained decoder.path=FOLDER/best"
        raise configs.ConfigError(f"decoder: {name} is to be trained first, by sft/train_decoder.py; {then}.")
    return configs.instantiate(section, where="decoder") if section else None


def make_rewards(section: Mapping[str, Any]) -> tuple[dict[str, Reward], list[float], list[str]]:
    """Rewards by name, their weights, and the tokens they pay: `{name: {_target_: ..., weight: 1.0, <option>: ...}}`.

    Weight 0 is logged only. Options are keyword arguments of the function, checked here and given at each call; one
    with a `_target_` of its own, or a list of such, is a function with its options.

    Raises:
        ConfigError: an option is unknown, missing, ill-typed or out of range.
    """
    rewards, weights, paid = {}, [], []
    for name, entry in section.items():
        values = configs.plain(entry)
        where = f"rewards.{name}"
        weight = values.pop("weight", None)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise configs.ConfigError(f"{where}.weight: expected a number, got {weight!r}; set {where}.weight=1.")
        weights.append(float(weight))
        paid.append(values.pop("tokens", "all"))
        if paid[-1] not in TOKENS:
            raise configs.unknown(f"value of {where}.tokens", str(paid[-1]), TOKENS)
        rewards[name] = _with_options(values, where)
        if isinstance(rewards[name], partial):  # it checks its options when it is called
            try:
                rewards[name](**_one_answer())
            except ValueError as error:
                raise configs.ConfigError(f"{where}: {error}") from error
    return rewards, weights, paid


def _one_answer() -> dict[str, list[Any]]:
    """The right answer to a picture of one object, as the trainer would give it to a reward."""
    box = (0.0, 0.0, 1.0, 1.0)
    mask = masks.from_box(box, 2, 2)
    sample = Sample("an answer made up to check options", Image.new("RGB", (2, 2)), 2, 2, "it", (Target(box, mask),))
    found = Found((Instance(box, mask, point=(0.5, 0.5)),))
    given = {"predictions": found, "samples": sample, "masks": mask, "texts": "It.", "parts": Parts("It.", found)}
    return {name: [value] for name, value in {**given, "completion_ids": [0], "completions": "", "prompts": ""}.items()}


def _with_options(values: dict[str, Any], where: str) -> Callable[..., Any]:
    """The function that `_target_`, taken out of `values`, names, its options being the rest of them."""
    target = strict.locate(values.pop("_target_"), where)
    named = [one for one in inspect.signature(target).parameters.values() if one.kind is one.KEYWORD_ONLY]
    options = {one.name: one for one in named if one.name not in COLUMNS}
    for key in values:
        if key not in options:
            raise configs.unknown("key", f"{where}.{key}", [f"{where}.{name}" for name in options])
    for key, option in options.items():
        if option.default is option.empty and key not in values:
            raise configs.ConfigError(f"{where}: {key} is missing; set {where}.{key}.")
    made = {key: _made(value, f"{where}.{key}") for key, value in strict.check(target, values, where).items()}
    return partial(target, **made) if made else target


def _made(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return [_made(item, f"{where}[{index}]") for index, item in enumerate(value)]
    return _with_options(dict(value), where) if isinstance(value, dict) and "_target_" in value else value


def make_lora(section: Mapping[str, Any] | None, **given: Any) -> LoraConfig | None:
    """LoRA on the linears of the language model, None for full fine-tuning.

    Raises:
        ConfigError: DoRA, or trained biases: what is sent to vLLM and saved is W + delta (`rollouts.plain_weights`).
    """
    if section is None:
        return None
    for key in ("use_dora", "lora_bias"):
        if section.get(key):
            raise configs.ConfigError(f"model.lora.{key}={section[key]}: not supported, remove it; use_rslora is.")
    return configs.build(
        LoraConfig, section, where="model.lora", target_modules=LANGUAGE_LINEARS, task_type="CAUSAL_LM", **given
    )

"""Objects that several entry points make from the same sections of their configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from hydra.utils import get_method
from peft import LoraConfig

import configs
from rollouts.policy import LANGUAGE_LINEARS, Processor, convention
from segmentation.data.check import Opened, check
from segmentation.data.mixture import dataset_section
from segmentation.formats import Format, Reasoning
from segmentation.sample import Sample

TOKENS = ("all", "mask", "rest")  # what a reward may pay (`rl.credit`)
Reward = Callable[..., list[float | None]]


def make_format(section: Mapping[str, Any], model_type: str, processor: Processor) -> Format:
    """The format in the policy's own frame of coordinates, unless the section names another; within thoughts if asked.

    A section without `convention` is of a format that writes no coordinates, or has a frame of its own.
    """
    values = configs.plain(section)
    thoughts = values.pop("reasoning", False)
    own = "convention" in values and values["convention"] is None
    given = {"convention": convention(model_type, processor)} if own else {}
    format = configs.instantiate(values, where="format", **given)
    return Reasoning(format) if thoughts else format


def make_samples(section: Mapping[str, Any], where: str = "data") -> Sequence[Sample]:
    """The dataset that the section names. `on_error` is no business of the dataset's, but of who opens its images."""
    return configs.instantiate(dataset_section(configs.plain(section)), where=where)


def make_training_samples(section: Mapping[str, Any]) -> Opened:
    """The dataset, looked over before any model is loaded."""
    samples = make_samples(section)
    check(samples, on_error=section["on_error"])
    return Opened(samples, section["on_error"])


def make_decoder(section: Mapping[str, Any] | None) -> Any:
    """The decoder that fills in masks, None for formats whose text has them."""
    return None if section is None else configs.instantiate(section, where="decoder")


def make_rewards(
    section: Mapping[str, Any],
) -> tuple[dict[str, Callable[..., list[float | None]]], list[float], list[str]]:
    """Rewards by name with their weights, from `{name: {_target_: ..., weight: 1.0, <keyword>: ...}}`.

    Weight 0 is logged only. Other keys are passed to the function at each call.
    """
    rewards, weights, paid = {}, [], []
    for name, entry in section.items():
        values = configs.plain(entry)
        weights.append(float(values.pop("weight")))
        paid.append(values.pop("tokens", "all"))
        if paid[-1] not in TOKENS:
            raise configs.unknown(f"value of rewards.{name}.tokens", str(paid[-1]), TOKENS)
        reward = get_method(values.pop("_target_"))
        rewards[name] = partial(reward, **values) if values else reward
    return rewards, weights, paid


def make_lora(section: Mapping[str, Any] | None, **given: Any) -> LoraConfig | None:
    """LoRA on the linears of the language model, None for full fine-tuning."""
    if section is None:
        return None
    return configs.build(
        LoraConfig, section, where="model.lora", target_modules=LANGUAGE_LINEARS, task_type="CAUSAL_LM", **given
    )

"""Answering blindly earns less than looking, at any share of no-target samples that rl/README.md states."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from hydra import compose, initialize_config_dir

import configs
from configs.entry import CONFIGS
from rollouts.sections import make_order, make_rewards, make_training_samples
from segmentation import masks
from segmentation.data.order import Order
from segmentation.data.scenes import Scenes
from segmentation.sample import Found, Instance, NoTarget, Prediction, Sample, prediction_mask

SHARES = [0.15, 0.25, 0.5, 0.7]
COUNT = 60
Policy = Callable[[Sample, int], Prediction]


@cache
def scenes() -> list[Sample]:
    """As many as any share needs of each kind."""
    return [*Scenes("val", COUNT, kinds={"none": 1.0}), *Scenes("val", COUNT, kinds={"attribute": 1.0, "plural": 0.3})]


def boxes(sample: Sample) -> Found:
    """Each object a fifth of its size to the right; where there is none, a box somewhere. Filled, as masks."""
    found = [target.box for target in sample.targets] or [(20.0, 20.0, 44.0, 44.0)]
    moved = [(x1 + (x2 - x1) / 5, y1, min(x2 + (x2 - x1) / 5, sample.width), y2) for x1, y1, x2, y2 in found]
    return Found(tuple(Instance(box, masks.from_box(box, sample.height, sample.width)) for box in moved))


def always(sample: Sample, row: int) -> Prediction:
    return NoTarget()


def never(sample: Sample, row: int) -> Prediction:
    return boxes(sample)


def looks(sample: Sample, row: int) -> Prediction:
    """As often wrong as the quickstart's warm start: of 2 in 3 without a target it says so, and of 1 in 17 others."""
    says_nothing = row % 3 > 0 if not sample.targets else row % 17 == 16
    return NoTarget() if says_nothing else boxes(sample)


def earned(policy: Policy, share: float, preset: str, tokens: tuple[str, ...]) -> float:
    """Mean weighted reward of what pays these tokens, at the weights as they are shipped."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        rewards, weights, paid = make_rewards(compose("grpo", [f"rewards={preset}"]).rewards)
    order = Order(scenes(), no_target_ratio=share)
    samples = [scenes()[index] for index in order.take(order.kinds(COUNT))]
    assert sum(not sample.targets for sample in samples) == COUNT * share
    seen = {True: 0, False: 0}
    answers = []
    for sample in samples:
        answers.append(policy(sample, seen[bool(sample.targets)]))
        seen[bool(sample.targets)] += 1
    painted = [
        prediction_mask(answer, sample.height, sample.width) for answer, sample in zip(answers, samples, strict=True)
    ]
    total = 0.0
    for (_, reward), weight, of in zip(rewards.items(), weights, paid, strict=True):
        if of in tokens:
            values = reward(predictions=answers, samples=samples, masks=painted, texts=["."] * COUNT)
            total += weight * sum(value for value in values if value is not None)
    return total / COUNT


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(
    ("preset", "tokens"),
    [("default", ("all",)), ("by_part", ("all", "rest"))],  # in by_part the rest decides what to answer
)
def test_a_policy_that_looks_earns_more_than_one_that_always_or_never_says_no_target(share, preset, tokens):
    looking = earned(looks, share, preset, tokens)
    assert looking > 1.02 * earned(always, share, preset, tokens)
    assert looking > 1.02 * earned(never, share, preset, tokens)


@pytest.mark.parametrize("share", SHARES[1:])
def test_with_the_pay_for_shapes_it_still_does(share):
    everything = ("all", "rest", "mask")
    looking = earned(looks, share, "by_part", everything)
    assert looking > max(earned(blind, share, "by_part", everything) for blind in (always, never))


def test_a_share_that_nobody_would_keep_is_refused():
    scenes = {"_target_": "segmentation.data.scenes.Scenes", "length": 40, "on_error": "raise", "no_target_ratio": 0.3}
    with pytest.raises(configs.ConfigError, match=r"^data\.no_target_ratio: .* rl/grpo\.py alone"):
        make_training_samples(scenes)  # supervised training, which draws at random
    part = {"_target_": "segmentation.data.mixture.Mixture", "parts": {"scenes": scenes}, "on_error": "raise"}
    with pytest.raises(configs.ConfigError, match=r"^data\.parts\.scenes\.no_target_ratio"):
        make_training_samples(part, ordered=True)
    samples = make_training_samples(scenes, ordered=True)
    order = make_order(scenes, samples, seed=0, shuffle=True)
    assert sum(not samples[index].targets for index in order.take(order.kinds(20))) == 6
    with pytest.raises(configs.ConfigError, match="the data have no samples without a target"):
        only = {**scenes, "kinds": {"attribute": 1.0}}
        make_order(only, make_training_samples(only, ordered=True), seed=0, shuffle=True)

"""A group: the completions of one prompt, what each reward says of them, and the advantages that follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import configs
from rollouts.answers import Answers
from rollouts.engines import Completion
from rollouts.reading import answer_ids, read_parts
from rollouts.sections import Reward
from segmentation.sample import Invalid, Prediction, Sample, prediction_mask

Advantages = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Paid:
    """What a group of `G` completions was paid.

    Args:
        rewards: `(G, F)`, NaN where a reward does not apply.
        total: `(G,)`, their weighted sum.
        of_masks, of_rest: `(G,)` advantages of the tokens of masks and of all others, NaN where there are none, or
            where no reward pays parts, and all tokens are of the rest.
        mask_tokens: `(G,)`, how many are of masks.
    """

    rewards: torch.Tensor
    total: torch.Tensor
    of_masks: torch.Tensor
    of_rest: torch.Tensor
    mask_tokens: torch.Tensor


def score(
    policy: Answers,
    sample: Sample,
    completions: Sequence[Completion],
    predictions: Sequence[Prediction],
    rewards: Mapping[str, Reward],
) -> torch.Tensor:
    """`(G, F)`: what each reward, called as rl/trainer.py calls it, says; NaN where it does not apply."""
    texts = [policy.text(one) for one in completions]
    rows = [sample] * len(texts)
    given = {
        "predictions": predictions,
        "samples": [policy.format.regions(sample)] * len(texts),
        "masks": [prediction_mask(one, sample.height, sample.width) for one in predictions],
        "texts": texts,
        "parts": [read_parts(policy.text(one), one.truncated, sample, policy.format) for one in completions],
        "completion_ids": [written(policy, one) for one in completions],
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
        "prompts": policy.chats(rows),
    }
    columns = [reward(**given) for reward in rewards.values()]
    return torch.tensor([[float("nan") if v is None else v for v in column] for column in columns]).T


def written(policy: Answers, completion: Completion) -> list[int]:
    """The tokens of a completion as training has them: with the one that ends it, unless it was cut off."""
    return [*completion.tokens] + [policy.processor.tokenizer.eos_token_id] * (not completion.truncated)


def make_advantages(
    section: Mapping[str, Any],
    policy: Answers,
    weights: Sequence[float],
    tokens: Sequence[str],
    settings: Mapping[str, Any],
) -> Advantages:
    """The function that the section names, of rewards `(G, F)`, broken `(G,)` and token ids `(G, T)` of a group.

    Args:
        weights, tokens: of each reward (`rollouts.sections.make_rewards`).
        settings: fields of `trl.GRPOConfig`.

    Raises:
        ConfigError: training would refuse these rewards, too.
    """
    tags = policy.format.mask_tags
    fixed: dict[str, Any] = {
        "weights": torch.tensor(weights),
        "paid": tokens,
        "tags": tuple(policy.processor.tokenizer.convert_tokens_to_ids(list(tags))) if tags else None,
        "scale": settings["scale_rewards"],
        "aggregation": settings["multi_objective_aggregation"],
        "level": settings["importance_sampling_level"],
    }

    def advantages(rewards: torch.Tensor, broken: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        given = {**fixed, "rewards": rewards, "broken": broken, "ids": ids}
        return configs.instantiate(section, where="advantages", **given)

    advantages(torch.zeros(2, len(weights)), torch.zeros(2).bool(), torch.zeros(2, 1).long())  # says now what cannot be
    return advantages


def pay(
    policy: Answers,
    completions: Sequence[Completion],
    predictions: Sequence[Prediction],
    rewards: torch.Tensor,
    weights: Sequence[float],
    tokens: Sequence[str],
    advantages: Advantages,
) -> Paid:
    """What a group was paid.

    Args:
        rewards: `(G, F)`, of `score`.
        weights, tokens: of each reward, as for `make_advantages`.
    """
    ids = [written(policy, one) for one in completions]
    longest = max(map(len, ids))
    padded = torch.tensor([row + [-1] * (longest - len(row)) for row in ids])  # (G, T)
    broken = torch.tensor([isinstance(one, Invalid) for one in predictions])
    said = answer_ids(padded, policy.format, policy.processor.tokenizer)
    gains, of_masks = advantages(rewards, broken, said)  # (G, T)
    there = padded >= 0
    apart = there & of_masks & (set(tokens) != {"all"})

    def one_each(chosen: torch.Tensor) -> torch.Tensor:
        return gains.masked_fill(~chosen, torch.nan).nanmean(1)  # they are all the same

    total = (rewards * torch.tensor(weights)).nansum(1)
    return Paid(rewards, total, one_each(apart), one_each(there & ~apart), apart.sum(1))

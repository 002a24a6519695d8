"""Which tokens a reward pays: a mask's tokens answer for its shape, all others for what was chosen.

A completion of bricks is a box and then some thirty tokens of a mask. When every token is paid for everything, a mask's
tokens are made likelier because the box before them was right, which they had no part in: at that length the noise
outweighs what they are told about themselves. Rewards that come before a token cannot depend on it, so leaving them out
of its advantage takes noise away and no signal (the reward-to-go of Sutton and Barto, section 13.3).

A text that breaks says nothing of its parts: its box may have been right, and so may 29 of 30 tokens of its mask. Zeros
for them would teach the box to shun what is hard to draw, and the mask the shape that is easiest to finish. Breaking is
paid by the rewards that pay all tokens, such as `format`, alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from trl.trainer.utils import nanstd


def inside(ids: Tensor, opening: int, closing: int) -> Tensor:
    """Which tokens are of a mask: those behind an opening tag, up to its closing tag, which is one of them.

    Args:
        ids: `(B, T)` token ids of completions.
        opening, closing: ids of the two tags.

    Returns:
        `(B, T)` bool. A mask that was never closed goes on to the end.
    """
    opened = (ids == opening).cumsum(1)
    closed = (ids == closing).cumsum(1)
    before = torch.zeros_like(closed)
    before[:, 1:] = closed[:, :-1]
    return (opened > before) & (ids != opening)


def pays_parts(
    paid: Sequence[str],
    masks: bool,
    scale: str,
    aggregation: str = "sum_then_normalize",
    level: str = "token",
) -> bool:
    """Whether rewards pay parts of completions, and not all tokens alike.

    Args:
        paid: as in `split_advantages`.
        masks: whether the format's texts have masks.
        scale: `trainer.scale_rewards`.
        aggregation: `trainer.multi_objective_aggregation`.
        level: `trainer.importance_sampling_level`.

    Raises:
        ValueError: they do, and the format has no masks, or a setting speaks of completions as a whole: `scale` and
            `aggregation` divide by one spread, which parts do not have, and the gradient of a sequence's ratio is the
            same for all of its tokens, whatever each is paid.
    """
    if set(paid) == {"all"}:
        return False
    met = {
        "a format with masks": masks,
        "trainer.scale_rewards=none": scale == "none",
        "trainer.multi_objective_aggregation=sum_then_normalize": aggregation == "sum_then_normalize",
        "trainer.importance_sampling_level=token": level == "token",
    }
    if not all(met.values()):
        needs = ", ".join(need for need, is_met in met.items() if not is_met)
        raise ValueError(f"rewards.*.tokens={[*paid]} need {needs}.")
    return True


def split_advantages(
    rewards: Tensor, weights: Tensor, paid: Sequence[str], group: int, broken: Tensor
) -> tuple[Tensor, Tensor]:
    """Advantages of GRPO, summed over the rewards that pay the tokens of masks, and over those that pay the rest.

    Args:
        rewards: `(B, F)`, NaN where a reward does not apply. Groups are `group` rows that follow each other.
        weights: `(F,)`.
        paid: for each reward, the tokens it pays: `all`, those of a `mask`, or the `rest`.
        broken: `(B,)` bool, completions that do not parse: rewards that pay a part do not apply to them.

    Returns:
        `(B,)` for tokens of masks, `(B,)` for the others. A reward that does not apply to a completion adds nothing to
        it, and nothing to the mean of its group.
    """
    of_a_part = torch.tensor([tokens != "all" for tokens in paid], device=rewards.device)  # (F,)
    applied = rewards.masked_fill(broken[:, None] & of_a_part, torch.nan)
    grouped = (applied * weights).view(-1, group, len(paid))  # (B / group, group, F)
    above = (grouped - grouped.nanmean(1, keepdim=True)).nan_to_num(0.0).view_as(rewards)
    to_masks = above[:, [tokens != "rest" for tokens in paid]].sum(1)
    to_rest = above[:, [tokens != "mask" for tokens in paid]].sum(1)
    return to_masks, to_rest


def group_advantages(
    rewards: Tensor,
    weights: Tensor,
    paid: Sequence[str],
    broken: Tensor,
    ids: Tensor,
    tags: tuple[int, int] | None,
    scale: str = "none",
    aggregation: str = "sum_then_normalize",
    level: str = "token",
) -> tuple[Tensor, Tensor]:
    """What training would give each token of one group, by TRL or by parts: to look at, training computes its own.

    Args:
        rewards: `(G, F)`, NaN where a reward does not apply.
        weights: `(F,)`.
        paid: as in `split_advantages`.
        broken: `(G,)` bool, completions that do not parse.
        ids: `(G, T)` token ids of the completions.
        tags: ids of the tokens around a mask, None for formats without.
        scale: `trainer.scale_rewards`: none, group or batch, which is the group here.
        aggregation: `trainer.multi_objective_aggregation`.
        level: `trainer.importance_sampling_level`.

    Returns:
        `(G, T)` advantages; `(G, T)` bool, which tokens are of a mask.

    Raises:
        ValueError: see `pays_parts`.
    """
    of_masks = inside(ids, *tags) if tags else torch.zeros_like(ids, dtype=torch.bool)
    if pays_parts(paid, tags is not None, scale, aggregation, level):
        to_masks, to_rest = split_advantages(rewards, weights, paid, len(rewards), broken)
        return torch.where(of_masks, to_masks[:, None], to_rest[:, None]), of_masks
    whole = whole_advantages(rewards, weights, len(rewards), scale, aggregation)
    return whole[:, None].expand(ids.shape), of_masks


def whole_advantages(rewards: Tensor, weights: Tensor, group: int, scale: str, aggregation: str) -> Tensor:
    """Advantages `(B,)` of completions as a whole, as TRL 1.16 makes them in the middle of its rollout.

    Args:
        rewards: `(B, F)`, NaN where a reward does not apply. Groups are `group` rows that follow each other.
        weights: `(F,)`.
        group: completions of a prompt.
        scale: `trainer.scale_rewards`: none, group or batch.
        aggregation: `trainer.multi_objective_aggregation`; normalize_then_sum is GDPO (arXiv 2601.05242).
    """
    nothing = rewards.isnan().all(1)  # unscorable: outside the mean, and nothing to learn from
    if aggregation != "sum_then_normalize":
        each = _normal(rewards.view(-1, group, rewards.shape[1]), 1).view_as(rewards)
        total = (each * weights).nansum(1).masked_fill(nothing, torch.nan)
        return _normal(total, 0).nan_to_num(0.0)
    total = (rewards * weights).nansum(1).masked_fill(nothing, torch.nan).view(-1, group)
    above = total - total.nanmean(1, keepdim=True)
    if scale == "group":
        above = _normal(total, 1)
    elif scale == "batch":
        above = above / (nanstd(total.flatten(), dim=0) + 1e-4)
    return above.nan_to_num(0.0).flatten()


def teaches(
    rewards: Tensor, weights: Tensor, paid: Sequence[str], group: int, broken: Tensor, aggregation: str
) -> Tensor:
    """Which groups have advantages other than 0: `(B / group,)` bool.

    Those whose weighted sum differs within the group; where parts are paid, that of either part; where rewards are
    normalised one by one, any of them. What differs by less than 1e-6 does so by rounding.

    Args:
        rewards, weights, paid, group, broken: as in `split_advantages`.
        aggregation: `trainer.multi_objective_aggregation`.
    """
    if set(paid) != {"all"}:
        judged = torch.stack(split_advantages(rewards, weights, paid, group, broken), 1)
    elif aggregation == "sum_then_normalize":
        judged = (rewards * weights).nansum(1).masked_fill(rewards.isnan().all(1), torch.nan)[:, None]
    else:
        judged = rewards * weights
    grouped = judged.view(-1, group, judged.shape[1])
    spread = grouped.nan_to_num(-torch.inf).amax(1) - grouped.nan_to_num(torch.inf).amin(1)  # -inf if none applies
    return (spread > 1e-6).any(1)


def _normal(values: Tensor, dim: int) -> Tensor:
    """Less their mean over a dimension, in units of their spread; 1e-4 as in TRL."""
    return (values - values.nanmean(dim, keepdim=True)) / (nanstd(values, dim=dim, keepdim=True) + 1e-4)

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


def pays_parts(paid: Sequence[str], masks: bool, scale: str) -> bool:
    """Whether rewards pay parts of completions, and not all tokens alike.

    Args:
        paid: as in `split_advantages`.
        masks: whether the format's texts have masks.
        scale: `trainer.scale_rewards`.

    Raises:
        ValueError: they do, and the format has no masks or `scale` is not none: there is no one spread for all parts.
    """
    if set(paid) == {"all"}:
        return False
    if not masks or scale != "none":
        raise ValueError(f"rewards.*.tokens={[*paid]} need a format with masks and trainer.scale_rewards=none.")
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

    Returns:
        `(G, T)` advantages; `(G, T)` bool, which tokens are of a mask.

    Raises:
        ValueError: see `pays_parts`.
    """
    of_masks = inside(ids, *tags) if tags else torch.zeros_like(ids, dtype=torch.bool)
    if pays_parts(paid, tags is not None, scale):
        to_masks, to_rest = split_advantages(rewards, weights, paid, len(rewards), broken)
        return torch.where(of_masks, to_masks[:, None], to_rest[:, None]), of_masks
    nothing = rewards.isnan().all(1)  # unscorable: outside the mean, and nothing to learn from
    each = rewards if aggregation == "sum_then_normalize" else _normal(rewards)
    total = (each * weights).nansum(1).masked_fill(nothing, torch.nan)
    scaled = scale != "none" or aggregation != "sum_then_normalize"
    above = _normal(total) if scaled else total - total.nanmean()
    return above.nan_to_num(0.0)[:, None].expand(ids.shape), of_masks


def _normal(values: Tensor) -> Tensor:
    """Less their mean over the group, the first axis, in units of their spread; 1e-4 as in TRL."""
    return (values - values.nanmean(0)) / (nanstd(values, dim=0) + 1e-4)

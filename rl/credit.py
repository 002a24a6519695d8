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

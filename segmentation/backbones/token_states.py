"""States of segmentation tokens: what a policy thought when it wrote `[SEG]`."""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def token_states(
    states: Tensor, input_ids: Tensor, token_id: int, at: Literal["predicting", "itself"] = "predicting"
) -> list[Tensor]:
    """The state of every `token_id` in each row, `(n, D)` a row in the order of the text; n may be 0.

    Args:
        states: `(B, L, D)` last hidden states (`Recording.states`).
        input_ids: `(B, L)`, padded on any side. Every occurrence counts, also in the prompt: mask what is not meant,
            as `input_ids.masked_fill(prompt, -1)`.
        token_id: of the segmentation token.
        at: "predicting" takes the position before the token, whose state chose it (LISA, MLLMSeg, SELF1E): it is there
            before the token is read, so a policy that samples needs no further step. "itself" takes the token's own.
    """
    found = input_ids == token_id
    if at == "predicting":
        states, found = states[:, :-1], found[:, 1:]
    return [row[where] for row, where in zip(states, found, strict=True)]

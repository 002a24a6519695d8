"""A NaN or infinite number ends the run, with the ids of the samples it came from, before it reaches the weights.

TRL 1.16 and transformers 5.17 go on: a NaN reward counts as one that does not apply, a NaN loss is left out of the log
(`logging_nan_inf_filter`) and its gradient is applied.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

NAMED = 8  # samples that a message names


class NotFinite(RuntimeError):
    """A reward, loss, gradient or logit is NaN or infinite."""


def stop_together(problems: Sequence[str]) -> None:
    """Raise NotFinite on every process if one has a problem: all take part in the checkpoint that follows."""
    everyones: list[str] = gather_object(list(problems))
    if everyones:
        raise NotFinite(" ".join(everyones[:NAMED]))


def of_reward(name: str, values: Sequence[float | None], ids: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Problems of one reward's values; None says that it does not apply and is none."""
    return [
        f"rewards.{name} is {value} for sample {id}, whose completion is {text[:200]!r}."
        for value, id, text in zip(values, ids, texts, strict=True)
        if value is not None and not math.isfinite(value)
    ]


def of_rows(values: Mapping[str, Any], ids: Sequence[str]) -> list[str]:
    """Problems of tensors `(B, ...)` whose row `i` belongs to sample `ids[i]`; what is not there is skipped."""
    found = {name: ~tensor.isfinite().flatten(1).all(1) for name, tensor in values.items() if tensor is not None}
    return [f"{name}: not finite for {_named(bad, ids)}." for name, bad in found.items() if bad.any()]


def of_loss(loss: Tensor, logps: Tensor, ids: Sequence[str]) -> list[str]:
    """The problem of a loss over samples `ids`, whose log-probabilities `(B, T)` say which of them it came from."""
    if loss.isfinite().all():
        return []
    bad = ~logps.isfinite().all(1)
    source = f"the logits are not finite for {_named(bad, ids)}" if bad.any() else f"samples {_listed(ids)}"
    return [f"the loss is {loss.item()}: {source}."]


def of_gradient(norm: float, ids: Sequence[str]) -> list[str]:
    """The problem of a gradient over samples `ids`."""
    return [] if math.isfinite(norm) else [f"the gradient's norm is {norm}: samples {_listed(ids)}."]


@contextmanager
def watch_logits(head: nn.Module) -> Iterator[list[Tensor]]:
    """Gather, for every token that is generated, in which rows `head` makes a logit that is not finite: `(B,)` bool.

    Such logits become 0: sampling from them would end in an error of torch that names nothing, and on CUDA in one that
    leaves no way to save anything.
    """
    seen: list[Tensor] = []

    def look(_module: nn.Module, _inputs: Any, logits: Tensor) -> Tensor | None:
        bad = ~logits.flatten(1).sum(1, dtype=torch.float32).isfinite()  # one pass; a sum of finite logits is finite
        seen.append(bad)
        return logits.nan_to_num(0.0, 0.0, 0.0) if bad.any() else None

    handle = head.register_forward_hook(look)
    try:
        yield seen
    finally:
        handle.remove()


def of_generation(seen: Sequence[Tensor], ids: Sequence[str]) -> list[str]:
    """Problems of what `watch_logits` saw while completions of samples `ids` were generated, row by row."""
    bad = torch.stack([*seen]).any(0)  # (B,)
    return [f"a logit was not finite while generating for {_named(bad, ids)}."] if bad.any() else []


def _named(bad: Tensor, ids: Sequence[str]) -> str:
    chosen = [id for id, is_bad in zip(ids, bad.tolist(), strict=True) if is_bad]
    return f"samples {_listed(chosen)}"


def _listed(ids: Sequence[str]) -> str:
    different = list(dict.fromkeys(ids))
    more = f" and {len(different) - NAMED} more" if len(different) > NAMED else ""
    return ", ".join(different[:NAMED]) + more

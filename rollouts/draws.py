"""Which completion is drawn does not depend on who draws it: every row has random numbers of its own.

TRL (1.16) gives each process a seed of its own, and one stream of random numbers serves all its rows. The same prompts
would get other answers on one GPU than on eight, and a run could be repeated only on as many. Here a row's numbers come
from the run's seed, the step and the row's place in the batch of all processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

from rollouts.policy import Model
from segmentation.backbones import unwrap


class Draws:
    """Seeds of batches: row `i` of all processes' rows is drawn with the batch's seed plus `i`.

    A resumed run draws what an uninterrupted one would have: nothing is counted but batches within one step.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._last: tuple[int, bool] | None = None
        self._batches = 0

    def next(self, step: int, training: bool) -> int:
        """The seed of the next batch, in 0..2^62; every process must ask for the same ones."""
        self._batches = self._batches + 1 if self._last == (step, training) else 0
        self._last = step, training
        words = np.random.SeedSequence([self.seed, step, training, self._batches])
        return int(words.generate_state(1, np.uint64)[0] >> np.uint64(2))


class _OwnNumbers(LogitsProcessor):
    """Leaves each row one token: the first at which what is likely so far exceeds the row's next number in 0..1."""

    BLOCK = 64  # tokens whose numbers are drawn at once

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._left: list[Any] = []  # (B,) each

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if not self._left:
            each = [torch.rand(self.BLOCK, generator=one, dtype=torch.float64) for one in self.generators]
            self._left = [*torch.stack(each, 1).to(scores.device)]
        so_far = scores.softmax(-1).cumsum(-1, dtype=torch.float64)  # (B, V), flat where a token may not be chosen
        number = self._left.pop(0)[:, None] * so_far[:, -1:]
        drawn = torch.searchsorted(so_far, number, right=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


@contextmanager
def rows_draw_alone(model: Model, seeds: Sequence[int]) -> Iterator[None]:
    """While open, `model.generate(do_sample=True)` draws row `i` with the numbers of `seeds[i]`.

    transformers 5.17 runs the processors it is given before temperature and top_p, and TRL gives it none: what is to
    come last is put behind those it makes. Can go when `generate` takes a generator for each row.
    """
    inner = unwrap(model)
    make = inner._get_logits_processor

    def with_draws(generation_config: Any, **kwargs: Any) -> Any:
        processors = make(generation_config=generation_config, **kwargs)
        if generation_config.do_sample:
            processors.append(_OwnNumbers(seeds))
        return processors

    inner._get_logits_processor = with_draws
    try:
        yield
    finally:
        del inner._get_logits_processor

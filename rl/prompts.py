"""The prompts of a run: dealt one batch after another, in an order that a checkpoint remembers.

TRL's sampler (1.16) reads rows at each step, the same ones again for every step that uses their completions, leaves out
what does not fill a batch at the end of an epoch, and when a later epoch is resumed goes through the first one's order.
So it is given tickets, which cost nothing and say how many rows are due, and rows are dealt here, when generating.
More can be dealt at any time (`rl.dynamic_sampling`), and no prompt comes again before all others have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from segmentation.data.order import Kind, Order

TICKET = "ticket"


def tickets(rows: int, batch: int) -> Dataset:
    """What TRL's sampler goes through: a ticket a row, and as many more as fill the last batch of prompts."""
    return Dataset.from_dict({TICKET: range(-(-rows // batch) * batch)})


class Prompts(TrainerCallback, ExportableState):
    """Deals rows to the processes of a run, `group` times each. Every process deals the same, and keeps its own share.

    Args:
        rows: of the dataset (`rollouts.rows.prompt_rows`).
        order: of the same dataset.
        group: completions of a prompt.
        processes, number: how many there are, and which this is.
        used_up: whether all completions of the last batch have been trained on, asked after each update. While they
            have not, a checkpoint holds the place before that batch: completions are not saved, and its prompts are
            answered again. So are those of every batch after the last update, when a run is stopped within a step.
    """

    def __init__(
        self, rows: Dataset, order: Order, group: int, processes: int, number: int, used_up: Callable[[], bool]
    ) -> None:
        self.rows, self.order, self.group = rows, order, group
        self.processes, self.number, self.used_up = processes, number, used_up
        self._before = self._place = order.state()

    def begin(self, count: int) -> list[Kind]:
        """The kinds of the `count` prompts of the next batch, of all processes together."""
        self._before = self.order.state()
        return self.order.kinds(count)

    def deal(self, kinds: Sequence[Kind]) -> list[dict[str, Any]]:
        """The next rows of these kinds, repeated for their completions: this process's share of them.

        The share is what TRL's loader gives it: rows that follow each other. A group may lie on two processes.
        """
        indices = [index for index in self.order.take(kinds) for _ in range(self.group)]
        share = len(indices) // self.processes
        columns = self.rows[indices[self.number * share : (self.number + 1) * share]]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def state(self) -> dict[str, Any]:
        """For `trainer_state.json`, as transformers wants it."""
        return {"args": {}, "attributes": self._place}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Remember where a checkpoint of this step is to go on from."""
        self._place = self.order.state() if self.used_up() else self._before

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Go on from the place that a checkpoint holds. Raises ValueError if it holds none."""
        callbacks: Any = state.stateful_callbacks  # by class name, once the run has begun
        saved = callbacks.get(type(self).__name__)
        if saved is None:
            raise ValueError(
                f"the checkpoint of step {state.global_step} does not say which prompts were used: its "
                f"trainer_state.json has no {type(self).__name__}. Start anew from its policy, in another output_dir."
            )
        self.order.restore(saved["attributes"])
        self._before = self._place = self.order.state()

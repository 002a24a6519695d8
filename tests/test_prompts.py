"""Prompts are dealt to all processes: none twice, none left out, and a group never mixed with another."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from trl.trainer.utils import RepeatSampler

from rl.prompts import TICKET, Prompts, tickets
from segmentation.data.order import Order

GROUP = 4


def deal(rows: int, processes: int, at_once: int, batches: int, state: dict | None = None) -> list[list[str]]:
    """Ids of the rows of each batch, as the processes get them one after another."""
    dataset = Dataset.from_dict({"id": [str(i) for i in range(rows)]})
    dealers = [
        Prompts(dataset, Order(range(rows), seed=5), GROUP, processes, number, lambda: True)
        for number in range(processes)
    ]
    made = []
    for dealer in dealers:
        if state:
            dealer.on_train_begin(*_begin(state))
    for _ in range(batches):
        made.append([row["id"] for dealer in dealers for row in dealer.deal(dealer.begin(at_once))])
        for dealer in dealers:
            _step_end(dealer)
    assert len({str(dealer.state()) for dealer in dealers}) == 1
    if state is not None:
        state.update(dealers[0].state())
    return made


def _begin(saved: dict) -> tuple[Any, Any, Any]:
    return None, SimpleNamespace(stateful_callbacks={"Prompts": saved}, global_step=1), None


def _step_end(prompts: Prompts) -> None:
    prompts.on_step_end(*_begin({}))


@pytest.mark.parametrize(("processes", "at_once"), [(1, 6), (2, 6), (3, 6), (2, 3), (8, 6)])  # (2, 3): a group on both
def test_every_process_gets_its_share_of_the_same_batch(processes, at_once):
    alone = deal(20, 1, at_once, 5)
    assert deal(20, processes, at_once, 5) == alone
    for batch in alone:
        assert len(batch) == at_once * GROUP
        assert all(len(set(batch[start : start + GROUP])) == 1 for start in range(0, len(batch), GROUP))


@pytest.mark.parametrize(("rows", "processes"), [(20, 1), (20, 2), (23, 2), (4, 2)])
def test_no_sample_is_dropped_or_comes_twice_in_an_epoch(rows, processes):
    at_once = 6
    epochs = 6  # as many prompts as there are, six times
    row = [id for batch in deal(rows, processes, at_once, rows) for id in batch[::GROUP]]
    assert len(row) == epochs * rows
    for start in range(0, len(row), rows):
        assert Counter(row[start : start + rows]) == Counter(str(i) for i in range(rows))


def test_tickets_last_for_all_prompts_while_trl_leaves_out_the_rest():
    assert len(tickets(20, 6)) == 24 and len(tickets(24, 6)) == 24 and len(tickets(4, 6)) == 6
    assert tickets(20, 6).column_names == [TICKET]
    assert len(RepeatSampler(range(20), mini_repeat_count=1, batch_size=6)) == 18  # type: ignore[arg-type]
    assert len(RepeatSampler(tickets(20, 6), mini_repeat_count=1, batch_size=6)) == 24


def test_what_follows_a_checkpoint_is_what_would_have_followed():
    whole, state = deal(20, 2, 6, 9), {}
    assert deal(20, 2, 6, 4, state) == whole[:4]
    assert deal(20, 2, 6, 5, state) == whole[4:]  # into the second pass


def test_completions_that_were_not_used_up_are_written_again():
    unfinished = Prompts(Dataset.from_dict({"id": [*range(20)]}), Order(range(20)), 1, 1, 0, used_up=lambda: False)
    first = unfinished.deal(unfinished.begin(6))
    _step_end(unfinished)
    resumed = Prompts(unfinished.rows, Order(range(20)), 1, 1, 0, used_up=lambda: True)
    resumed.on_train_begin(*_begin(unfinished.state()))
    assert resumed.deal(resumed.begin(6)) == first


def test_a_run_stopped_within_a_step_answers_the_batches_of_that_step_again():
    stopped = Prompts(Dataset.from_dict({"id": [*range(20)]}), Order(range(20)), 1, 1, 0, used_up=lambda: True)
    stopped.deal(stopped.begin(4))
    _step_end(stopped)
    lost = [stopped.deal(stopped.begin(4)) for _ in range(2)]  # two batches of one update, the second not scored
    resumed = Prompts(stopped.rows, Order(range(20)), 1, 1, 0, used_up=lambda: True)
    resumed.on_train_begin(*_begin(stopped.state()))
    assert [resumed.deal(resumed.begin(4)) for _ in range(2)] == lost


def test_without_a_place_to_go_on_from_a_checkpoint_is_refused():
    prompts = Prompts(Dataset.from_dict({"id": [1]}), Order(range(1)), 1, 1, 0, used_up=lambda: True)
    with pytest.raises(ValueError, match="step 3 does not say which prompts were used"):
        prompts.on_train_begin(None, SimpleNamespace(stateful_callbacks={}, global_step=3), None)  # type: ignore[arg-type]

"""Dynamic sampling: groups that were all paid alike teach nothing, and make room for fresh prompts (DAPO).

DAPO (arXiv 2503.14476, section 3.2) samples until the batch is full of groups whose rewards differ. Here, too, the
replacements are the next prompts of the run, never the same ones again; but no more are asked for than there are places
to fill, and after `rounds` of that what is left stays as it is, so that data that are solved cannot stop a run.

Each process fills its own places, so that nothing but rewards travels between them. All ask for as many prompts as the
one that lacks most, which it takes to keep them in step, and which costs the others no time: they would wait. What a
process has left over in the end is dropped, as in DAPO.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from trl import GRPOConfig
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from segmentation.data.order import Kind

COMPLETION = (
    "completion_ids",
    "completion_mask",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
    "importance_sampling_ratio",
)
BOTH = ("token_type_ids", "mm_token_type_ids")  # of the prompt, and of the completion behind it


@dataclass(frozen=True, slots=True)
class Scored:
    """Completions and what they earned.

    Args:
        output: of this process, as `GRPOTrainer._generate_and_score_completions` makes it.
        rewards: `(B, F)` of all processes, NaN where a reward does not apply.
        broken: `(B,)` bool of all processes, completions that do not parse.
    """

    output: dict[str, Any]
    rewards: Tensor
    broken: Tensor


@dataclass(frozen=True, slots=True)
class Counts:
    """What a batch took.

    Args:
        kept: share of the first groups that teach something.
        rounds: of resampling.
        extra: completions beyond the batch's own, of all processes.
        filled: share of the groups of the final batch that teach something.
    """

    kept: float
    rounds: int
    extra: int
    filled: float


def check_rounds(rounds: int, args: GRPOConfig) -> int:
    """The rounds, if they can be run. Raises ValueError for fewer than 0, or where groups lie on two processes."""
    if rounds < 0:
        raise ValueError(f"dynamic_sampling.rounds={rounds}: give 0 for none, or how often to try.")
    assert args.steps_per_generation and args.num_generations  # GRPOConfig works them out
    share = args.per_device_train_batch_size * args.steps_per_generation
    if rounds and share % args.num_generations:
        raise ValueError(
            f"dynamic_sampling.rounds={rounds}: a process writes {share} completions at once (trainer."
            "per_device_train_batch_size x steps_per_generation), which must be whole groups of trainer."
            f"num_generations={args.num_generations}."
        )
    return rounds


def fill(
    kinds: Sequence[Kind],
    rounds: int,
    processes: int,
    number: int,
    group: int,
    answer: Callable[[Sequence[Kind], bool], Scored],
    teaches: Callable[[Scored], Tensor],
    padding: int,
) -> tuple[Scored, Counts]:
    """A batch of groups that teach something, as far as `rounds` of resampling find them.

    Args:
        kinds: of the batch's prompts, of all processes, which have equal shares in it, one after another. A group is
            replaced by one of its own kind, so that the share of no-target samples stays.
        rounds: at most; 0 for none.
        processes, number: how many there are, and which this is.
        group: completions of a prompt.
        answer: completions to fresh prompts of these kinds, one share for each process, and whether they are to replace
            others; called by all processes in step.
        teaches: which groups of all processes do, `(groups,)` bool.
        padding: token id.

    Returns:
        The batch, with `num_items_in_batch` and `advantages` still those of the first round if anything was replaced;
        and what it took.
    """
    rounds_of = [answer(kinds, False)]
    good = [teaches(rounds_of[0]).tolist()]
    share = len(kinds) // processes
    places = [(0, place) for place in range(len(kinds))]  # where the group in each place is from: round, number there
    for round_ in range(1, rounds + 1):
        bare = [[p for p in _share(share, one) if not good[places[p][0]][places[p][1]]] for one in range(processes)]
        most = max(map(len, bare))
        if not most:
            break
        # A process with fewer places to fill than another tries more than once for each; one with none, for nothing.
        tried = [_cycled(bare[one] or _share(share, one), most) for one in range(processes)]
        asked = [kinds[place] for own in tried for place in own]
        rounds_of.append(answer(asked, True))
        good.append(teaches(rounds_of[-1]).tolist())
        for found, kind in enumerate(asked):
            if good[-1][found]:
                free = bare[found // most]
                fitting = next((place for place in free if kinds[place] == kind), None)
                if fitting is not None:
                    free.remove(fitting)
                    places[fitting] = round_, found
    counts = Counts(
        kept=sum(good[0]) / len(kinds),
        rounds=len(rounds_of) - 1,
        extra=sum(len(one.rewards) for one in rounds_of[1:]),
        filled=sum(good[round_][found] for round_, found in places) / len(kinds),
    )
    if all(round_ == 0 for round_, _ in places):
        return rounds_of[0], counts
    rows = []
    for round_, found in places[share * number : share * (number + 1)]:
        first = found * group - len(rounds_of[round_].rewards) // processes * number  # among those made here
        rows += [(round_, first + row) for row in range(group)]
    merged = Scored(
        merge([one.output for one in rounds_of], rows, padding),
        torch.cat([rounds_of[round_].rewards[found * group : (found + 1) * group] for round_, found in places]),
        torch.cat([rounds_of[round_].broken[found * group : (found + 1) * group] for round_, found in places]),
    )
    return merged, counts


def _share(share: int, number: int) -> list[int]:
    return list(range(share * number, share * (number + 1)))


def _cycled(values: Sequence[int], count: int) -> list[int]:
    return [values[i % len(values)] for i in range(count)]


def merge(outputs: Sequence[Mapping[str, Any]], rows: Sequence[tuple[int, int]], padding: int) -> dict[str, Any]:
    """One output of rows out of several, which are padded to different lengths.

    Args:
        outputs: of `GRPOTrainer._generate_and_score_completions`.
        rows: of the result: which output, and which row of it.
        padding: token id.
    """
    prompts = max(output["prompt_ids"].shape[1] for output in outputs)
    completions = max(output["completion_ids"].shape[1] for output in outputs)
    widened = []
    tiled = any("num_tiles" in output for output in outputs)
    for output in outputs:
        if tiled and "num_tiles" not in output:  # TRL leaves it out where every picture is one tile
            output = {**output, "num_tiles": list(output["num_images"])}
        before = prompts - output["prompt_ids"].shape[1]
        behind = completions - output["completion_ids"].shape[1]
        wide = dict(split_pixel_values_by_grid(dict(output)))
        for key, value in output.items():
            filler = padding if key.endswith("_ids") and key not in BOTH else float(key == "importance_sampling_ratio")
            if key in ("prompt_ids", "prompt_mask"):
                wide[key] = pad(value, (before, 0), value=filler)
            elif key in COMPLETION and value.shape[1] == output["completion_ids"].shape[1]:  # or 1, of whole sequences
                wide[key] = pad(value, (0, behind), value=filler)
            elif key in BOTH:
                wide[key] = pad(value, (before, behind), value=0)
        widened.append(wide)
    merged: dict[str, Any] = {}
    for key, value in widened[0].items():
        if isinstance(value, Tensor) and value.ndim == 0:
            merged[key] = value
            continue
        chosen = [widened[output][key][row] for output, row in rows]
        merged[key] = torch.stack(chosen) if isinstance(value, Tensor) else chosen
    return unsplit_pixel_values_by_grid(merged)

"""Dynamic sampling: what teaches nothing makes room, a batch stays a batch, and a run can be resumed."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from trl import GRPOConfig

from rl.credit import teaches, whole_advantages
from rl.dynamic_sampling import Counts, Scored, check_rounds, fill, merge
from rl.trainer import SegGRPOTrainer
from rollouts.policy import load_model, load_processor
from segmentation.backbones import make_backbone
from segmentation.data.scenes import Scenes
from segmentation.decoders import BoxGuidedDecoder
from tests.grpo_trainer import LOTTERY, make_trainer
from tests.runs import BASE, QUICK_GRPO, ROOT, history, launch
from tests.test_painter import SMALL

GROUP, PAD = 2, 99
NAN = float("nan")


def simulate(
    good: Sequence[Sequence[int]], kinds: Sequence[bool | None], processes: int, rounds: int
) -> tuple[list[Scored], Counts, list[list[bool | None]]]:
    """`fill` as each process runs it, `good[r]` being which groups of round r teach; row ids are 100 r + row."""
    made, asked, counts = [], [], Counts(0, 0, 0, 0)
    for number in range(processes):
        asked = []

        def answer(wanted: Sequence[bool | None], again: bool, number: int = number, asked: list = asked) -> Scored:
            assert again == bool(asked)
            round_ = len(asked)
            asked.append(list(wanted))
            ids = torch.arange(len(wanted) * GROUP) + 100 * round_
            share = len(ids) // processes
            own = ids[number * share :][:share, None].expand(share, 3 + round_)  # longer each round
            mask = torch.ones_like(own)
            output = {"prompt_ids": own, "prompt_mask": mask, "completion_ids": own, "completion_mask": mask}
            spread = torch.tensor(good[round_]).repeat_interleave(GROUP) * (ids % GROUP)
            return Scored(output, torch.stack([ids, spread], 1).float(), ids % 2 == 0)

        def judged(scored: Scored) -> Tensor:
            return scored.rewards[:, 1].view(-1, GROUP).amax(1) > 0

        scored, counts = fill(kinds, rounds, processes, number, GROUP, answer, judged, PAD)
        made.append(scored)
    return made, counts, asked


def groups(scored: Scored) -> list[int]:
    """The first row's id of each group of this process."""
    return scored.output["prompt_ids"][::GROUP, -1].tolist()


def test_what_teaches_nothing_is_replaced_in_its_place_by_the_process_that_had_it():
    good = [[1, 0, 0, 1, 1, 1], [1, 0, 1, 1], [1, 0]]
    (one, two), counts, asked = simulate(good, [None] * 6, processes=2, rounds=3)
    assert [len(kinds) for kinds in asked] == [6, 4, 2]  # two places in the first process, so two tries in each
    assert groups(one) == [0, 100, 200]
    assert groups(two) == [6, 8, 10]  # what it tried for nothing is dropped
    assert counts == Counts(kept=4 / 6, rounds=2, extra=12, filled=1.0)
    assert one.rewards[:, 0].tolist() == [0, 1, 100, 101, 200, 201, 6, 7, 8, 9, 10, 11]  # of all processes, in order
    assert torch.equal(one.rewards, two.rewards) and torch.equal(one.broken, two.broken)
    assert {scored.output["prompt_ids"].shape for scored in (one, two)} == {(6, 5)}


def test_rounds_end_with_the_limit_and_what_is_left_stays():
    never = [[0, 1], [0], [0], [0]]
    (scored,), counts, asked = simulate(never, [None] * 2, processes=1, rounds=3)
    assert len(asked) == 4 and groups(scored) == [0, 2]
    assert counts == Counts(kept=0.5, rounds=3, extra=6, filled=0.5)
    (scored,), counts, asked = simulate([[0, 0]], [None] * 2, processes=1, rounds=0)
    assert len(asked) == 1 and counts == Counts(0.0, 0, 0, 0.0)


def test_a_group_makes_room_for_one_of_its_kind():
    kinds = [True, False, False, True]
    (one, two), _, asked = simulate([[0, 1, 0, 0], [1, 1, 1, 0], [1, 1]], kinds, processes=2, rounds=2)
    assert asked[1] == [True, True, False, True]  # the first has one place to fill and tries twice
    assert groups(one) == [100, 2] and groups(two) == [104, 202]
    assert asked[2] == [True, True]


def test_rows_of_different_lengths_are_padded_as_trl_does():
    def output(rows: int, prompt: int, completion: int, value: int) -> dict:
        ids = torch.full((rows, completion), value)
        return {
            "prompt_ids": torch.full((rows, prompt), value),
            "prompt_mask": torch.ones(rows, prompt, dtype=torch.long),
            "completion_ids": ids,
            "completion_mask": torch.ones_like(ids),
            "old_per_token_logps": ids.float(),
            "importance_sampling_ratio": ids.float(),
            "mm_token_type_ids": torch.cat([torch.ones(rows, prompt), torch.zeros(rows, completion)], 1).long(),
            "pixel_values": torch.full((rows * 4, 2), float(value)),
            "image_grid_thw": torch.tensor([[1, 2, 2]] * rows),
            "num_images": [1] * rows,
            "num_items_in_batch": torch.tensor(rows * completion),
            "advantages": torch.zeros(rows),
        }

    merged = merge([output(2, 2, 3, 1), output(3, 4, 1, 2)], [(1, 2), (0, 1)], PAD)
    assert merged["prompt_ids"].tolist() == [[2, 2, 2, 2], [PAD, PAD, 1, 1]]
    assert merged["prompt_mask"].tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert merged["completion_ids"].tolist() == [[2, PAD, PAD], [1, 1, 1]]
    assert merged["completion_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert merged["old_per_token_logps"].tolist() == [[2, 0, 0], [1, 1, 1]]
    assert merged["importance_sampling_ratio"].tolist() == [[2, 1, 1], [1, 1, 1]]  # a ratio of nothing is 1
    assert merged["mm_token_type_ids"].tolist() == [[1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0]]
    assert merged["pixel_values"].tolist() == [[2.0, 2.0]] * 4 + [[1.0, 1.0]] * 4
    assert merged["image_grid_thw"].tolist() == [[1, 2, 2]] * 2
    assert merged["num_images"] == [1, 1]
    sequence = [
        dict(one, importance_sampling_ratio=torch.ones(len(one["prompt_ids"]), 1)) for one in (output(1, 1, 2, 1),) * 2
    ]
    assert merge(sequence, [(0, 0), (1, 0)], PAD)["importance_sampling_ratio"].shape == (2, 1)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_rounds_with_and_without_tiled_pictures_join(order):
    def output(tiles: list[int], told: bool) -> dict:
        rows = len(tiles)
        pixels = torch.tensor([[10.0 * rows + row] for row, count in enumerate(tiles) for _ in range(count)])
        ids = torch.ones(rows, 2, dtype=torch.long)
        given = {"prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": ids}
        given |= {"pixel_values": pixels, "num_images": [1] * rows}
        return {**given, "num_tiles": tiles} if told else given  # TRL tells where a picture has several

    outputs = [output([5, 3], True), output([1, 1, 1], False)]
    merged = merge([outputs[which] for which in order], [(order.index(0), 1), (order.index(1), 2)], PAD)
    assert merged["num_tiles"] == [3, 1]
    assert merged["pixel_values"].tolist() == [[21.0]] * 3 + [[32.0]]


@pytest.mark.parametrize(
    ("rewards", "paid", "aggregation", "expected"),
    [
        ([[1, 0.5], [1, 0.5]], ["all", "all"], "sum_then_normalize", False),
        ([[1, 0.5], [1, 0.6]], ["all", "all"], "sum_then_normalize", True),
        ([[1, 0.0], [0, 0.5]], ["all", "all"], "sum_then_normalize", False),  # 1 x 1 = 2 x 0.5
        ([[1, 0.0], [0, 0.5]], ["all", "all"], "normalize_then_sum", True),  # each reward by itself
        ([[1, 0.0], [0, 0.5]], ["rest", "mask"], "sum_then_normalize", True),  # each part by itself
        ([[1, 0.5], [1, 0.5]], ["rest", "mask"], "sum_then_normalize", False),
        ([[1, NAN], [1, 0.0]], ["all", "all"], "sum_then_normalize", False),
        (
            [[NAN, NAN], [1, 0.5]],
            ["all", "all"],
            "sum_then_normalize",
            False,
        ),  # one that cannot be scored is no difference
        ([[1, 0.3], [1, 0.3 + 1e-8]], ["all", "all"], "sum_then_normalize", False),
    ],
)
def test_a_group_teaches_if_some_token_has_an_advantage(rewards, paid, aggregation, expected):
    given = torch.tensor(rewards)
    weights, whole = torch.tensor([1.0, 2.0]), torch.zeros(2).bool()
    assert teaches(given, weights, paid, 2, whole, aggregation).tolist() == [expected]
    if set(paid) == {"all"}:
        for scale in ("none", "group", "batch"):
            advantages = whole_advantages(given, weights, 2, scale, aggregation)
            assert bool((advantages.abs() > 1e-4).any()) == expected


def test_a_broken_text_and_a_reward_that_is_only_logged_make_no_difference():
    given = torch.tensor([[1.0, 0.0], [1.0, 0.9]])
    assert not teaches(given, torch.tensor([1.0, 0.0]), ["all"] * 2, 2, torch.zeros(2).bool(), "sum_then_normalize")
    broken = torch.tensor([True, False])
    assert not teaches(given, torch.ones(2), ["all", "rest"], 2, broken, "sum_then_normalize")


def test_groups_on_two_processes_are_refused(tmp_path):
    arguments = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    whole = GRPOConfig(**arguments, per_device_train_batch_size=4, steps_per_generation=2, num_generations=8)
    assert check_rounds(3, whole) == 3
    whole.per_device_train_batch_size = 2  # as on two processes
    with pytest.raises(ValueError, match=r"writes 4 completions at once .*num_generations=8"):
        check_rounds(3, whole)
    assert check_rounds(0, whole) == 0
    with pytest.raises(ValueError, match="rounds=-1"):
        check_rounds(-1, whole)


# With the real trainer: the base model, whose answers are all invalid, paid by chance and for every other scene only.
SAMPLES = Scenes("val", 48)[:]
HALF = ["+rewards.half={_target_: tests.runs.half, weight: 1.0}", "dynamic_sampling.rounds=3"]


class Watched(SegGRPOTrainer):
    """Keeps what each round was asked, and each batch."""

    def __init__(self, *args, **kwargs) -> None:
        self.asked: list[list[str]] = []
        self.batches: list[dict] = []
        super().__init__(*args, **kwargs)

    def _score(self, rows: list[dict]) -> Scored:
        self.asked.append([row["sample"].id for row in rows])
        return super()._score(rows)

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        self.batches.append(super()._generate_and_score_completions(inputs))
        return self.batches[-1]


def run(folder: Path, *overrides: str, checkpoint: Path | None = None, steps: int = 4) -> Watched:
    fixed = [
        *HALF,
        f"trainer.max_steps={steps}",
        "trainer.save_strategy=steps",
        "trainer.save_steps=1",
        "trainer.save_total_limit=null",
    ]
    trainer = make_trainer(folder, SAMPLES, *fixed, *overrides, kind=Watched, checkpoint=checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    assert isinstance(trainer, Watched)
    return trainer


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watched]:
    """Four updates on two batches, a checkpoint after each."""
    folder = tmp_path_factory.mktemp("sampling")
    return folder, run(folder)


def test_a_batch_keeps_its_size_and_teaches_all_over(uninterrupted):
    _, trainer = uninterrupted
    assert len(trainer.batches) == 2 < len(trainer.asked)  # two updates on each
    for batch in trainer.batches:
        assert {len(batch[key]) for key in ("prompt_ids", "completion_ids", "advantages", "num_images")} == {8}
        assert (batch["advantages"].view(-1, 4).abs().amax(1) > 0).all()
        assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
        assert batch["old_per_token_logps"].shape == batch["completion_ids"].shape
    fresh = [id for rows in trainer.asked for id in rows[::4]]
    assert len(set(fresh)) == len(fresh)  # none was asked twice
    logged = [line for line in trainer.state.log_history if "dynamic_sampling/kept" in line]
    assert [line["dynamic_sampling/filled"] for line in logged] == [1.0, 1.0]
    assert sum(line["dynamic_sampling/extra"] for line in logged) == sum(map(len, trainer.asked)) - 16
    assert sum(line["dynamic_sampling/rounds"] for line in logged) == len(trainer.asked) - 2
    assert all(line["frac_reward_zero_std"] == 1 - line["dynamic_sampling/kept"] for line in logged)
    losses = [line for line in trainer.state.log_history if "loss" in line]
    assert len(losses) == 4 and all(line["grad_norm"] > 0 for line in losses)


@pytest.mark.parametrize("step", [2, 3], ids=["between batches", "within one"])
def test_a_resumed_run_asks_the_same_and_ends_the_same(uninterrupted, tmp_path, step):
    folder, whole = uninterrupted
    resumed = run(tmp_path, checkpoint=folder / f"checkpoint-{step}")
    second = whole.asked.index(resumed.asked[0])
    assert second > 0 and resumed.asked == whole.asked[second:]
    if step == 2:  # within a batch its completions are lost, and its prompts are answered again
        expected, given = whole.model.state_dict(), resumed.model.state_dict()
        assert all(torch.equal(expected[name], given[name]) for name in expected)


def test_a_checkpoint_that_does_not_know_its_prompts_is_refused(uninterrupted, tmp_path):
    old = tmp_path / "checkpoint-2"
    shutil.copytree(uninterrupted[0] / "checkpoint-2", old)
    state = json.loads((old / "trainer_state.json").read_text())
    del state["stateful_callbacks"]["Prompts"]
    (old / "trainer_state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="the checkpoint of step 2 does not say which prompts were used"):
        run(tmp_path, checkpoint=old)


def test_nothing_is_sampled_again_where_all_groups_teach(tmp_path):
    runs = []
    for rounds in ("dynamic_sampling.rounds=0", "dynamic_sampling.rounds=3"):
        runs.append(make_trainer(tmp_path, SAMPLES, LOTTERY, rounds, kind=Watched))
        runs[-1].train()
    off, on = runs
    assert on.asked == off.asked
    assert all(torch.equal(a, b) for a, b in zip(on.model.parameters(), off.model.parameters(), strict=True))


def test_a_share_without_target_holds_through_resampling(tmp_path):
    trainer = run(tmp_path, "data.no_target_ratio=0.5", steps=2)
    empty = {sample.id: not sample.targets for sample in SAMPLES}
    assert len(trainer.asked) > 1
    first = [empty[id] for id in trainer.asked[0][::4]]
    assert sum(first) == 1


def test_a_trained_decoder_reads_the_states_of_its_own_round(tmp_path):
    processor, model = load_processor(ROOT / BASE), load_model(ROOT / BASE, "float32")
    spec = make_backbone(model, processor, (-1,), None).spec
    decoder = BoxGuidedDecoder(spec.llm_dim, spec.vision_dims, **SMALL, use_token=False, spec=spec)
    assert decoder.needs_states
    trainer = make_trainer(tmp_path, SAMPLES, *HALF, kind=Watched, decoder=decoder)
    assert isinstance(trainer, Watched) and trainer.painter
    original, read = trainer.painter.paint, []

    def paint(predictions, samples, chats, images, completions, seen=None):
        read.append((completions, seen))
        return original(predictions, samples, chats, images, completions, seen)

    trainer.painter.paint = paint
    trainer.train()
    assert len(read) == len(trainer.asked) > 1
    for completions, seen in read:
        written = seen.inputs["input_ids"][:, seen.prompt :]
        assert len(written) == len(completions)
        assert all(row[: len(ids)].tolist() == list(ids) for row, ids in zip(written, completions, strict=True))


@pytest.mark.slow
def test_two_processes_ask_in_step_and_never_the_same(tmp_path):
    note = f"+rewards.noted={{_target_: tests.runs.noted, folder: {tmp_path}, weight: 0.0}}"
    where = [f"model.path={BASE}", f"output_dir={tmp_path / 'run'}", *QUICK_GRPO, "rollouts=transformers"]
    launch("rl/grpo.py", *where, *HALF, note, "trainer.temperature=2.2", processes=2)
    logged = [line for line in history(tmp_path / "run") if "dynamic_sampling/kept" in line]
    assert len(logged) == 2 and any(line["dynamic_sampling/rounds"] > 0 for line in logged)
    asked = [_asked(tmp_path / f"asked-{rank}") for rank in range(2)]
    assert len(asked[0]) == len(asked[1])
    assert max(Counter([*asked[0], *asked[1]]).values()) == 1


def _asked(file: Path) -> list[str]:
    """Prompts in the order of a process, each written down once for each of 4 completions."""
    rows = [line for line in file.read_text().splitlines() if line.startswith("scenes-")]
    assert all(len(set(rows[start : start + 4])) == 1 for start in range(0, len(rows), 4))
    return rows[::4]


@pytest.mark.slow
@pytest.mark.vllm
def test_the_engine_and_the_trainer_agree_on_the_prompts_of_every_round(tmp_path):
    launch("rl/grpo.py", f"model.path={BASE}", f"output_dir={tmp_path}", *QUICK_GRPO, *HALF)
    logged = [line for line in history(tmp_path) if "dynamic_sampling/kept" in line]
    assert len(logged) == 2 and max(line["dynamic_sampling/rounds"] for line in logged) > 0
    assert all(line["sampling/sampling_logp_difference/mean"] <= 0.001 for line in logged)

"""Every algorithm of configs/algorithm in two real updates on the same completions, held to its paper's formula."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from configs.entry import CONFIGS
from rl.credit import pays_parts
from rl.trainer import SegGRPOTrainer
from segmentation.data.scenes import Scenes
from tests.grpo_trainer import LOTTERY, make_trainer

NAMES = sorted(path.stem for path in (CONFIGS / "algorithm").glob("*.yaml"))
SAMPLES = Scenes("val", 16)[:]
SECOND = "+rewards.ends={_target_: tests.test_algorithms.ends, weight: 0.1}"


def ends(predictions, samples, masks, completion_ids, **_) -> list[float]:
    """Another reward that differs within a group, and far less."""
    return [ids[-1] % 7 / 70 for ids in completion_ids]


class Watched(SegGRPOTrainer):
    """Keeps what each update computed its loss on: TRL's inputs, the log-probabilities, the loss."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.updates: list[tuple[dict[str, Tensor], Tensor, float]] = []
        super().__init__(*args, **kwargs)
        self.before = {name: one.detach().clone() for name, one in self.model.named_parameters()}

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple:
        scored = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self.logps = scored[0].detach()
        return scored

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        loss = super()._compute_loss(model, inputs)
        self.updates.append((inputs, self.logps, loss.item()))
        return loss

    def moved(self) -> set[str]:
        """Names of the parameters that are not what they were."""
        return {name for name, one in self.model.named_parameters() if not torch.equal(one, self.before[name])}


@cache
def run(folder: Path, *overrides: str) -> Watched:
    """Two updates on one batch of two groups of four; the second of them is off-policy."""
    trainer = make_trainer(folder, SAMPLES, LOTTERY, SECOND, "dynamic_sampling.rounds=0", *overrides, kind=Watched)
    trainer.train()
    assert isinstance(trainer, Watched) and len(trainer.updates) == 2
    return trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("algorithms")


def expected_loss(args: Any, inputs: dict[str, Tensor], new: Tensor) -> Tensor:
    """As the papers write it; `new` `(B, T)` are the log-probabilities of the policy that is updated."""
    mask, old = inputs["completion_mask"], inputs["old_per_token_logps"]
    advantages = inputs["advantages"] if inputs["advantages"].ndim == 2 else inputs["advantages"][:, None]
    ratio = (new - old).exp()
    if args.importance_sampling_level == "sequence":  # GSPO, equation 7
        ratio = (((new - old) * mask).sum(1) / mask.sum(1)).exp()[:, None].expand_as(new)
    high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    if args.loss_type == "cispo":  # MiniMax-M1, equation 4: the gradient is that of the log-probability alone
        each = -ratio.clamp(max=high) * advantages * new
    elif args.loss_type == "sapo":  # equation 6
        steep = torch.where(advantages > 0, args.sapo_temperature_pos, args.sapo_temperature_neg)
        each = -torch.sigmoid(steep * (ratio - 1)) * 4 / steep * advantages
    else:
        each = -torch.minimum(ratio * advantages, ratio.clamp(1 - args.epsilon, 1 + high) * advantages)
    if args.beta:  # DeepSeekMath, equation 4
        apart = inputs["ref_per_token_logps"] - new
        each = each + args.beta * (apart.exp() - apart - 1)
    each = each * mask
    if args.loss_type in ("grpo", "sapo"):
        return (each.sum(1) / mask.sum(1).clamp(min=1)).mean()
    tokens = len(mask) * args.max_completion_length if args.loss_type == "dr_grpo" else mask.sum()
    return each.sum() / tokens


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_the_papers_and_the_policy_moves(folder, name):
    trainer = run(folder, f"algorithm={name}")
    for inputs, new, loss in trainer.updates:
        assert loss == pytest.approx(expected_loss(trainer.args, inputs, new).item(), rel=1e-4, abs=1e-6)
    (first, at_first, _), (second, later, _) = trainer.updates
    assert torch.equal(first["completion_ids"].sort(0).values, second["completion_ids"].sort(0).values)
    assert torch.allclose(at_first, first["old_per_token_logps"], atol=1e-5)
    assert not torch.allclose(later, second["old_per_token_logps"], atol=1e-3)  # or clips and ratios would show nothing
    norms = [line["grad_norm"] for line in trainer.state.log_history if "loss" in line]
    assert norms[0] > 0 and (norms[1] > 0 or name == "gspo")  # so narrow a clip may leave nothing for the second update
    moved = trainer.moved()
    assert moved and not any("visual" in name for name in moved)  # model.freeze_vision


def advantages(trainer: Watched) -> tuple[Tensor, Tensor]:
    """`(2, 4)` advantages of the two groups as TRL logs them, and `(2, 4, F)` weighted rewards; NaN: does not apply."""
    made = torch.tensor(list(trainer._logs["advantages"]))
    assert torch.equal(made.sort().values, trainer.updates[0][0]["advantages"].sort().values)
    return made.view(2, 4), (trainer._scores * trainer.reward_weights).view(2, 4, -1)


@pytest.mark.parametrize("name", NAMES)
def test_advantages_are_in_units_of_what_the_paper_says(folder, name):
    trainer = run(folder, f"algorithm={name}")
    made, rewards = advantages(trainer)
    total = rewards.nansum(2)
    apart = total - total.mean(1, keepdim=True)
    assert (total.std(1) > 1e-3).all()
    if name == "dr_grpo":
        torch.testing.assert_close(made, apart)
    elif name == "cispo":
        first, second = made.std(1).tolist()
        assert first != pytest.approx(second, rel=1e-3)
        torch.testing.assert_close(made, apart / (total.flatten().std() + 1e-4))
    elif name == "gdpo":
        assert made.flatten().std() == pytest.approx(1, rel=1e-2)
        differs = rewards.std(1) > 1e-6  # (2, F): what does not apply or is equal for all adds nothing
        each = (trainer._scores.view(2, 4, -1) - trainer._scores.view(2, 4, -1).mean(1, keepdim=True)).nan_to_num(0)
        units = each / (each.std(1, keepdim=True) + 1e-4) * trainer.reward_weights
        summed = units.where(differs[:, None], 0).sum(2)
        torch.testing.assert_close(made, summed / (summed.flatten().std() + 1e-4), rtol=1e-3, atol=1e-4)
    else:
        torch.testing.assert_close(made.std(1), torch.ones(2), rtol=2e-2, atol=0)


def test_a_sequences_ratio_is_clipped_as_one(folder):
    trainer = run(folder, "algorithm=gspo")
    inputs, new, _ = trainer.updates[1]
    mask = inputs["completion_mask"]
    mean = ((new - inputs["old_per_token_logps"]) * mask).sum(1) / mask.sum(1)
    ratio, gain = mean.exp(), inputs["advantages"]
    clipped = ((ratio > 1 + 4e-4) & (gain > 0)) | ((ratio < 1 - 3e-4) & (gain < 0))
    logged = [line["clip_ratio/region_mean"] for line in trainer.state.log_history if "loss" in line]
    assert logged == pytest.approx([0, clipped.float().mean().item()]) and clipped.any()


def test_clip_higher_lets_the_unlikely_grow(folder):
    bounds = {
        name: (run(folder, f"algorithm={name}").epsilon_low, run(folder, f"algorithm={name}").epsilon_high)
        for name in ("grpo", "dapo")
    }
    assert bounds == {"grpo": (0.2, 0.2), "dapo": (0.2, 0.28)}


def test_cut_off_completions_count_for_nothing(folder):
    trainer = run(folder, "algorithm=dapo")
    inputs = trainer.updates[1][0]
    cut = inputs["completion_mask"].sum(1) == 0
    ended = (inputs["completion_ids"] == trainer.processing_class.tokenizer.eos_token_id).any(1)
    assert torch.equal(cut, ~ended) and cut.any() and not cut.all()
    other = {**inputs, "advantages": torch.where(cut, 100.0, inputs["advantages"])}
    assert trainer._compute_loss(trainer.model, other).item() == pytest.approx(
        trainer._compute_loss(trainer.model, inputs).item()
    )


def test_the_distance_from_the_first_policy_costs_where_beta_says_so(folder):
    kls = [line["kl"] for line in run(folder, "algorithm=grpo").state.log_history if "loss" in line]
    assert kls[0] == pytest.approx(0, abs=1e-6) and kls[1] > 1e-4
    assert run(folder, "algorithm=grpo").ref_model is not None
    free = run(folder, "algorithm=dapo")
    assert free.ref_model is None and not any("kl" in line for line in free.state.log_history)


def test_lora_moves_its_adapters_alone(folder):
    trainer = run(folder, "algorithm=grpo", "model.lora={r: 4, lora_alpha: 8, lora_dropout: 0.5}")
    dropouts = [one for name, one in trainer.model.named_modules() if name.endswith("lora_dropout.default")]
    assert dropouts and all(one.p == 0 for one in dropouts)  # rollouts, ratio and loss are of one policy
    moved = trainer.moved()
    assert moved and all("lora_" in name for name in moved)
    assert trainer.ref_model is None  # the policy without its adapters
    kls = [line["kl"] for line in trainer.state.log_history if "loss" in line]
    assert kls[0] == pytest.approx(0, abs=1e-6) and kls[1] > 0


def test_the_vision_tower_learns_unless_it_is_frozen(folder):
    free = run(folder, "algorithm=dr_grpo", "model.freeze_vision=false").moved()
    frozen = run(folder, "algorithm=dr_grpo").moved()
    assert any("visual" in name for name in free)
    assert frozen == {name for name in free if "visual" not in name}


BY_PART = {
    "dr_grpo": None,
    "cispo": "scale_rewards=none",
    "dapo": "scale_rewards=none",
    "bnpo": "scale_rewards=none",
    "grpo": "scale_rewards=none",
    "sapo": "scale_rewards=none",
    "gspo": "importance_sampling_level=token",
    "gdpo": "multi_objective_aggregation=sum_then_normalize",
}


@pytest.mark.parametrize("name", NAMES)
def test_rewards_by_part_work_or_say_which_setting_is_in_the_way(name):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        settings = compose("grpo", [f"algorithm={name}"]).trainer
    how = settings.scale_rewards, settings.multi_objective_aggregation, settings.importance_sampling_level
    if BY_PART[name] is None:
        assert pays_parts(["all", "rest", "mask"], True, *how)
        return
    with pytest.raises(ValueError, match=BY_PART[name]):
        pays_parts(["all", "rest", "mask"], True, *how)
    assert not pays_parts(["all", "all"], True, *how)


@pytest.mark.parametrize("name", ["dr_grpo", "cispo", "sapo"])
def test_rewards_by_part_train_under_losses_of_single_tokens(folder, name):
    trainer = run(folder, f"algorithm={name}", "trainer.scale_rewards=none", "format=bricks", "rewards=by_part")
    for inputs, new, loss in trainer.updates:
        assert inputs["advantages"].shape == new.shape
        assert loss == pytest.approx(expected_loss(trainer.args, inputs, new).item(), rel=1e-4, abs=1e-6)
    assert trainer.moved()

"""Every recipe composes to what TRL takes, and its model is the released one, on torch's meta device."""

import re
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from trl import GRPOConfig, SFTConfig

import configs
from rollouts import memory
from rollouts.architectures import RELEASED, architecture, image_tokens, on_meta
from rollouts.device import training_arguments
from rollouts.policy import LANGUAGE_LINEARS, freeze_vision
from rollouts.sections import make_rewards
from segmentation.backbones import FAMILIES

ROOT = Path(configs.__file__).parents[1]
MODELS = ("qwen2_5_vl_3b", "qwen2_5_vl_7b", "qwen3_vl_4b", "qwen3_vl_8b", "internvl3_2b", "internvl3_8b")
HARDWARE = ("lora_24gb", "lora_2x48gb", "full_8x80gb")
RECIPES = [f"{model}_{hardware}" for model in MODELS for hardware in HARDWARE]
LAUNCH = {"lora_24gb": "gpu1.yaml", "lora_2x48gb": "gpu8_ddp.yaml", "full_8x80gb": "zero2.yaml"}
# what the safetensors of each repository hold, as the hub states it
PUBLISHED = {
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
    "OpenGVLab/InternVL3-2B-hf": 2_088_957_440,
    "OpenGVLab/InternVL3-8B-hf": 7_944_373_760,
}


def composed(command, *overrides):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose(command, [*overrides])


def test_there_is_a_recipe_for_each_model_on_each_hardware():
    assert sorted(path.stem for path in (ROOT / "configs/recipe").glob("*.yaml")) == sorted([*RECIPES, "none"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_with_the_same_batch_on_every_hardware(recipe, tmp_path):
    cfg = composed("grpo", f"recipe={recipe}")
    rollouts = configs.plain(cfg.rollouts)
    for own in ("structured", "time_limit"):
        rollouts.pop(own, None)
    _, weights, _ = make_rewards(cfg.rewards)
    arguments = configs.build(
        GRPOConfig,
        {**cfg.trainer, **rollouts},
        where="trainer",
        output_dir=tmp_path,
        reward_weights=weights,
        **training_arguments(),
    )
    gpus = cfg.hardware.gpus
    assert arguments.disable_dropout
    assert arguments.steps_per_generation and arguments.num_generations and arguments.max_completion_length
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * gpus == 128
    written = arguments.per_device_train_batch_size * arguments.steps_per_generation * gpus
    assert written % arguments.num_generations == 0
    assert arguments.gradient_accumulation_steps % arguments.steps_per_generation == 0  # whole generations a step
    assert (arguments.max_steps, arguments.num_train_epochs) == (-1, 1)
    tokens = image_tokens(architecture(cfg.model.path), cfg.model.max_pixels)
    assert tokens == (512 if recipe == "qwen3_vl_8b_lora_24gb" else 1280)
    assert tokens + memory.PROMPT + arguments.max_completion_length <= cfg.rollouts.vllm_max_model_length
    full = "full" in recipe
    assert arguments.learning_rate == (1e-6 if full else 1e-5)
    assert (cfg.model.lora is None) == full == (cfg.hardware.sharding == 2)

    warm = composed("warm_start", f"recipe={recipe}")
    learning = configs.build(SFTConfig, warm.trainer, where="trainer", output_dir=tmp_path, **training_arguments())
    assert learning.per_device_train_batch_size * learning.gradient_accumulation_steps * gpus == 32
    assert (warm.model, warm.hardware) == (cfg.model, cfg.hardware)
    assert learning.max_steps == -1


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_names_its_launch_file_and_fits_its_cards(recipe):
    text = (ROOT / f"configs/recipe/{recipe}.yaml").read_text()
    hardware = next(name for name in HARDWARE if recipe.endswith(name))
    cfg = composed("grpo", f"recipe={recipe}")
    assert f"--config_file configs/launch/{LAUNCH[hardware]}" in text and f"recipe={recipe} " in text
    processes = re.search(r"--num_processes (\d+)", text)
    assert int(processes[1] if processes else 1) == cfg.hardware.gpus
    said = memory.estimate(cfg, memory.planned(cfg.hardware))
    assert said.fits and not said.notes, said
    warm = composed("warm_start", f"recipe={recipe}")
    assert memory.estimate(warm, memory.planned(warm.hardware)).fits


def test_what_is_typed_wins_over_a_recipe():
    cfg = composed("grpo", "recipe=qwen3_vl_8b_full_8x80gb", "model=internvl3_8b", "trainer.learning_rate=3e-6")
    assert (cfg.model.path, cfg.trainer.learning_rate) == ("OpenGVLab/InternVL3-8B-hf", 3e-6)
    assert cfg.model.lora is None and cfg.hardware.gpus == 8


@pytest.mark.parametrize(
    "on", ["recipe=none", "trainer=grpo_lora", "recipe=qwen2_5_vl_3b_lora_24gb", "hardware=full_8x80gb"]
)
@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs/algorithm").glob("*.yaml")))
def test_an_algorithm_is_over_every_trainer_and_hardware_and_under_what_is_typed(name, on):
    published = OmegaConf.load(ROOT / f"configs/algorithm/{name}.yaml")
    cfg, without = composed("grpo", on, f"algorithm={name}"), composed("grpo", on)
    assert {key: cfg.trainer[key] for key in published.trainer} == published.trainer
    assert {key: value for key, value in cfg.trainer.items() if key not in published.trainer} == {
        key: value for key, value in without.trainer.items() if key not in published.trainer
    }
    assert cfg.dynamic_sampling.rounds == (3 if name == "dapo" else 0)
    typed = composed("grpo", on, f"algorithm={name}", "trainer.beta=0.5", "dynamic_sampling.rounds=1")
    assert (typed.trainer.beta, typed.dynamic_sampling.rounds) == (0.5, 1)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "recipe=qwen2_5_vl_3b_lora_24gb trainer=grpo_long",
            "trainer=grpo_long: hardware=lora_24gb sets trainer.learning_",
        ),
        ("recipe=qwen2_5_vl_7b_lora_24gb rollouts=vllm", "type what is to differ: rollouts.use_vllm=True"),
        ("recipe=qwen2_5_vl_3b_full_8x80gb rollouts=vllm_server", None),
        ("recipe=qwen2_5_vl_3b_lora_24gb rollouts=transformers", None),
        ("trainer=grpo_long rollouts=vllm", None),
    ],
)
def test_a_choice_that_a_recipe_would_take_away_is_refused(typed, said, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rl/grpo.py", *typed.split(), "seed=text"])  # which is refused after all of that
    with pytest.raises(SystemExit):
        configs.main("grpo")(lambda cfg: None)()
    assert (said or "seed: expected int") in capsys.readouterr().err


def test_without_a_recipe_nothing_changes():
    cfg = composed("grpo")
    assert cfg.trainer.max_steps == 120 and not any(cfg.hardware.values())


@pytest.mark.parametrize("stage", ["grpo", "sft"])
def test_hardware_differs_from_the_trainer_for_released_models_in_batches_alone(stage):
    cfg = composed("warm_start" if stage == "sft" else "grpo", "hardware=lora_24gb").trainer
    alone = composed("warm_start" if stage == "sft" else "grpo", f"trainer={stage}_lora").trainer
    batches = {"per_device_train_batch_size", "gradient_accumulation_steps"}
    assert {key: cfg[key] for key in alone if key not in batches} == {k: alone[k] for k in alone if k not in batches}


@pytest.mark.parametrize("model", MODELS)
def test_a_released_model_is_built_with_the_parameters_it_is_published_with(model):
    cfg = composed("grpo", f"model={model}").model
    built = on_meta(architecture(cfg.path), cfg.dtype)
    assert sum(one.numel() for one in built.parameters()) == PUBLISHED[cfg.path]
    assert {one.dtype for one in built.parameters()} == {torch.bfloat16}
    family = built.config.model_type
    assert family in FAMILIES
    freeze_vision(built)
    still = {name.split(".")[1] for name, one in built.named_parameters() if not one.requires_grad}
    assert still == ({"vision_tower", "multi_modal_projector"} if family == "internvl" else {"visual"})
    text = built.config.text_config
    linears = [name for name, part in built.named_modules() if isinstance(part, torch.nn.Linear)]
    adapted = [name for name in linears if re.fullmatch(LANGUAGE_LINEARS, name)]  # as peft reads a text
    assert len(adapted) == 7 * text.num_hidden_layers
    assert all(".language_model.layers." in name for name in adapted)


def test_every_released_model_has_a_config():
    paths = {composed("grpo", f"model={model}").model.path for model in MODELS}
    assert paths == set(RELEASED) == set(PUBLISHED)

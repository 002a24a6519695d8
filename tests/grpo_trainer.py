"""A GRPO trainer in this process, made of a config as rl/grpo.py makes it, and small enough for a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from trl import GRPOConfig

import configs
from configs.entry import CONFIGS
from rl.dynamic_sampling import check_rounds
from rl.trainer import SegGRPOTrainer
from rollouts.device import training_arguments
from rollouts.policy import add_tokens, family, freeze_vision, image_frame, load_model, load_processor, restore
from rollouts.rows import prompt_rows
from rollouts.sections import make_decoder, make_format, make_lora, make_order, make_rewards
from segmentation.data.check import Opened
from segmentation.sample import Sample
from tests.runs import BASE, ROOT

TINY = [
    "rollouts=transformers",
    "trainer.max_steps=2",
    "trainer.per_device_train_batch_size=8",
    "trainer.steps_per_generation=1",
    "trainer.num_generations=4",
    "trainer.num_iterations=2",
    "trainer.max_completion_length=13",  # the base model's boxes have 14 and are cut off, its "there is none" is not
    "trainer.temperature=2.2",
    "trainer.learning_rate=2e-4",
    "trainer.lr_scheduler_type=constant",
    "trainer.warmup_steps=0",
    "trainer.report_to=none",
    "+trainer.save_strategy=no",
    "+trainer.disable_tqdm=true",
]
LOTTERY = "+rewards.lottery={_target_: tests.runs.lottery, weight: 1.0}"


def make_trainer(
    folder: Path,
    samples: Sequence[Sample],
    *overrides: str,
    kind: type[SegGRPOTrainer] = SegGRPOTrainer,
    checkpoint: Path | None = None,
    **given: Any,
) -> SegGRPOTrainer:
    """Of the base model, unless `model.path` is among the overrides; `given` replaces what the config makes."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        cfg = compose("grpo", [f"model.path={ROOT / BASE}", *TINY, f"output_dir={folder}", *overrides])
    OmegaConf.resolve(cfg)
    rewards, weights, paid = make_rewards(cfg.rewards)
    arguments = configs.build(
        GRPOConfig,
        {**cfg.trainer, "use_vllm": False},
        where="trainer",
        output_dir=str(folder),
        seed=cfg.seed,
        reward_weights=weights,
        **training_arguments(),
    )
    processor, model = load_processor(cfg.model.path), load_model(cfg.model.path, "float32")
    format = make_format(cfg.format, family(cfg.model.path), processor)
    add_tokens(model, processor, format.new_tokens)
    model = restore(model, checkpoint)
    opened = Opened(samples)
    made = {
        "model": freeze_vision(model) if cfg.model.freeze_vision else model,
        "args": arguments,
        "train_dataset": prompt_rows(opened, format, image_frame(processor)),
        "processing_class": processor,
        "peft_config": make_lora(cfg.model.lora),
        "format": format,
        "rewards": rewards,
        "paid": paid,
        "decoder": make_decoder(cfg.decoder),
        "order": make_order(cfg.data, opened, cfg.seed, bool(arguments.shuffle_dataset)),
        "resample": check_rounds(cfg.dynamic_sampling.rounds, arguments),
    }
    return kind(**{**made, **given})

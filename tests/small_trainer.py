"""GRPO of a few tiny steps in this process: a trainer as rl/grpo.py makes it, on the small base and scenes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig
from trl import GRPOConfig

from rl.trainer import Reward, SegGRPOTrainer
from rl.validation import Validation
from rollouts.policy import image_frame, load_model, load_processor
from rollouts.rows import prompt_rows
from segmentation.boxes import ResizedPixels
from segmentation.data.scenes import Scenes
from segmentation.decoders.filled_box import FilledBox
from segmentation.formats import BoxFormat
from segmentation.protocols import named
from sft.checkpoints import MarkWhole
from tests.runs import BASE, ROOT, lottery

SCENES = 64  # of training; ids are those of `Scenes("train", SCENES)`


def small_trainer(
    folder: Path,
    rewards: Mapping[str, Reward] | None = None,
    policy: str | Path = ROOT / BASE,
    validation: Validation | None = None,
    lora: LoraConfig | None = None,
    callbacks: tuple = (),
    decoder: Any = None,
    **settings: Any,
) -> SegGRPOTrainer:
    """A trainer of two prompts with four completions a step; `settings` are GRPOConfig's."""
    processor = load_processor(policy)
    frame = image_frame(processor)
    assert isinstance(frame, ResizedPixels)
    format = BoxFormat(frame)
    chosen: dict[str, Any] = {
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "steps_per_generation": 1,
        "num_generations": 4,
        "max_completion_length": 12,
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "save_steps": 100,
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "bf16": False,
        "use_cpu": True,
    }
    if validation:
        validation.prepare(format, processor)
        chosen |= validation.arguments(first=True)
    return SegGRPOTrainer(
        model=load_model(policy, "float32"),
        args=GRPOConfig(output_dir=str(folder), **chosen | settings),
        train_dataset=prompt_rows(Scenes("train", SCENES), format, frame),
        processing_class=processor,
        peft_config=lora,
        callbacks=[MarkWhole(), *callbacks],
        format=format,
        rewards=rewards or {"lottery": lottery},
        decoder=decoder or FilledBox(),
        validation=validation,
    )


def small_validation(every: int = 2, length: int = 5, metric: str = "gIoU", overlays: int = 1) -> Validation:
    """A validation on scenes of val."""
    return Validation(every, length, metric, overlays, samples=Scenes("val", 60), protocol=named("lisa"))

"""A policy that knows the answers to a handful of samples by heart: valid texts within seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from rollouts.policy import add_tokens, image_frame, load_model, load_processor
from rollouts.rows import answer_rows
from segmentation.data.scenes import Scenes
from segmentation.formats import Format
from segmentation.sample import Sample
from tests.runs import BASE, ROOT


def teach(samples: Sequence[Sample], format: Format, folder: Path, steps: int = 80) -> Path:
    """Overfit the base model on the samples and save it in the folder."""
    torch.manual_seed(0)
    processor, model = load_processor(ROOT / BASE), load_model(ROOT / BASE, "float32")
    add_tokens(model, processor, format.new_tokens)
    rows: list[Any] = list(answer_rows(samples, format, image_frame(processor)))
    inputs = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)(rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    loss = torch.tensor(torch.inf)
    for _ in range(steps):
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.05, f"the policy has not learned its {len(samples)} answers: loss {loss:.3f}"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def some_scenes() -> list[Sample]:
    """Three scenes of val: one object is meant, two, none."""
    scenes = Scenes("val", 60)[:]
    return [next(scene for scene in scenes if len(scene.targets) == count) for count in (1, 2, 0)]

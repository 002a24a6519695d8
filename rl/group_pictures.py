"""Pictures of groups: of the completions of one prompt, the one that is paid most, the median, and the least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers.integrations import TensorBoardCallback

from segmentation.panels import Tile, annotated, answered, gallery
from segmentation.sample import Prediction, Sample, open_image

PLACES = ("best", "median", "worst")
LETTERS = 160  # of a completion that are shown


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a group answered about sample `index`: for each of `PLACES` what was paid, what was found, and the text."""

    index: int
    rewards: tuple[float, ...]
    predictions: tuple[Prediction, ...]
    texts: tuple[str, ...]


def ranked(index: int, rewards: Sequence[float], predictions: Sequence[Prediction], texts: Sequence[str]) -> Ranked:
    """Best, median (the better of two) and worst of a group of completions."""
    order = sorted(range(len(rewards)), key=lambda one: -rewards[one])
    rows = [order[0], order[(len(order) - 1) // 2], order[-1]]
    return Ranked(
        index,
        tuple(rewards[row] for row in rows),
        tuple(predictions[row] for row in rows),
        tuple(texts[row] for row in rows),
    )


def draw_groups(samples: Sequence[Sample], groups: Sequence[Ranked], path: Path) -> None:
    """Write one line a group: the annotated picture under its expression, then best, median and worst.

    Args:
        samples: of the groups.
        path: the PNG to write.
    """
    tiles = []
    for sample, group in zip(samples, groups, strict=True):
        picture = open_image(sample)
        truth = annotated(sample)
        tiles.append(Tile(sample.expression, picture, replace(truth, caption=f"ground truth: {truth.caption}")))
        for place, reward, prediction, text in zip(PLACES, group.rewards, group.predictions, group.texts, strict=True):
            panel = answered(prediction, sample.height, sample.width)
            said = text if len(text) <= LETTERS else text[:LETTERS] + " ..."
            panel = replace(panel, caption=f"{panel.caption}\n{said}")
            tiles.append(Tile(f"{place}: paid {reward:.3f}", picture, panel))
    gallery("", tiles, path, columns=1 + len(PLACES))


def show(trainer: Any, path: Path) -> None:
    """Give a picture to the trackers of `report_to` that take pictures; transformers has imported and started them."""
    key, step = "eval/overlays", trainer.state.global_step
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            callback.tb_writer.add_image(key, pixels, step, dataformats="HWC")
    if "wandb" in trainer.args.report_to:
        wandb = import_module("wandb")
        if wandb.run is not None:
            wandb.log({key: wandb.Image(str(path)), "train/global_step": step})
    if "trackio" in trainer.args.report_to:
        trackio = import_module("trackio")
        trackio.log({key: trackio.Image(path), "train/global_step": step})

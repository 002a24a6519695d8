"""First stage of the small base model: its vision tower learns to see, as a released model's does before it reads.

Every patch says what lies in it: shape, colour, texture and size of the thing, and where its box ends. The answers are
read off the merger's output by one linear layer that is thrown away afterwards, so what the language model receives
already holds them.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from rollouts.policy import Model, Processor
from segmentation.data.scenes import COLOURS, SHAPES, TEXTURES, Scene, scene

NOTHING = 0
CLASSES = (len(SHAPES) + 1, len(COLOURS) + 1, len(TEXTURES) + 1, 3)  # 0 is background in each
PATCH = 8  # pixels
ENOUGH = 8  # pixels of a patch that a thing must cover to be what lies in it


def pretrain_vision(
    model: Model, processor: Processor, steps: int, batch: int, lr: float, seed: int
) -> list[dict[str, float]]:
    """Train `model.model.visual` for `steps` batches of scenes; returns the log, a line every 100 steps."""
    visual = model.model.visual
    head = nn.Linear(visual.config.out_hidden_size, 4 * (sum(CLASSES) + 4)).to(model.device)
    parameters = [*visual.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps, pct_start=0.05)
    pages = DataLoader(_Patches(processor, batch, steps, seed), batch_size=None, num_workers=1, prefetch_factor=4)
    log, losses, clock = [], [], time.time()
    for step, page in enumerate(pages, start=1):
        page = {key: value.to(model.device) for key, value in page.items()}
        with torch.autocast(model.device.type, torch.bfloat16):
            merged = visual(page["pixel_values"], grid_thw=page["image_grid_thw"]).pooler_output  # (B * tokens, width)
        said = head(merged.float()).view(-1, sum(CLASSES) + 4)  # (B * patches, ...)
        loss = _loss(said, page["classes"].view(-1, len(CLASSES)), page["boxes"].view(-1, 4))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if step % 100 == 0 or step == steps:
            line = {"vision_step": step, "loss": round(torch.stack(losses).mean().item(), 4)}
            log.append(line | {"seconds_per_step": round((time.time() - clock) / len(losses), 3)})
            print(log[-1], flush=True)
            losses, clock = [], time.time()
    return log


def _loss(said: torch.Tensor, classes: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    *names, where = said.split([*CLASSES, 4], dim=-1)
    loss = sum(nn.functional.cross_entropy(name, classes[:, i]) for i, name in enumerate(names))
    there = classes[:, 0] != NOTHING
    return loss + 10 * nn.functional.l1_loss(where[there], boxes[there])


class _Patches(Dataset):
    """Page `i` is a batch of pictures with the answers of their patches, in the order of the merger's output."""

    def __init__(self, processor: Processor, batch: int, steps: int, seed: int) -> None:
        self.images, self.batch, self.steps, self.seed = processor.image_processor, batch, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, page: int) -> dict[str, torch.Tensor]:
        if page >= self.steps:
            raise IndexError(page)
        first = 10**9 + page * self.batch  # not the scenes that the second stage reads
        scenes = [scene("train", self.seed, index)[0] for index in range(first, first + self.batch)]
        answers = [patch_answers(one) for one in scenes]
        images = self.images([one.image for one in scenes], return_tensors="pt")
        return {
            "pixel_values": images["pixel_values"],
            "image_grid_thw": images["image_grid_thw"],
            "classes": torch.from_numpy(np.stack([classes for classes, _ in answers])),
            "boxes": torch.from_numpy(np.stack([boxes for _, boxes in answers])),
        }


def patch_answers(drawn: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Classes `(patches, 4)` and boxes `(patches, 4)` as offsets from the patch's centre in units of the picture.

    Patches are in 2x2 blocks, blocks in raster order: the order in which the merger takes them.
    """
    side = drawn.masks.shape[1] // PATCH
    covered = drawn.masks.reshape(-1, side, PATCH, side, PATCH).sum((2, 4))  # (T, side, side)
    who = np.where(covered.max(0) >= ENOUGH, covered.argmax(0) + 1, NOTHING)
    table = [(NOTHING,) * 4] + [
        (
            SHAPES.index(thing.shape) + 1,
            list(COLOURS).index(thing.colour) + 1,
            TEXTURES.index(thing.texture) + 1,
            ("small", "large").index(thing.size) + 1,
        )
        for thing in drawn.things
    ]
    edges = np.array([(0.0,) * 4] + [thing.box for thing in drawn.things], np.float32)
    row, column = np.mgrid[0:side, 0:side] * PATCH + PATCH / 2
    offsets = (edges[who] - np.stack([column, row, column, row], -1)) / drawn.masks.shape[1]
    return _blocks(np.array(table)[who]), _blocks(offsets.astype(np.float32))


def _blocks(cells: np.ndarray) -> np.ndarray:
    """`(side, side, n)` in raster order -> `(side * side, n)` in 2x2 blocks."""
    side, _, width = cells.shape
    return cells.reshape(side // 2, 2, side // 2, 2, width).transpose(0, 2, 1, 3, 4).reshape(-1, width)

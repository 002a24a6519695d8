"""Pre-trains the small base model on plain grounding and captions of scenes (`texts.py`), on CPU or GPU.

    python sft/small_base/pretrain.py outputs/small_base --steps 6000      # continues if the folder has a checkpoint

Every question about a scene is a branch of its own behind the shared image: it sees the picture and itself, nothing of
the other questions, at the positions it would have if it stood alone. So one encoding of the image trains on several
conversations, and the result is exactly that of separate rows. `log.jsonl` beside the model is this script's log.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from rollouts.rows import chat
from rollouts.vision_attention import batch_vision_attention
from segmentation.boxes import iou_matrix
from segmentation.data.scenes import Scenes, scene
from sft.small_base.build import qwen2_5_vl
from sft.small_base.texts import ABSENT, QUESTIONS, conversations
from sft.small_base.vision import pretrain_vision

PLACE = re.compile(r"(\d{1,3}),(\d{1,3}) to (\d{1,3}),(\d{1,3})")
DECAY = 0.3  # the share of steps, at the end, over which the learning rate falls to zero
WARMUP = 100
LENGTH = 192  # tokens of a row; questions that do not fit are left out


def main() -> None:
    """Train, log a line every 100 steps, measure greedy grounding on val every 500, save model and processor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--vision-steps", type=int, default=2000, help="of the first stage (vision.py)")
    parser.add_argument("--batch", type=int, default=32, help="scenes a step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, processor = qwen2_5_vl()
    model.to(device).train()
    batch_vision_attention(model)
    optimizers = _optimizers(model, args.lr)
    start = _resume(args.output, model, optimizers)
    if start is None:
        start = 0
        lines = pretrain_vision(model, processor, args.vision_steps, 2 * args.batch, args.lr, args.seed)
        (args.output / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        _save(args.output, 0, model, processor, optimizers)
    pages = _Pages(processor, args.batch, args.seed, start, args.steps)
    loader = DataLoader(pages, batch_size=None, num_workers=1, prefetch_factor=4)
    prefix = _prefix_positions(model, pages)
    seen, clock = [], time.time()
    for step, page in enumerate(loader, start=start + 1):
        rate = min(step / WARMUP, (args.steps - step) / (DECAY * args.steps), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * rate
        loss = _loss(model, {key: value.to(device) for key, value in page.items()}, prefix.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seen.append(loss.detach())
        if step % 100 == 0 or step == args.steps:
            line = {"step": step, "loss": round(torch.stack(seen).mean().item(), 4), "lr": round(args.lr * rate, 6)}
            line["seconds_per_step"] = round((time.time() - clock) / len(seen), 3)
            if not math.isfinite(line["loss"]):
                raise FloatingPointError(f"loss {line['loss']} at step {step}; the last checkpoint is from before it.")
            if step % 500 == 0 or step == args.steps:
                line |= grounding(model, processor, Scenes("val", 256))
            _save(args.output, step, model, processor, optimizers)
            with (args.output / "log.jsonl").open("a") as log:
                print(json.dumps(line), file=log)
            print(line, flush=True)
            seen, clock = [], time.time()


class _Pages(Dataset):
    """Page `i` is a batch of scenes, each a picture and its conversations as branches of one sequence."""

    def __init__(self, processor, batch: int, seed: int, start: int, steps: int) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.batch, self.seed, self.start, self.steps = batch, seed, start, steps
        image = [{"role": "user", "content": [{"type": "image"}]}]
        picture = Scenes("train")[0].image
        text = processor.apply_chat_template(image, tokenize=False).removesuffix("<|im_end|>\n")
        self.prefix = processor(images=[picture], text=[text], return_tensors="pt")

    def __len__(self) -> int:
        return self.steps - self.start

    def __getitem__(self, page: int) -> dict[str, torch.Tensor]:
        if page >= len(self):
            raise IndexError(page)
        page += self.start
        first = page * self.batch
        pictures, rows = [], []
        for index in range(first, first + self.batch):
            drawn, rng = scene("train", self.seed, index)
            pictures.append(drawn.image)
            # Captions are long; most pages do without, so that their rows are short.
            rows.append(self._branches(conversations(drawn, rng, questions=6, more=page % 4 == 0)))
        ids, labels, branch, place = (
            np.stack([np.pad(row[i], (0, LENGTH - len(row[i])), constant_values=fill) for row in rows])
            for i, fill in enumerate((self.tokenizer.pad_token_id, -100, -1, 0))
        )
        images = self.processor.image_processor(pictures, return_tensors="pt")
        return {
            "ids": torch.from_numpy(ids),
            "labels": torch.from_numpy(labels),
            "branch": torch.from_numpy(branch),
            "place": torch.from_numpy(place),
            "pixel_values": images["pixel_values"],
            "image_grid_thw": images["image_grid_thw"],
        }

    def _branches(self, turns: list[tuple[str, str]]) -> tuple[np.ndarray, ...]:
        """ids, labels, branch (0 = the shared prefix) and position behind the prefix, each `(tokens,)`."""
        prefix = self.prefix["input_ids"][0].tolist()
        ids, labels, branch, place = list(prefix), [-100] * len(prefix), [0] * len(prefix), [0] * len(prefix)
        for number, (question, answer) in enumerate(reversed(turns), start=1):
            asked = self.tokenizer(f"{question}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
            said = self.tokenizer(f"{answer}<|im_end|>")["input_ids"]
            if len(ids) + len(asked) + len(said) > LENGTH:
                continue
            ids += asked + said
            labels += [-100] * len(asked) + said
            branch += [number] * (len(asked) + len(said))
            place += range(len(asked) + len(said))
        return tuple(np.array(column) for column in (ids, labels, branch, place))


def _prefix_positions(model, pages: _Pages) -> torch.Tensor:
    """M-RoPE positions of the shared prefix, `(3, P)`."""
    prefix = pages.prefix
    positions, _ = model.model.get_rope_index(
        prefix["input_ids"], prefix["mm_token_type_ids"], image_grid_thw=prefix["image_grid_thw"]
    )
    return positions[:, 0]


def _loss(model, page: dict[str, torch.Tensor], prefix: torch.Tensor) -> torch.Tensor:
    ids, branch = page["ids"], page["branch"]
    length = ids.shape[1]
    positions = (page["place"] + prefix.max() + 1)[None].repeat(3, 1, 1)  # (3, B, L)
    positions[:, :, : prefix.shape[1]] = prefix[:, None]
    causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    mask = causal & ((branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None]))  # (B, L, L)
    with torch.autocast(ids.device.type, torch.bfloat16):
        words = model.get_input_embeddings()(ids)
        picture = model.model.visual(page["pixel_values"], grid_thw=page["image_grid_thw"]).pooler_output
        words = words.masked_scatter((ids == model.config.image_token_id)[..., None], picture.to(words.dtype))
        states = model.model.language_model(
            inputs_embeds=words, attention_mask=mask[:, None], position_ids=positions, use_cache=False
        ).last_hidden_state
        logits = model.lm_head(states[:, :-1])
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), page["labels"][:, 1:].flatten())


def _optimizers(model, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, norms, biases and the patch convolution."""
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and ("blocks." in n or "layers." in n)]
    chosen = set(map(id, inner))
    outer = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(inner, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=lr, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


@torch.no_grad()
def grounding(model, processor, samples: Scenes) -> dict[str, float]:
    """Greedy grounding in the model's own words: mean box IoU of the phrases that mean one thing, and by kind.

    A phrase that means nothing scores 1 if the model says so; one that means several scores the IoU of the boxes in the
    order they are named, over the larger count.
    """
    model.eval()
    scores: dict[str, list[float]] = {}
    for first in range(0, len(samples), 64):
        part = [samples[i] for i in range(first, min(first + 64, len(samples)))]
        chats = [chat(QUESTIONS[0].format(sample.expression)) for sample in part]
        texts = processor.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        inputs = processor(
            images=[s.image for s in part], text=texts, padding=True, padding_side="left", return_tensors="pt"
        )
        out = model.generate(**inputs.to(model.device), max_new_tokens=72, do_sample=False)
        answers = processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for sample, said in zip(part, answers, strict=True):
            kind = sample.id.rsplit("-", 1)[1]
            boxes: list[Any] = [tuple(map(float, match)) for match in PLACE.findall(said)]
            truth = [target.box for target in sample.targets]
            if truth:
                matched = np.diagonal(iou_matrix(boxes, truth)).sum() / max(len(boxes), len(truth))
            else:
                matched = float(said == ABSENT)
            scores.setdefault(kind, []).append(float(matched))
    model.train()
    single = [score for kind, column in scores.items() if kind not in ("none", "plural") for score in column]
    return {"iou": round(float(np.mean(single)), 4)} | {
        k: round(float(np.mean(v)), 3) for k, v in sorted(scores.items())
    }


def _save(output: Path, step: int, model, processor, optimizers) -> None:
    state = {"step": step, "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
    torch.save(state, output / "checkpoint.pt.part")
    (output / "checkpoint.pt.part").rename(output / "checkpoint.pt")
    half = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    model.config.dtype = torch.bfloat16
    model.save_pretrained(output / "model", state_dict=half)
    model.config.dtype = torch.float32
    processor.save_pretrained(output / "model")


def _resume(output: Path, model, optimizers) -> int | None:
    path = output / "checkpoint.pt"
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["step"]


if __name__ == "__main__":
    main()

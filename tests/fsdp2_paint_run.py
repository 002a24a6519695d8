"""Run by test_distributed.py on two processes: a policy in two halves is painted for before its first forward.

accelerate launch --config_file configs/launch/cpu.yaml tests/fsdp2_paint_run.py
"""

import json
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from rollouts.painter import Painter
from rollouts.policy import load_model, load_processor
from segmentation.formats import BoxFormat
from segmentation.sample import Found
from tests.runs import BASE
from tests.test_painter import _asked, _decoder


def main() -> None:
    """Print whether masks before and after a training step are those of the whole policy, for boxes and for states."""
    dist.init_process_group("gloo")
    processor = load_processor(BASE)
    format = BoxFormat("relative1000")
    asked = _asked(format, processor)
    for kind in ("box", "box_states"):
        model: Any = load_model(BASE, "float32").eval()
        decoder = _decoder(kind, model, processor)
        expected = Painter(decoder, model, processor, format).paint(*asked)
        for layer in (*model.model.visual.blocks, *model.model.language_model.layers):
            fully_shard(layer)
        fully_shard(model)
        painter = Painter(decoder, model, processor, format)
        first = painter.paint(*asked)
        text = processor.apply_chat_template(asked[2][:1], tokenize=False, add_generation_prompt=True)
        model(**processor(images=asked[3][:1], text=text, return_tensors="pt")).logits.mean().backward()
        told = [rows(expected) == rows(painted) for painted in (first, painter.paint(*asked))]
        every: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(every, {"kind": kind, "rank": dist.get_rank(), "same": told})
        if not dist.get_rank():  # one process prints: two may write into each other's lines
            print(*map(json.dumps, every), sep="\n", flush=True)
    dist.destroy_process_group()


def rows(predictions: list[Any]) -> list[Any]:
    """Every mask."""
    return [[one.mask for one in said.instances] for said in predictions if isinstance(said, Found)]


if __name__ == "__main__":
    torch.manual_seed(0)
    main()

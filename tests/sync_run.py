"""Run by test_parity.py in a process of its own: change a policy in transformers, push it to vLLM, compare the two.

python tests/sync_run.py sft/small_base/model
"""

import json
import sys

import torch

from rollouts.device import prepare_vllm
from rollouts.engines import TransformersEngine, VLLMEngine
from rollouts.policy import load_processor
from rollouts.rows import chat
from segmentation.data.scenes import Scenes
from segmentation.sample import open_image

PARTS = ("visual", "embed_tokens", "self_attn", "mlp", "norm")


def main() -> None:
    """Print, for each part of the model, the mean logp gap on the same pictures before and after the push."""
    from rollouts.vllm_engine import reload_on_cpu

    processor = load_processor(sys.argv[1])
    scenes = Scenes("val", 12)[:]
    chats, images = [chat(f"where is the {s.expression}?") for s in scenes], [open_image(s) for s in scenes]
    ours = TransformersEngine(sys.argv[1], processor, "float32")
    engine = VLLMEngine(sys.argv[1], processor, "float32")

    def gap() -> float:
        said = [one.generate(chats, images, 16, logps=True) for one in (ours, engine)]
        return sum(abs(a.logps[0] - b.logps[0]) for a, b in zip(*said, strict=True)) / len(chats)

    gaps = {}
    for part in PARTS:
        with torch.no_grad():
            for name, weight in ours.model.named_parameters():
                if part in name:
                    weight.mul_(1.1)
        before = gap()
        reload_on_cpu(engine.llm, ours.model.named_parameters())
        engine.llm.reset_prefix_cache()
        engine.llm.llm_engine.reset_encoder_cache()
        gaps[part] = before, gap()
    print(json.dumps(gaps))


if __name__ == "__main__":
    prepare_vllm()
    main()

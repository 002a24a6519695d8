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
GROUP = 4


def main() -> None:
    """Print, for each part of the model, the mean logp gap on the same pictures and the matrices found stale, before
    and after the push; and how many pictures the engine encodes for a batch of groups."""
    from rollouts.vllm_engine import renew_on_cpu
    from rollouts.witnesses import Witnesses

    processor = load_processor(sys.argv[1])
    scenes = Scenes("val", 12)[:]
    chats, images = [chat(f"where is the {s.expression}?") for s in scenes], [open_image(s) for s in scenes]
    ours = TransformersEngine(sys.argv[1], processor, "float32")
    engine = VLLMEngine(sys.argv[1], processor, "float32")
    witnesses = Witnesses(engine.llm)

    def gap() -> float:
        said = [one.generate(chats, images, 16, logps=True) for one in (ours, engine)]
        return sum(abs(a.logps[0] - b.logps[0]) for a, b in zip(*said, strict=True)) / len(chats)

    found = {}
    for part in PARTS:
        with torch.no_grad():
            for name, weight in ours.model.named_parameters():
                if part in name:
                    weight.mul_(1.1)
        for _ in witnesses.watch(ours.model.named_parameters()):
            pass
        before = gap(), witnesses.stale()
        renew_on_cpu(engine.llm, witnesses.watch(ours.model.named_parameters()))
        found[part] = before, (gap(), witnesses.stale())
    print(json.dumps({"parts": found, "encoded": encoded(engine, chats, images), "pictures": len(images)}))


def encoded(engine: VLLMEngine, chats: list, images: list) -> int:
    """How many pictures the engine's vision encoder sees while it writes `GROUP` completions about each."""
    engine.llm.llm_engine.reset_encoder_cache()
    engine.llm.reset_prefix_cache()
    seen = []
    visual = engine.llm.llm_engine.model_executor.driver_worker.model_runner.model.visual
    hook = visual.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    try:
        repeated = [[one for one in column for _ in range(GROUP)] for column in (chats, images)]
        engine.generate(repeated[0], repeated[1], 4)
    finally:
        hook.remove()
    return sum(seen)


if __name__ == "__main__":
    prepare_vllm()
    main()

"""Do the two engines agree on a policy, greedily? Compares texts, log-probabilities and speed.

    python -m rollouts.parity outputs/grpo/policy --samples 64

What training assumes: identical texts but for ties, log-probabilities within 0.01 on average.
"""

from __future__ import annotations

import argparse

import configs


def read_arguments() -> argparse.Namespace:
    """What the command line says."""
    configs.tidy()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="a policy's folder")
    parser.add_argument("--samples", type=int, default=64, help="held-out scenes asked about (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=48, help="of each answer (%(default)s)")
    return parser.parse_args()


# Imports take seconds, the command line is read before them.
arguments = read_arguments() if __name__ == "__main__" else None

import gc
import json
import time
from dataclasses import asdict, dataclass

import torch

from rollouts.device import prepare_vllm
from rollouts.engines import Completion, TransformersEngine, VLLMEngine
from rollouts.policy import load_processor
from rollouts.rows import chat
from segmentation.data.scenes import Scenes
from segmentation.sample import open_image


@dataclass(frozen=True, slots=True)
class Parity:
    """`same` is the share of identical completions, `gap` the mean |difference| of their tokens' log-probabilities.

    Speeds are tokens a second of the second of two equal calls, so that no engine pays for its first.
    """

    same: float
    gap: float
    transformers_speed: float
    vllm_speed: float
    first_difference: tuple[str, str] | None


def compare(path: str, samples: int, max_tokens: int, dtype: str = "float32") -> Parity:
    """Both engines on the first held-out scenes, asked in plain words."""
    processor = load_processor(path)
    scenes = Scenes("val", samples)[:]
    chats = [chat(f"where is the {sample.expression}?") for sample in scenes]
    images = [open_image(sample) for sample in scenes]
    said, speeds = [], []
    for make in (TransformersEngine, VLLMEngine):
        engine = make(path, processor, dtype)
        engine.generate(chats, images, max_tokens, logps=True)  # the first call warms up
        start = time.perf_counter()
        completions = engine.generate(chats, images, max_tokens, logps=True)
        seconds = time.perf_counter() - start
        said.append(completions)
        speeds.append(sum(len(one.tokens) + 1 for one in completions) / seconds)
        del engine  # a GPU has room for one at a time
        gc.collect()
        torch.cuda.empty_cache()
    pairs = list(zip(*said, strict=True))
    gaps = [abs(ours - theirs) for one, other in pairs for ours, theirs in _shared(one, other)]
    different = next((pair for pair in pairs if pair[0].tokens != pair[1].tokens), None)
    return Parity(
        same=sum(one.tokens == other.tokens for one, other in pairs) / len(pairs),
        gap=sum(gaps) / len(gaps),
        transformers_speed=speeds[0],
        vllm_speed=speeds[1],
        first_difference=tuple(one.text(processor.tokenizer) for one in different) if different else None,
    )


def _shared(one: Completion, other: Completion) -> list[tuple[float, float]]:
    """Log-probabilities of the tokens up to the first on which the two differ."""
    assert one.logps is not None and other.logps is not None
    tokens = zip(one.tokens, other.tokens, strict=False)
    common = next((i for i, (a, b) in enumerate(tokens) if a != b), min(len(one.tokens), len(other.tokens)))
    return list(zip(one.logps[:common], other.logps[:common], strict=True))


if arguments:
    prepare_vllm()
    print(json.dumps(asdict(compare(arguments.path, arguments.samples, arguments.max_tokens))))

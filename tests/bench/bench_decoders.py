"""What the answers to one picture cost a mask decoder: `OMP_NUM_THREADS=1 python tests/bench/bench_decoders.py`.

At the published widths and a vision grid of 32x32, for each decoder: parameters, floating-point operations and seconds
of encoding a picture and of decoding an answer, and how much more encoding with eight answers costs than with one.
Operations are those of matrix products, convolutions and attention. Runs on the GPU if there is one.

Then, counted without a GPU: the share that painting the masks has of a GRPO step of Qwen2.5-VL-3B. One group: a picture
of 32x32 patches, a prompt of 64 tokens beside it, 8 completions of 64 tokens, LoRA, no reference model. Whatever is not
certain is counted so that the step looks cheaper: the picture is encoded once a pass for all eight, nothing is computed
twice for gradient checkpointing, adapters and optimiser cost nothing, nor does the vision encoder's attention.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[2]))

from rollouts.architectures import architecture, on_meta
from segmentation.backbones.features import Features
from segmentation.decoders import BoxGuidedDecoder, DSFFDecoder, MaskDecoder, Self1EHead

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
QWEN = (1024,) * 4  # Qwen3-VL 4B: blocks 5, 11, 17 and 23
DECODERS: list[tuple[str, Callable[[], MaskDecoder], int, int]] = [  # name, decoder, width of states, patch
    ("dsff, 4096", lambda: DSFFDecoder(4096), 4096, 14),
    ("dsff vision, 4096", lambda: DSFFDecoder(4096, fusion="vision"), 4096, 14),
    ("box_guided, 2560", lambda: BoxGuidedDecoder(2560, QWEN), 2560, 16),
    ("box_guided, box alone", lambda: BoxGuidedDecoder(2560, QWEN, use_token=False, use_states=False), 2560, 16),
    ("self1e, 1536", lambda: Self1EHead(1536), 1536, 14),
]


def operations(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # as products, which are counted
        work()
    return counter.get_total_flops() / 1e9


def seconds(work: Callable[[], object], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


POLICY, PATCHES, PROMPT, COMPLETION, GROUP = "Qwen/Qwen2.5-VL-3B-Instruct", 32, 64, 64, 8
VISION, WIDTH = 1280, 2048  # of that policy
IN_STEP: list[tuple[str, Callable[[], MaskDecoder]]] = [
    ("dsff", lambda: DSFFDecoder(WIDTH, VISION)),
    ("box_guided", lambda: BoxGuidedDecoder(WIDTH, (VISION,) * 4)),
    ("box_guided, box alone", lambda: BoxGuidedDecoder(WIDTH, (VISION,) * 4, use_token=False, use_states=False)),
    ("self1e", lambda: Self1EHead(WIDTH)),
]


def weights(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def in_a_step() -> None:
    """Prints the second table."""
    policy = on_meta(architecture(POLICY), "bfloat16")
    language, head = policy.model.language_model, policy.lm_head
    cells = PATCHES // 2

    def read(tokens: int) -> float:
        """One sequence through the language model; logits for its completion."""

        def work() -> None:
            given = torch.empty(1, tokens, WIDTH, device="meta", dtype=torch.bfloat16)
            positions = torch.zeros(3, 1, tokens, dtype=torch.long, device="meta")
            found = language(inputs_embeds=given, position_ids=positions, use_cache=False).last_hidden_state
            head(found[:, -COMPLETION:])

        return operations(work)

    look = 2e-9 * weights(policy.model.visual) * PATCHES**2
    prompt, whole = (read(cells**2 + PROMPT + more) for more in (0, COMPLETION))
    generate = look + prompt + GROUP * (whole - prompt)
    score = look + GROUP * whole
    step = generate + score + look + 2 * GROUP * whole  # the update's forward, and a backward to activations alone
    read_bytes = 2 * weights(policy) * (1 + COMPLETION + 1 + 2)
    print(f"\n{POLICY}, {GROUP} completions: {step / 1e3:.1f} TFLOP a step, {read_bytes / 1e9:.0f} GB of weights read")
    print(f"{'decoder':24}{'GFLOPs: vision':>16}{'decoder':>11}{'of a step':>11}{'weights, GB':>13}{'of a step':>11}")
    for name, make in IN_STEP:
        with torch.device("meta"):
            decoder = make().eval()
            features = Features(
                vision=tuple(torch.randn(1, VISION, PATCHES, PATCHES) for _ in QWEN),
                image_states=torch.randn(1, WIDTH, cells, cells),
                pixels=torch.rand(1, 3, PATCHES * 14, PATCHES * 14),
                projected=torch.randn(1, WIDTH, cells, cells),
                projected_fine=torch.randn(1, WIDTH, PATCHES, PATCHES),
            )
            boxes, states = torch.rand(GROUP, 4), torch.randn(GROUP, WIDTH)
            index = torch.zeros(GROUP, dtype=torch.long)

        def paint(decoder=decoder, features=features, index=index, boxes=boxes, states=states) -> None:
            decoder.decode(decoder.encode_image(features), index, boxes, states)

        # States come with the pass that scores the completions; a decoder of boxes alone may be without one.
        alone = look if not (decoder.needs_states or decoder.needs_token) else 0.0
        paints, bytes_ = (
            operations(paint),
            2 * 4 * weights(decoder) + (2 * weights(policy.model.visual) if alone else 0),
        )
        row = f"{name:24}{alone:16.0f}{paints:11.0f}{(alone + paints) / (step + alone + paints):11.1%}"
        print(row + f"{bytes_ / 1e9:13.2f}{bytes_ / (read_bytes + bytes_):11.1%}", flush=True)


@torch.no_grad()
def main() -> None:
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operation that nobody counts
    print(f"{'decoder':24}{'parameters':>12}{'GFLOPs: encode':>16}{'an answer':>11}{'8 : 1':>7}", end="")
    print(f"{'ms: encode':>12}{'an answer':>11}{'8 : 1':>7}")
    for name, make, width, patch in DECODERS:
        torch.manual_seed(0)
        with torch.device(DEVICE):
            decoder = make().eval()
            features = Features(
                vision=tuple(torch.randn(1, 1024, 32, 32) for _ in QWEN),
                image_states=torch.randn(1, width, 16, 16),
                pixels=torch.rand(1, 3, 32 * patch, 32 * patch),
                projected=torch.randn(1, width, 16, 16),
                projected_fine=torch.randn(1, width, 32, 32),
            )
            given = {"boxes": torch.rand(8, 2).repeat(1, 2) + torch.tensor([0, 0, 0.2, 0.3])}
            given["seg_states"] = torch.randn(8, width)
        state = decoder.encode_image(features)

        def encode(decoder=decoder, features=features) -> object:
            return decoder.encode_image(features)

        def decode(count: int, decoder=decoder, state=state, given=given) -> object:
            index = torch.zeros(count, dtype=torch.long, device=DEVICE)
            return decoder.decode(state, index, **{key: value[:count] for key, value in given.items()})

        row = f"{name:24}{weights(decoder):12,}"
        for measure in (operations, lambda work: 1e3 * seconds(work, 5)):
            encoding, one, eight = measure(encode), measure(lambda: decode(1)), measure(lambda: decode(8))
            row += f"{encoding:{16 if measure is operations else 12}.1f}{eight / 8:11.3f}"
            row += f"{(encoding + eight) / (encoding + one):7.2f}"
        print(row, flush=True)
    in_a_step()


if __name__ == "__main__":
    main()

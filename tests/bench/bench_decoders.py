"""What the answers to one picture cost a mask decoder: `OMP_NUM_THREADS=1 python tests/bench/bench_decoders.py`.

At the published widths and a vision grid of 32x32, for each decoder: parameters, floating-point operations and seconds
of encoding a picture and of decoding an answer, and how much more encoding with eight answers costs than with one.
Operations are those of matrix products, convolutions and attention. Runs on the GPU if there is one.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[2]))

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

        size = sum(parameter.numel() for parameter in decoder.parameters())
        row = f"{name:24}{size:12,}"
        for measure in (operations, lambda work: 1e3 * seconds(work, 5)):
            encoding, one, eight = measure(encode), measure(lambda: decode(1)), measure(lambda: decode(8))
            row += f"{encoding:{16 if measure is operations else 12}.1f}{eight / 8:11.3f}"
            row += f"{(encoding + eight) / (encoding + one):7.2f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()

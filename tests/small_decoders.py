"""The mask decoders at small widths, in every variant, and random features and answers for them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from segmentation.backbones.features import Features, Spec
from segmentation.decoders import BoxGuidedDecoder, DSFFDecoder, MaskDecoder, Self1EHead

LLM, VISION, PATCH = 24, 16, 8
SPEC = Spec("qwen3_vl", (5, 11), (VISION, VISION), LLM)
BOX: dict[str, Any] = {"hidden": 32, "layers": 2, "heads": 4, "feedforward": 64, "pixel": 16, "positions": 6}


def dsff(**kwargs) -> DSFFDecoder:
    return DSFFDecoder(LLM, VISION, **{"hidden": 32, "heads": 4, "upscale": 4, "spec": SPEC, **kwargs})


def box_guided(**kwargs) -> BoxGuidedDecoder:
    return BoxGuidedDecoder(LLM, (VISION, VISION), spec=SPEC, **{**BOX, **kwargs})


VARIANTS: dict[str, Callable[[], MaskDecoder]] = {
    "dsff": dsff,
    "dsff batch": lambda: dsff(norm="batch"),
    "dsff concat": lambda: dsff(fusion="concat"),
    "dsff vision": lambda: dsff(fusion="vision"),
    "dsff llm": lambda: dsff(fusion="llm"),
    "dsff widths": lambda: DSFFDecoder(LLM, VISION, hidden=24, heads=2, upscale=2, mid=3, groups=2, spec=SPEC),
    "box": box_guided,
    "box multi_scale": lambda: box_guided(multi_scale=False),
    "box box_query": lambda: box_guided(box_query=False),
    "box pixel_fusion": lambda: box_guided(pixel_fusion=False),
    "box refinements": lambda: box_guided(refinements=0),
    "box twice refined": lambda: box_guided(refinements=2),
    "box use_token": lambda: box_guided(use_token=False),
    "box use_states": lambda: box_guided(use_states=False),
    "box alone": lambda: box_guided(use_token=False, use_states=False),
    "box gate alone": lambda: box_guided(use_token=False, box_query=False),
    "box token alone": lambda: box_guided(box_query=False, pixel_fusion=False),
    "self1e": lambda: Self1EHead(LLM, spec=SPEC),
}


def pictures(grid: tuple[int, int], count: int = 2, seed: int = 1) -> Features:
    """Random features of `count` pictures whose language-model grid is `grid`, everything in them."""
    draw = torch.Generator().manual_seed(seed)
    h, w = grid
    return Features(
        vision=tuple(torch.randn(count, VISION, 2 * h, 2 * w, generator=draw) for _ in range(2)),
        image_states=torch.randn(count, LLM, h, w, generator=draw),
        pixels=torch.rand(count, 3, 2 * h * PATCH, 2 * w * PATCH, generator=draw),
        projected=torch.randn(count, LLM, h, w, generator=draw),
        projected_fine=torch.randn(count, LLM, 2 * h, 2 * w, generator=draw),
    )


# The picture; a corner; over the border; one pixel of 1,000; outside; a line; a point; inverted; far outside.
BOXES = torch.tensor([
    [0.0, 0.0, 1.0, 1.0], [0.9, 0.9, 1.0, 1.0], [-0.2, 0.3, 0.4, 1.3], [0.5, 0.5, 0.501, 0.501], [1.5, 1.5, 1.9, 1.8],
    [0.2, 0.4, 0.8, 0.4], [0.3, 0.3, 0.3, 0.3], [0.7, 0.8, 0.2, 0.1], [-9.0, 5.0, -8.0, 70.0],
])  # fmt: skip


def answers(count: int = len(BOXES), seed: int = 2) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {"boxes": BOXES[:count], "seg_states": torch.randn(count, LLM, generator=draw)}


def decode(decoder: MaskDecoder, features: Features, index: Tensor, **given) -> tuple[Tensor, Tensor | None]:
    return decoder.decode(decoder.encode_image(features), index, **given)


def cut(value: Any, picture: int) -> Any:
    return tuple(cut(part, picture) for part in value) if isinstance(value, tuple) else value[picture : picture + 1]


def size(decoder: nn.Module) -> int:
    return sum(parameter.numel() for parameter in decoder.parameters())

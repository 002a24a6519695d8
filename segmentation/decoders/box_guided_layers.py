"""Parts of the box-guided decoder: boxes as numbers and as soft windows, query layers, the branch for pixels."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from segmentation.decoders.mask_decoder import of_pictures

SMALLEST = 1e-4  # of a side, as a share of the picture: thinner and inverted boxes count as this thin


def box_fourier(boxes: Tensor, frequencies: int) -> Tensor:
    """Fourier features of x1, y1, 0.2 log w + 0.5 and 0.2 log h + 0.5, `(N, 4)` to `(N, 8 * frequencies)`.

    Wave lengths run from 2 down to 2 / 256, in the picture's width and height.
    """
    corner, size = boxes[:, :2], (boxes[:, 2:] - boxes[:, :2]).clamp(min=SMALLEST)
    numbers = torch.cat([corner, 0.2 * size.log() + 0.5], dim=1)  # (N, 4)
    waves = math.pi * torch.logspace(0, 8, frequencies, base=2, device=boxes.device, dtype=boxes.dtype)
    angles = numbers[..., None] * waves  # (N, 4, frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


def box_gate(boxes: Tensor, height: int, width: int, margin: float, sharpness: float) -> Tensor:
    """How far each pixel's centre lies inside widened boxes, `(N, 4)` to `(N, height, width)` in 0..1.

    The product of four sigmoids, of `sharpness` times the distances to the sides in the picture's width and height.

    Args:
        margin: by which share of its width and height a box is widened in all, half of it on each side.
    """
    widened = 0.5 * margin * (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    low, high = boxes[:, :2] - widened, boxes[:, 2:] + widened
    sides = []
    for axis, cells in enumerate((width, height)):
        centres = (torch.arange(cells, device=boxes.device, dtype=boxes.dtype) + 0.5) / cells
        before, after = centres - low[:, axis, None], high[:, axis, None] - centres  # (N, cells)
        sides.append((sharpness * before).sigmoid() * (sharpness * after).sigmoid())
    return sides[1][:, :, None] * sides[0][:, None, :]


class QueryLayer(nn.Module):
    """A pre-norm decoder layer for lone queries: cross-attention and a feed-forward network.

    It has no self-attention, which over one query would be a linear map with query and key weights that cannot learn,
    and no bias of the keys, which a softmax cannot see.

    Args:
        width: of queries and memory.
        heads: must divide `width`.
        feedforward: inner width.
    """

    def __init__(self, width: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.feedforward = nn.Sequential(nn.Linear(width, feedforward), nn.ReLU(), nn.Linear(feedforward, width))

    def remember(self, memory: Tensor) -> Tensor:
        """Keys and values of `(B, L, d)`, `(B, 2, heads, L, d / heads)`: what queries to one picture share."""
        both = torch.stack([self.key(memory), self.value(memory)], dim=1)  # (B, 2, L, d)
        return both.unflatten(-1, (self.heads, -1)).transpose(2, 3)

    def forward(self, queries: Tensor, remembered: Tensor, index: Tensor) -> Tensor:
        """`(N, d)` queries, each to its picture's part of `remember`'s result."""
        asked = self.query(self.norm1(queries)).unflatten(-1, (self.heads, 1, -1))  # (N, heads, 1, d / heads)
        keys, values = of_pictures(remembered, index).unbind(1)  # (N, heads, L, d / heads)
        queries = queries + self.out(F.scaled_dot_product_attention(asked, keys, values).flatten(1))
        return queries + self.feedforward(self.norm2(queries))


class Level(nn.Module):
    """One level of multi-scale spatial feature injection: `x + s * GELU(DWConv(GroupNorm(x)))` of a projected map.

    The learned scalar s starts at 0.001, so that a level starts as its projection.
    """

    def __init__(self, vision_dim: int, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(vision_dim, width, 1)
        self.norm = group_norm(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.scale = nn.Parameter(torch.tensor(1e-3))

    def forward(self, cells: Tensor) -> Tensor:
        """`(B, vision_dim, h, w)` to `(B, width, h, w)`."""
        projected = self.project(cells)
        return projected + self.scale * F.gelu(self.depthwise(self.norm(projected)))


class Upsample(nn.Sequential):
    """`2 ** doublings` times the grid: each a 3x3 convolution, a PixelShuffle and a GELU, with a norm in between."""

    def __init__(self, width: int, pixel: int, doublings: int) -> None:
        parts: list[nn.Module] = []
        for _ in range(doublings - 1):
            parts += [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), group_norm(width), nn.GELU()]
        super().__init__(*parts, nn.Conv2d(width, 4 * pixel, 3, padding=1), nn.PixelShuffle(2), nn.GELU())


class Stem(nn.Sequential):
    """Pixels to features at `1 / stride` of their resolution: three 3x3 convolutions, the first ones of stride 2.

    Raises:
        ValueError: `stride` is not 1, 2, 4 or 8.
    """

    def __init__(self, pixel: int, stride: int) -> None:
        if stride not in (1, 2, 4, 8):
            raise ValueError(f"BoxGuidedDecoder: stem_stride={stride}: 1, 2, 4 or 8.")
        conv = partial(Conv2dNormActivation, norm_layer=group_norm, activation_layer=nn.GELU, inplace=None)
        first, second, third = (2 if stride >= 2**count else 1 for count in (1, 2, 3))
        super().__init__(
            conv(3, pixel // 2, stride=first), conv(pixel // 2, pixel, stride=second), conv(pixel, pixel, stride=third)
        )


def group_norm(width: int) -> nn.GroupNorm:
    """Over groups of 8 channels, or all at once where 8 does not divide their number."""
    return nn.GroupNorm(width // 8 if width % 8 == 0 else 1, width)

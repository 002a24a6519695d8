"""What a light mask decoder sees of a picture: maps of the policy's vision encoder, image states, pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Spec:
    """Which policy features come from; saved beside a decoder, and compared when it is put onto a policy.

    Args:
        family: `config.model_type` of the policy, as "qwen2_5_vl".
        vision_layers: the vision encoder's blocks whose outputs are the maps, counted from 0.
        vision_dims: channels of each of those maps.
        llm_dim: width of the language model.
    """

    family: str
    vision_layers: tuple[int, ...]
    vision_dims: tuple[int, ...]
    llm_dim: int


@dataclass(frozen=True, slots=True)
class Features:
    """Features of `B` pictures of one size, in raster order whatever order the model computes them in.

    Args:
        vision: a map for each chosen layer of the vision encoder, `(B, C, h, w)` at its true grid, before patches are
            merged.
        image_states: the language model's last hidden states of the image tokens as a grid, `(B, D, h', w')`; None if
            no language-model pass was made.
        pixels: the picture the model saw, RGB in 0..1, `(B, 3, H, W)`.
        projected: what the policy's projector gives the language model, `(B, D, h', w')`; made, like the next, only for
            decoders that need it (Self1EHead).
        projected_fine: the same projector's outputs for the cells of `projector_cells`, `(B, D, h, w)`.
    """

    vision: tuple[Tensor, ...]
    image_states: Tensor | None
    pixels: Tensor
    projected: Tensor | None = None
    projected_fine: Tensor | None = None

    @property
    def _optional(self) -> tuple[Tensor | None, ...]:
        return self.image_states, self.projected, self.projected_fine

    @property
    def size(self) -> tuple[tuple[int, ...], ...]:
        """What pictures must share to be in one batch."""
        maps = (*self.vision, self.pixels, *self._optional)
        return tuple(() if map_ is None else tuple(map_.shape[1:]) for map_ in maps)

    def to(self, *args, **kwargs) -> Features:
        """On another device or in another type, as `Tensor.to`."""
        states, projected, fine = (None if map_ is None else map_.to(*args, **kwargs) for map_ in self._optional)
        vision = tuple(map_.to(*args, **kwargs) for map_ in self.vision)
        return Features(vision, states, self.pixels.to(*args, **kwargs), projected, fine)


def stack(features: Sequence[Features]) -> Features:
    """Pictures of one size as one batch. Raises ValueError naming two sizes that differ."""
    sizes = dict.fromkeys(one.size for one in features)
    if len(sizes) != 1:
        raise ValueError(
            f"stack: {len(features)} pictures with {len(sizes)} sizes {list(sizes)[:2]}; group them first."
        )
    return Features(
        vision=tuple(torch.cat(maps) for maps in zip(*(one.vision for one in features), strict=True)),
        image_states=_joined([one.image_states for one in features]),
        pixels=torch.cat([one.pixels for one in features]),
        projected=_joined([one.projected for one in features]),
        projected_fine=_joined([one.projected_fine for one in features]),
    )


def _joined(maps: list[Tensor | None]) -> Tensor | None:
    there = [map_ for map_ in maps if map_ is not None]
    return torch.cat(there) if there else None


def by_size(features: Sequence[Features], pixels: int | None = None) -> Iterator[tuple[list[int], Features]]:
    """Pictures gathered into as few batches as their sizes allow, each with the positions its pictures had.

    Args:
        pixels: of all pictures of a batch, at most; a larger picture is a batch of its own. None: any number.
    """
    groups: dict[tuple, list[int]] = {}
    for position, one in enumerate(features):
        groups.setdefault(one.size, []).append(position)
    for positions in groups.values():
        most = len(positions) if pixels is None else max(pixels // features[positions[0]].pixels[0, 0].numel(), 1)
        for first in range(0, len(positions), most):
            where = positions[first : first + most]
            yield where, stack([features[position] for position in where])


def projector_cells(vision: Tensor, how: Literal["replicate", "scan"]) -> Tensor:
    """What a projector that merges 2x2 patches is given so that it keeps the vision encoder's grid (SELF1E).

    Args:
        vision: `(B, C, h, w)`.
        how: "replicate": each patch four times; "scan": the four patches of each window of stride 1, the last row and
            column doubled.

    Returns:
        `(B, 4 C, h, w)`, the four patches in raster order, each with all its channels: the order in which both Qwen's
        merger and InternVL's pixel shuffle join them.
    """
    if how == "replicate":
        return vision.repeat(1, 4, 1, 1)
    padded = F.pad(vision, (0, 1, 0, 1), mode="replicate")
    return torch.cat([padded[..., y : y + vision.shape[2], x : x + vision.shape[3]] for y in (0, 1) for x in (0, 1)], 1)

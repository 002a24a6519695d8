"""`Self1EHead`: the language model's own image states as mask features, refilled with detail (SELF1E)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MLP

from segmentation.backbones.features import Features, Spec
from segmentation.decoders.mask_decoder import MaskDecoder, of_pictures


@dataclass(frozen=True, slots=True)
class Self1EState:
    """Of `B` pictures.

    Args:
        fine: what tokens are compared with, `(B, D, 2h, 2w)` for a vision grid of h x w.
        coarse: the states before they are refilled, `(B, D, h, w)`, for the auxiliary logits.
    """

    fine: Tensor
    coarse: Tensor


class Self1EHead(MaskDecoder):
    """Residual features refilling and amplifying of SELF1E: three MLPs, 12 d^2 + 12 d parameters, and a dot product.

    With V1 the projector's outputs and V1_HQ the same projector's on the unmerged grid, and `shuffle` a pixel shuffle:

        fine = shuffle(own(V1_HQ)) + resize(shuffle(spread(states) - own(V1)))
        logits = combine(fine) . combine(mean of the four parts of spread(token)) / sqrt(d)

    So what the language model changed, on the merged grid, is added to detail that merging had lost.

    The projector is not the decoder's: the backbone supplies `Features.projected` and `Features.projected_fine`.

    **Not the paper's policy.** SELF1E lets image tokens see each other and the segmentation token; here the policy
    stays causal, as TRL and vLLM run it, and its image states, which stand before the expression, know nothing of it:
    the token alone says what is meant. The paper's figures are not to be expected.

    Chosen where paper and code notes are silent: the auxiliary logits, at the vision grid, are those of the states
    without any refilling, `shuffle(spread(states))`; the token is the same.

    Args:
        llm_dim: width d of the language model.
        cells: what the projector is given at the unmerged grid, see `projector_cells`. The head itself does not use it:
            it is saved so that the features of training can be had again.
        spec: see MaskDecoder.
    """

    needs_states = True
    needs_token = True
    needs_box = False
    needs_projected = True

    def __init__(
        self, llm_dim: int, cells: Literal["replicate", "scan"] = "replicate", spec: Spec | dict | None = None
    ) -> None:
        super().__init__(spec)
        self.cells = cells
        self.combine = MLP(llm_dim, [llm_dim, llm_dim], activation_layer=nn.GELU)
        self.spread = MLP(llm_dim, [llm_dim, 4 * llm_dim], activation_layer=nn.GELU)
        self.own = MLP(llm_dim, [llm_dim, 4 * llm_dim], activation_layer=nn.GELU)

    def encode_image(self, features: Features) -> Self1EState:
        """Raises ValueError without image states or one of the projector's outputs: all three are what it works on."""
        always = "no setting removes that need"
        states = self._need(features.image_states, "image_states", always)  # (B, D, h', w')
        merged = self._need(features.projected, "projected", always)
        unmerged = self._need(features.projected_fine, "projected_fine", always)  # (B, D, h, w)
        spread = _each_cell(self.spread, states)  # (B, 4 D, h', w')
        detail = F.pixel_shuffle(_each_cell(self.own, unmerged), 2)  # (B, D, 2h, 2w)
        change = F.pixel_shuffle(spread - _each_cell(self.own, merged), 2)  # (B, D, 2h', 2w')
        fine = detail + F.interpolate(change, detail.shape[-2:], mode="bilinear", align_corners=False)
        return Self1EState(_each_cell(self.combine, fine), F.pixel_shuffle(spread, 2))

    def decode(
        self, state: Self1EState, index: Tensor, boxes: Tensor | None = None, seg_states: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Mask logits `(N, 2h, 2w)` for a vision grid of h x w; see MaskDecoder."""
        return self._compare(state.fine, index, seg_states), None

    def auxiliary(self, state: Self1EState, index: Tensor, seg_states: Tensor | None) -> Tensor:
        """Logits `(N, 2h', 2w')` of the unrefilled states, which training gives the same losses."""
        return self._compare(_each_cell(self.combine, state.coarse), index, seg_states)

    def _compare(self, cells: Tensor, index: Tensor, seg_states: Tensor | None) -> Tensor:
        seg_states = self._need(
            seg_states, "seg_states", "no setting removes that need, but BoxGuidedDecoder(use_token=False) needs none"
        )
        token = self.combine(self.spread(seg_states).unflatten(-1, (-1, 4)).mean(-1))  # (N, D); shuffle's sub-vectors
        return torch.einsum("nd,ndhw->nhw", token, of_pictures(cells, index)) * token.shape[-1] ** -0.5


def _each_cell(mlp: nn.Module, cells: Tensor) -> Tensor:
    """An MLP on the channels of `(B, C, h, w)`."""
    return mlp(cells.movedim(1, -1)).movedim(-1, 1)

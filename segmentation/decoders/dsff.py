"""`DSFFDecoder`: vision maps and language-model states fused, then asked with a segmentation token (MLLMSeg)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmentation.backbones.features import Features, Spec
from segmentation.decoders.mask_decoder import MaskDecoder, of_pictures


class DSFFDecoder(MaskDecoder):
    """The light mask decoder of MLLMSeg (arXiv 2508.04107), with the variants of its ablation.

    Vision tokens attend to the language model's image states; the result, the vision tokens and the states upsampled by
    DySample are concatenated, projected and asked with the state of one segmentation token; a 3x3 convolution and a
    pixel shuffle make the mask. At the default widths 34,385,542 parameters ("dsff"), 22,832,774 ("concat": without the
    attention), 21,784,198 ("llm") or 17,556,070 ("vision"): as published.

    Published, and kept for the sake of those counts: the query and key weights of the attention to the token cannot
    learn, since a softmax over one key is 1. Not kept: dropout of that attention's weight; the layer's other dropouts
    remain. Not kept either, unless `norm="batch"`: BatchNorm. All published pictures are of one size; where sizes
    differ, a batch holds the few pictures that share one, and the statistics that evaluation uses are of no batch that
    was trained on (eight real pictures of five sizes: IoU 0.99 in training, 0.89 in evaluation).

    Chosen where paper and code are silent: DySample's offsets start as its authors' do, normal with deviation 0.001;
    `vision_dim` different from `hidden` costs one more projection.

    Args:
        llm_dim: width of the language model.
        vision_dim: channels of the vision map; of several maps the last is used.
        fusion: what the token asks: "dsff", "concat" (vision map and states), "vision" or "llm" alone.
        hidden: width inside.
        heads: of all attention; must divide `hidden`.
        dropout: inside the two attention layers.
        upscale: logits per cell of the vision grid and side.
        mid: channels at the resolution of the logits.
        norm: between the convolutions: "group" (one group, each mask by itself) or "batch", as published; as many
            parameters.
        groups: of channels that DySample moves together; must divide `hidden`.
        spec: see MaskDecoder.
    """

    needs_token = True
    needs_box = False

    def __init__(
        self,
        llm_dim: int = 4096,
        vision_dim: int = 1024,
        fusion: Literal["dsff", "concat", "vision", "llm"] = "dsff",
        hidden: int = 1024,
        heads: int = 8,
        dropout: float = 0.1,
        upscale: int = 14,
        mid: int = 1,
        groups: int = 4,
        norm: Literal["group", "batch"] = "group",
        spec: Spec | dict | None = None,
    ) -> None:
        super().__init__(spec)
        parts = {"vision": 1, "llm": 1, "concat": 2, "dsff": 3}
        if fusion not in parts:
            raise ValueError(f"fusion={fusion!r}: one of {', '.join(parts)}.")
        if norm not in ("group", "batch"):
            raise ValueError(f"norm={norm!r}: group or batch.")
        self.fusion, self.upscale = fusion, upscale
        self.needs_states = fusion != "vision"

        self.text_down = nn.Linear(llm_dim, hidden)
        if fusion != "llm":
            self.vision_in = nn.Linear(vision_dim, hidden) if vision_dim != hidden else nn.Identity()
        if fusion != "vision":
            self.image_down = nn.Linear(llm_dim, hidden)
            self.upsample = DySample(hidden, groups)
        if fusion == "dsff":
            layer = nn.TransformerDecoderLayer(hidden, heads, hidden, dropout, batch_first=True)
            self.vision_to_states = nn.TransformerDecoder(layer, 1, nn.LayerNorm(hidden))
        self.fuse = nn.Linear(parts[fusion] * hidden, hidden)
        self.ask = TokenLayer(hidden, heads, hidden, dropout, batch_first=True)
        self.ask_norm = nn.LayerNorm(hidden)
        fine = mid * upscale**2
        self.conv1 = nn.Conv2d(hidden, fine, 3, padding=1)
        self.norm = nn.BatchNorm2d(fine) if norm == "batch" else nn.GroupNorm(1, fine)
        self.conv2 = nn.Conv2d(mid, 1, 5, padding=2)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and not name.startswith("upsample."):
                nn.init.xavier_uniform_(parameter)

    def encode_image(self, features: Features) -> Tensor:
        """The fused tokens after their self-attention, `(B, h, w, hidden)`: all that comes before the token.

        Raises:
            ValueError: no image states, unless fusion="vision"; a vision grid that is not twice theirs.
        """
        grid = features.vision[-1].shape[-2:]
        parts: list[Tensor] = []  # each (B, h w, hidden)
        if self.fusion != "llm":
            parts.append(self.vision_in(_tokens(features.vision[-1])))
        if self.fusion != "vision":
            states = self._need(features.image_states, "image_states", 'fusion="vision" needs none')
            small = states.shape[-2:]
            if grid != (2 * small[0], 2 * small[1]):
                raise ValueError(f"DSFFDecoder: vision grid {tuple(grid)} is not twice that of states {tuple(small)}.")
            memory = self.image_down(_tokens(states))  # (B, h' w', hidden)
            parts.append(_tokens(self.upsample(memory.mT.unflatten(2, small))))
            if self.fusion == "dsff":
                parts.insert(0, self.vision_to_states(parts[0], memory))
        fused = self.ask.attend_to_itself(self.fuse(torch.cat(parts, dim=-1)))
        return fused.unflatten(1, grid)

    def decode(
        self, state: Tensor, index: Tensor, boxes: Tensor | None = None, seg_states: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Mask logits `(N, upscale * h, upscale * w)`; see MaskDecoder."""
        seg_states = self._need(
            seg_states, "seg_states", "no setting removes that need, but BoxGuidedDecoder(use_token=False) needs none"
        )
        tokens = of_pictures(state, index).flatten(1, 2)  # (N, h w, hidden)
        tokens = self.ask_norm(self.ask.attend_to_token(tokens, self.text_down(seg_states)))
        cells = tokens.mT.unflatten(2, state.shape[1:3])  # (N, hidden, h, w)
        fine = F.pixel_shuffle(F.relu(self.norm(self.conv1(cells))), self.upscale)  # (N, mid, upscale h, upscale w)
        return self.conv2(fine)[:, 0], None


class TokenLayer(nn.TransformerDecoderLayer):
    """A post-norm decoder layer whose memory is a single token, in two halves of which the first needs no token."""

    def attend_to_itself(self, target: Tensor) -> Tensor:
        """First half: self-attention of `(B, L, d)`."""
        attended, _ = self.self_attn(target, target, target, need_weights=False)
        return self.norm1(target + self.dropout1(attended))

    def attend_to_token(self, target: Tensor, token: Tensor) -> Tensor:
        """Second half: `(N, L, d)` attends to `(N, d)`, then the feed-forward network.

        A softmax over one key is 1, so every position is given the token's value, and no query is computed.
        """
        attention, width = self.multihead_attn, token.shape[-1]
        value = F.linear(token, attention.in_proj_weight[-width:], attention.in_proj_bias[-width:])
        value = attention.out_proj(value)[:, None]  # (N, 1, d)
        target = self.norm2(target + self.dropout2(value.expand_as(target)))
        inner = self.linear2(self.dropout(F.relu(self.linear1(target))))
        return self.norm3(target + self.dropout3(inner))


class DySample(nn.Module):
    """Twice the grid, by sampling at learned positions (DySample, arXiv 2308.15085, variant "lp" with static scope).

    Args:
        channels: of the map.
        groups: of channels that share positions.
    """

    def __init__(self, channels: int, groups: int = 4) -> None:
        super().__init__()
        self.groups = groups
        self.offset = nn.Conv2d(channels, 2 * groups * 4, 1)  # x and y, for each group, of four new cells a cell
        nn.init.normal_(self.offset.weight, std=0.001)
        nn.init.zeros_(self.offset.get_parameter("bias"))

    def forward(self, cells: Tensor) -> Tensor:
        """`(B, C, h, w)` to `(B, C, 2h, 2w)`. With all offsets zero this is bilinear resizing."""
        batch, _, height, width = cells.shape
        offset = F.pixel_shuffle(self.offset(cells), 2).unflatten(1, (2, self.groups))  # (B, 2, groups, 2h, 2w)
        x, y = ((torch.arange(2 * side, device=cells.device) + 0.5) / 2 for side in (width, height))
        y, x = torch.meshgrid(y, x, indexing="ij")  # (2h, 2w), in old cells
        at = torch.stack([x, y])[:, None] + 0.25 * offset.float()  # bfloat16 cannot tell neighbouring cells apart
        at = 2 * at.permute(0, 2, 3, 4, 1) / at.new_tensor([width, height]) - 1  # (B, groups, 2h, 2w, 2), in -1..1
        parts = cells.float().unflatten(1, (self.groups, -1)).flatten(0, 1)  # (B groups, C / groups, h, w)
        fine = F.grid_sample(parts, at.flatten(0, 1), mode="bilinear", padding_mode="border", align_corners=False)
        return fine.unflatten(0, (batch, self.groups)).flatten(1, 2).to(cells.dtype)


def _tokens(cells: Tensor) -> Tensor:
    """`(B, C, h, w)` as `(B, h w, C)`."""
    return cells.flatten(2).mT

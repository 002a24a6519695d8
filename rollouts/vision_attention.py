"""Attention of Qwen's vision tower over many small images at once, for machines without flash-attention.

Without flash-attention transformers attends to one image (or window) after the other in a Python loop. Images of one
size - all completions of a prompt, a batch of scenes - fit into one batched call of torch's scaled-dot-product
attention. It is registered under a name with "flash" in it, because that is what makes transformers hand over the
whole sequence with its `cu_seqlens` instead of looping (`is_flash_attention_requested`, transformers 5.17).
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "batched_flash_sdpa"


def batched_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    dropout: float = 0.0,
    **_,
) -> tuple[torch.Tensor, None]:
    """Full attention within each segment of `cu_seq_lens_q`; tensors are `(1, heads, tokens, width)`.

    Segments of equal length are attended to in one call, others one by one. Returns `(1, tokens, heads, width)`.
    """
    lengths = cu_seq_lens_q.diff().tolist()
    attend = nn.functional.scaled_dot_product_attention
    if len(set(lengths)) == 1:
        heads, width = query.shape[1], query.shape[3]
        q, k, v = (t[0].view(heads, len(lengths), lengths[0], width).transpose(0, 1) for t in (query, key, value))
        out = attend(q, k, v, dropout_p=dropout, scale=scaling)  # (segments, heads, length, width)
        return out.transpose(1, 2).reshape(1, -1, heads, width), None
    parts = zip(*(t.split(lengths, dim=2) for t in (query, key, value)), strict=True)
    outs = [attend(q, k, v, dropout_p=dropout, scale=scaling) for q, k, v in parts]
    return torch.cat(outs, dim=2).transpose(1, 2), None


AttentionInterface.register(NAME, batched_attention)


def batch_vision_attention(model: PreTrainedModel) -> None:
    """Let a Qwen2.5-VL or Qwen3-VL vision tower attend to images of one size together. Same numbers, fewer calls."""
    model.set_attn_implementation({"vision_config": NAME})

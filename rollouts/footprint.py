"""What each part of a training takes of a GPU, in bytes: formulas, and where they are from.

Symbols: `b` sequences of `s` tokens; the language model has `L` layers of width `h`, `a` heads and `k` key-value heads
of width `d`, a feedforward of width `i` and `V` rows; `e` bytes an activation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

TOKEN_TILE, VOCABULARY_TILE = 4096, 32768  # of TRL's fused head (trl/kernels/chunked_logprob.py, trl/trainer/utils.py)


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack of transformer layers, of the language model or of the vision encoder; the letters above."""

    layers: int
    width: int
    heads: int
    groups: int
    head: int
    feedforward: int
    gated: bool = True  # SwiGLU: two matrices in, one out; otherwise one in
    qk_norm: bool = False


def language_stack(config: Any) -> Stack:
    """The language model of a policy's config."""
    text = config.text_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Stack(
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        heads=text.num_attention_heads,
        groups=text.num_key_value_heads,
        head=head,
        feedforward=text.intermediate_size,
        qk_norm=text.model_type.startswith("qwen3"),
    )


def vision_stack(config: Any) -> Stack:
    """The vision encoder of a policy's config."""
    vision = config.vision_config
    heads = getattr(vision, "num_heads", None) or vision.num_attention_heads
    return Stack(
        layers=getattr(vision, "depth", None) or vision.num_hidden_layers,
        width=vision.hidden_size,
        heads=heads,
        groups=heads,
        head=vision.hidden_size // heads,
        feedforward=vision.intermediate_size,
        gated=config.model_type == "qwen2_5_vl",
    )


def patches(config: Any, max_pixels: int) -> int:
    """Patches of a picture of `max_pixels` as the vision encoder sees it; InternVL's with a CLS token and thumbnail."""
    vision = config.vision_config
    if config.model_type == "internvl":
        (height, width), (patch_height, patch_width) = vision.image_size, vision.patch_size
        tiles = max_pixels // (height * width)
        return (tiles + (tiles > 1)) * (height // patch_height * (width // patch_width) + 1)
    return max_pixels // vision.patch_size**2


def pixel_bytes(config: Any, max_pixels: int) -> int:
    """`pixel_values` of a picture of `max_pixels`, float32: Qwen repeats a still picture to fill a patch's frames."""
    vision = config.vision_config
    if config.model_type == "internvl":
        tiles = max_pixels // (vision.image_size[0] * vision.image_size[1])
        return 4 * 3 * (tiles + (tiles > 1)) * vision.image_size[0] * vision.image_size[1]
    return 4 * 3 * vision.temporal_patch_size * max_pixels


def weights(parameters: Iterable[torch.Tensor]) -> int:
    """Each parameter once, in its own type."""
    return sum(one.numel() * one.element_size() for one in parameters)


def adamw(trained: Iterable[torch.Tensor]) -> int:
    """AdamW's two moments in the type of the parameter, and a step count of 4 bytes for each (torch.optim.AdamW)."""
    return sum(2 * one.numel() * one.element_size() + 4 for one in trained)


def zero_states(trained: int, gpus: int) -> int:
    """The share of one GPU in ZeRO's float32 copy of the trained weights and its two moments: `12 T / N` bytes.

    Rajbhandari et al. 2020, arXiv 1910.02054, section 3.1: mixed-precision Adam keeps `K = 12` bytes a parameter.
    """
    return 12 * trained // gpus


def layer(stack: Stack, lora: bool, element: int = 2, dropout: bool = False, rank: int = 0) -> int:
    """Bytes a token that autograd keeps of one layer, attention being computed without its matrix (SDPA, flash).

    Counted as in Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1), of the layers of Qwen2.5, Qwen3 and InternViT
    instead of GPT's. Trained weights: every matrix keeps its input, a norm its input in float32 and its output before
    the weight. With LoRA the matrices are frozen and keep nothing, but each adapter keeps an input of its own, a byte
    an element more if there is dropout, and `rank` elements between its matrices. Attention keeps q, k, v and its
    output, the feedforward what is on both sides of its activation.
    """
    h, i, e = stack.width, stack.feedforward, element
    ad, kd = stack.heads * stack.head, stack.groups * stack.head
    norm = 4 if lora else 4 + e
    kept = 2 * norm * h + e * (2 * ad + 2 * kd)
    if stack.qk_norm:
        kept += norm * (ad + kd)
    kept += e * i * (3 if stack.gated else 1)
    if not lora:
        return kept + e * (2 * h + ad + i)  # inputs: of q, k, v; of gate and up; of the output's; of down
    inputs = 3 * h + ad + (2 * h if stack.gated else h) + i
    return kept + (e + dropout) * inputs + 7 * e * rank


def training_activations(stack: Stack, tokens: int, per_token: int, checkpointing: bool, element: int = 2) -> int:
    """What is kept between forward and backward of `tokens` (`b s`), and the gradients of the layer at work.

    With gradient checkpointing (Chen et al. 2016, arXiv 1604.06174, as transformers has it: one segment a layer) the
    input of each layer, and all of one layer: `b s (L e h + layer)`; without, `b s L layer`. The last norm is kept
    either way, `b s (4 + e) h`.
    """
    gradients = element * tokens * (2 * stack.feedforward + 2 * stack.width)
    last = tokens * (4 + element) * stack.width
    if checkpointing:
        return tokens * (stack.layers * element * stack.width + per_token) + last + gradients
    return tokens * stack.layers * per_token + last + gradients


def pass_without_gradients(stack: Stack, tokens: int, element: int = 2) -> int:
    """The widest moment of a layer whose inputs are thrown away: its feedforward, or q, k, v turned in float32."""
    ad, kd = stack.heads * stack.head, stack.groups * stack.head
    feedforward = element * (3 if stack.gated else 2) * stack.feedforward
    attention = element * (2 * ad + 2 * kd) + 4 * (ad + kd)
    return tokens * (max(feedforward, attention) + 2 * element * stack.width)


def loss(stack: Stack, rows: int, completion_tokens: int, head_trained: bool) -> int:
    """TRL's fused head, which never holds all logits: a tile in float32, and the gradients it adds up in float32.

    `4 min(n, 4096) 32768 + 4 32768 h + 4 n h`, and `4 V h` where the head itself is trained.
    """
    tile = 4 * min(completion_tokens, TOKEN_TILE) * VOCABULARY_TILE + 4 * VOCABULARY_TILE * stack.width
    return tile + 4 * completion_tokens * stack.width + (4 * rows * stack.width if head_trained else 0)


def key_values(stack: Stack, tokens: int, element: int = 2) -> int:
    """Keys and values of `tokens`: `2 L k d e` bytes each (Kwon et al. 2023, arXiv 2309.06180, section 3)."""
    return 2 * stack.layers * stack.groups * stack.head * element * tokens

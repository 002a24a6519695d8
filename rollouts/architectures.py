"""What a policy is made of, without its weights: its config, and the model on torch's meta device.

The released models that configs/model names are written down here, from the config.json of their repositories, so that
a run can be planned on a machine that has neither their files nor a network. A test holds each to the number of
parameters that its repository states.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    InternVLConfig,
    PretrainedConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
)

from rollouts.device import whole_models
from rollouts.policy import Model
from segmentation.processor import is_missing_folder


def architecture(path: str | Path) -> PretrainedConfig:
    """The config of the model at `path`: of a folder its config.json, of a released model the one written down here.

    Raises:
        FileNotFoundError: `path` looks like a local folder and is not there.
    """
    if is_missing_folder(path):
        raise FileNotFoundError(f"model.path={path}: no such folder; run the stage that writes it first.")
    if str(path) in RELEASED:
        build, sizes = RELEASED[str(path)]
        return build(**sizes)
    return AutoConfig.from_pretrained(path)


def on_meta(config: PretrainedConfig, dtype: str) -> Model:
    """The model of that config with parameters that have a shape and a type, and take no memory."""
    kind = getattr(config, "dtype", None) or torch.float32 if dtype == "auto" else getattr(torch, dtype)
    with torch.device("meta"), whole_models():
        return AutoModelForImageTextToText.from_config(config, dtype=kind)


def image_tokens(config: Any, max_pixels: int) -> int:
    """Tokens that a picture of `max_pixels` costs the language model.

    Qwen: one for each square of `patch_size * spatial_merge_size` pixels. InternVL: `image_seq_length` for each tile,
    and for the thumbnail where there are several.
    """
    vision = config.vision_config
    if config.model_type == "internvl":
        height, width = vision.image_size
        tiles = max_pixels // (height * width)
        return config.image_seq_length * (tiles + (tiles > 1))
    return max_pixels // (vision.patch_size * vision.spatial_merge_size) ** 2


def _qwen2_5_vl(width: int, layers: int, heads: int, groups: int, feedforward: int, rows: int, tied: bool) -> Any:
    return Qwen2_5_VLConfig(
        text_config={
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "intermediate_size": feedforward,
            "vocab_size": rows,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "num_heads": 16,
            "intermediate_size": 3420,
            "out_hidden_size": width,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        tie_word_embeddings=tied,
    )


def _qwen3_vl(width: int, feedforward: int, tied: bool, vision: tuple[int, int, int], deepstack: list[int]) -> Any:
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    depth, vision_width, vision_feedforward = vision
    return Qwen3VLConfig(
        text_config={
            "hidden_size": width,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": feedforward,
            "vocab_size": 151936,
            "rope_parameters": rope,
        },
        vision_config={
            "depth": depth,
            "hidden_size": vision_width,
            "num_heads": 16,
            "intermediate_size": vision_feedforward,
            "out_hidden_size": width,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": deepstack,
        },
        tie_word_embeddings=tied,
    )


def _internvl3(width: int, heads: int, groups: int, feedforward: int) -> Any:
    return InternVLConfig(
        text_config={
            "model_type": "qwen2",
            "hidden_size": width,
            "num_hidden_layers": 28,
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "intermediate_size": feedforward,
            "vocab_size": 151674,
        },
        vision_config={  # InternViT-300M-448px
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            "image_size": [448, 448],
            "patch_size": [14, 14],
            "attention_bias": True,
        },
        tie_word_embeddings=False,
    )


_SMALL = {"width": 2048, "layers": 36, "heads": 16, "groups": 2, "feedforward": 11008, "rows": 151936, "tied": True}
_LARGE = {"width": 3584, "layers": 28, "heads": 28, "groups": 4, "feedforward": 18944, "rows": 152064, "tied": False}
_VISION_4B: dict[str, Any] = {"vision": (24, 1024, 4096), "deepstack": [5, 11, 17]}
_VISION_8B: dict[str, Any] = {"vision": (27, 1152, 4304), "deepstack": [8, 16, 24]}
RELEASED: dict[str, tuple[Any, dict[str, Any]]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": (_qwen2_5_vl, _SMALL),
    "Qwen/Qwen2.5-VL-7B-Instruct": (_qwen2_5_vl, _LARGE),
    "Qwen/Qwen3-VL-4B-Instruct": (_qwen3_vl, {"width": 2560, "feedforward": 9728, "tied": True, **_VISION_4B}),
    "Qwen/Qwen3-VL-8B-Instruct": (_qwen3_vl, {"width": 4096, "feedforward": 12288, "tied": False, **_VISION_8B}),
    "OpenGVLab/InternVL3-2B-hf": (_internvl3, {"width": 1536, "heads": 12, "groups": 2, "feedforward": 8960}),
    "OpenGVLab/InternVL3-8B-hf": (_internvl3, {"width": 3584, "heads": 28, "groups": 4, "feedforward": 18944}),
}

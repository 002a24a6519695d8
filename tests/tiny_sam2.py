"""A SAM 2 of a few thousand random weights, made offline: helper of the tests of the refiner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
)
from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoMaskDecoderConfig

SIDE, HIDDEN = 64, 32
PARTS: dict[str, Any] = {
    "vision_config": {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "image_size": [SIDE, SIDE],
            "window_positional_embedding_background_size": [2, 2],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 2, 2],
            "window_size_per_stage": [4, 4, 4, 4],
            "global_attention_blocks": [3],  # never the first of a stage: it pools
        },
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": HIDDEN,
    },
    "prompt_encoder_config": {"hidden_size": HIDDEN, "image_size": SIDE},
    "mask_decoder_config": {
        "hidden_size": HIDDEN,
        "mlp_dim": 32,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": HIDDEN,
    },
}


def save_tiny_sam2(folder: Path, seed: int = 0) -> Path:
    """The folder, with an image model of random weights large enough that its masks are not all of one sign."""
    torch.manual_seed(seed)
    model = Sam2Model(Sam2Config(**PARTS))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    Sam2Processor(_images()).save_pretrained(folder)
    return folder


def save_tiny_sam2_video(folder: Path) -> Path:
    """The folder, with a video model, as those on the hub are."""
    torch.manual_seed(0)
    memory: dict[str, Any] = {
        # As an object: transformers 5.17 makes a prompt encoder's config of a dict here, and no model of that.
        "mask_decoder_config": Sam2VideoMaskDecoderConfig(**PARTS["mask_decoder_config"]),
        "image_size": SIDE,
        "memory_attention_hidden_size": HIDDEN,
        "memory_attention_feed_forward_hidden_size": HIDDEN,
        "memory_attention_rope_feat_sizes": [4, 4],
        "memory_encoder_hidden_size": HIDDEN,
        "memory_encoder_output_channels": 8,
        "mask_downsampler_embed_dim": HIDDEN,
        "memory_fuser_embed_dim": HIDDEN,
        "memory_fuser_intermediate_dim": HIDDEN,
    }
    Sam2VideoModel(Sam2VideoConfig(**PARTS | memory)).save_pretrained(folder)
    Sam2VideoProcessor(_images(), Sam2VideoVideoProcessor()).save_pretrained(folder)
    return folder


def _images() -> Sam2ImageProcessor:
    return Sam2ImageProcessor(size={"height": SIDE, "width": SIDE}, mask_size={"height": 16, "width": 16})

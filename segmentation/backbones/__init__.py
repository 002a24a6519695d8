"""What a light mask decoder needs of a policy, the same for every family. One file a family.

| family | `vision` | `image_states` | order undone |
|---|---|---|---|
| Qwen2.5-VL | a cell a patch (14 px) | a cell 2x2 patches | windows, then merging |
| Qwen3-VL | a cell a patch (16 px) | a cell 2x2 patches | merging |
| InternVL | a cell a patch (14 px), without CLS | a cell 2x2 patches | tiles; the thumbnail is left out |
"""

from typing import Any

from segmentation.backbones.backbone import Backbone, Cells, Recording, VisionLayers, unwrap
from segmentation.backbones.features import Features, Spec, by_size, stack
from segmentation.backbones.internvl import InternVLBackbone
from segmentation.backbones.qwen import QwenBackbone
from segmentation.backbones.token_states import token_states

FAMILIES: dict[str, type[Backbone]] = {
    "qwen2_5_vl": QwenBackbone,
    "qwen3_vl": QwenBackbone,
    "internvl": InternVLBackbone,
}


def make_backbone(
    model: Any, processor: Any, vision_layers: VisionLayers = (-1,), cells: Cells | None = None
) -> Backbone:
    """The backbone of a policy's family, by its `config.model_type`; arguments are those of `Backbone`.

    Raises:
        ValueError: a family without backbone, or layers that the model does not have.
    """
    family = unwrap(model).config.model_type
    if family not in FAMILIES:
        raise ValueError(f"model: no backbone for {family!r}; there is one for {', '.join(FAMILIES)}.")
    return FAMILIES[family](model, processor, vision_layers, cells)


__all__ = ["Backbone", "Features", "Recording", "Spec", "by_size", "make_backbone", "stack", "token_states", "unwrap"]

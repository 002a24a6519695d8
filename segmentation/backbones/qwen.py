"""Qwen2.5-VL and Qwen3-VL: one sequence of patches in merge order, with Qwen2.5-VL window by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.vision_utils import get_vision_window_index

from segmentation.backbones.backbone import Backbone, Layout


class QwenBackbone(Backbone):
    """Maps have a cell a patch; image states have one for each `merge` x `merge` patches, as the language model has."""

    @property
    def blocks(self) -> nn.ModuleList:
        return self.inner.visual.blocks

    def layouts(self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]] | None) -> list[Layout]:
        layouts, start = [], 0
        for _, rows, columns in inputs["image_grid_thw"].tolist():
            layouts.append(Layout(slice(start, start + rows * columns), rows, columns))
            start += rows * columns
        return layouts

    def encoder_inputs(self, inputs: Mapping[str, Any], layouts: Sequence[Layout]) -> dict[str, Tensor]:
        grids = torch.tensor([(1, layout.rows, layout.columns) for layout in layouts])
        return {**super().encoder_inputs(inputs, layouts), "image_grid_thw": grids.to(inputs["image_grid_thw"])}

    def to_map(self, parts: Tensor, layout: Layout) -> Tensor:
        if self.spec.family == "qwen2_5_vl":
            parts = self._out_of_windows(parts, layout)
        return self._in_raster_order(parts, layout).permute(2, 0, 1)[None]

    def to_grid(self, states: Tensor, layout: Layout) -> Tensor:
        merge = self.config.vision_config.spatial_merge_size
        return states.view(layout.rows // merge, layout.columns // merge, -1).permute(2, 0, 1)[None]

    def to_picture(self, pixel_values: Tensor, layout: Layout) -> Tensor:
        vision = self.config.vision_config
        patches = self._in_raster_order(pixel_values, layout)  # (h, w, 3 * frames * P * P)
        patches = patches.unflatten(2, (3, vision.temporal_patch_size, vision.patch_size, vision.patch_size))
        patches = patches[:, :, :, 0]  # a still picture is repeated to fill the frames; (h, w, 3, P, P)
        return patches.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)[None]

    def project(self, patches: Tensor) -> Tensor:
        return self.inner.visual.merger(patches.flatten(0, 1))

    def _in_raster_order(self, patches: Tensor, layout: Layout) -> Tensor:
        """Patches `(n, X)`, in which those to be merged follow each other, as `(h, w, X)`."""
        merge = self.config.vision_config.spatial_merge_size
        rows, columns = layout.rows // merge, layout.columns // merge
        patches = patches.view(rows, columns, merge, merge, -1).transpose(1, 2)
        return patches.reshape(layout.rows, layout.columns, -1)

    def _out_of_windows(self, patches: Tensor, layout: Layout) -> Tensor:
        """Patches `(n, C)` in the order they had before Qwen2.5-VL gathered them by window. No window spans images."""
        vision = self.config.vision_config
        order, _ = get_vision_window_index(
            torch.tensor([(1, layout.rows, layout.columns)]),
            spatial_merge_size=vision.spatial_merge_size,
            window_size=vision.window_size,
            patch_size=vision.patch_size,
        )
        cells = patches.unflatten(0, (-1, vision.spatial_merge_size**2))  # windows are made of merged cells
        return cells[order.argsort().to(patches.device)].flatten(0, 1)

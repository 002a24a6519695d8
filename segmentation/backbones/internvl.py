"""InternVL: a picture cut into square tiles, each encoded alone and here put together again.

A picture of several tiles comes with one more that shows all of it, its thumbnail. It is left out of maps, image
states and pixels: it shows nothing that the tiles do not show finer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from segmentation.backbones.backbone import Backbone, Cells, Layout, VisionLayers


class InternVLBackbone(Backbone):
    """Maps have a cell a patch, before pixel shuffle and without CLS; image states one for each token of a tile."""

    def __init__(
        self, model: Any, processor: Any, vision_layers: VisionLayers = (-1,), cells: Cells | None = None
    ) -> None:
        super().__init__(model, processor, vision_layers, cells)
        images = processor.image_processor
        patch_height, patch_width = self.config.vision_config.patch_size
        ratio = self.config.downsample_ratio  # tokens a side for each patch a side, 0.5
        self.tile = images.size["height"], images.size["width"]  # pixels
        self.patches = self.tile[0] // patch_height, self.tile[1] // patch_width  # of a tile
        self.tokens = int(self.patches[0] * ratio), int(self.patches[1] * ratio)
        self.limits = images.min_patches, images.max_patches  # tiles of a picture

    @property
    def blocks(self) -> nn.ModuleList:
        return self.inner.vision_tower.encoder.layer

    def layouts(self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]] | None) -> list[Layout]:
        """The processor says how many tiles there are of all pictures, not how they lie: that follows from the sizes.

        Raises:
            ValueError: there are tiled pictures and no `image_sizes`, or `image_sizes` do not make as many tiles.
        """
        tiles = len(inputs["pixel_values"])
        if image_sizes is None and "input_ids" not in inputs:
            raise ValueError("image_sizes: needed to tell an InternVL picture's tiles from the next one's.")
        pictures = len(inputs["input_ids"]) if image_sizes is None else len(image_sizes)
        if tiles == pictures:
            return [Layout(slice(row, row + 1), 1, 1) for row in range(tiles)]
        if image_sizes is None:
            raise ValueError(
                f"image_sizes: needed to arrange {tiles} tiles of {pictures} pictures, the processor does not say how; "
                "pass the (height, width) it was given, or set crop_to_patches=False."
            )
        layouts, start = [], 0
        for height, width in image_sizes:
            columns, rows = get_optimal_tiled_canvas((height, width), self.tile, *self.limits)
            stop = start + rows * columns + (rows * columns > 1)  # and the thumbnail
            layouts.append(Layout(slice(start, stop), rows, columns))
            start = stop
        if start != tiles:
            raise ValueError(f"image_sizes: pictures of these sizes make {start} tiles, pixel_values has {tiles}.")
        return layouts

    def to_map(self, parts: Tensor, layout: Layout) -> Tensor:
        return _stitch(parts[:, 1:].unflatten(1, self.patches), layout).permute(2, 0, 1)[None]

    def to_grid(self, states: Tensor, layout: Layout) -> Tensor:
        tiles, tokens = layout.parts.stop - layout.parts.start, self.tokens[0] * self.tokens[1]
        if len(states) != tiles * tokens:
            raise ValueError(
                f"image_sizes: a row with {len(states)} image tokens was given a size of {tiles} tiles of {tokens}; "
                "are the sizes in the order of the rows?"
            )
        return _stitch(states.unflatten(0, (-1, *self.tokens)), layout).permute(2, 0, 1)[None]

    def to_picture(self, pixel_values: Tensor, layout: Layout) -> Tensor:
        return _stitch(pixel_values.permute(0, 2, 3, 1), layout).permute(2, 0, 1)[None]

    def project(self, patches: Tensor) -> Tensor:
        return self.inner.multi_modal_projector(self.inner.vision_tower.layernorm(patches).flatten(1))


def _stitch(tiles: Tensor, layout: Layout) -> Tensor:
    """Tiles `(rows * columns, h, w, X)`, and possibly a thumbnail, as `(rows * h, columns * w, X)`."""
    tiles = tiles[: layout.rows * layout.columns].unflatten(0, (layout.rows, layout.columns))
    return tiles.transpose(1, 2).flatten(2, 3).flatten(0, 1)

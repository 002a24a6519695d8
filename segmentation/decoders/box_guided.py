"""`BoxGuidedDecoder`: from a box, and a segmentation token if there is one, to a fine mask (Qwen3-VL-Seg)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MLP

from segmentation.backbones.features import Features, Spec
from segmentation.decoders.box_guided_layers import Level, QueryLayer, Stem, Upsample, box_fourier, box_gate
from segmentation.decoders.mask_decoder import MaskDecoder, of_pictures


@dataclass(frozen=True, slots=True)
class BoxGuidedState:
    """Of `B` pictures.

    Args:
        remembered: the query layers' keys and values, each `(B, 2, heads, h w, hidden / heads)`.
        up: pixel features of the vision maps, `(B, pixel, upscale h, upscale w)`.
        stem: pixel features of the picture, to be gated by a box, of the same size; None without pixel fusion.
    """

    remembered: tuple[Tensor, ...]
    up: Tensor
    stem: Tensor | None


class BoxGuidedDecoder(MaskDecoder):
    """The box-guided mask decoder of Qwen3-VL-Seg (arXiv 2605.07141): 17M parameters, no SAM.

    1. Spatial feature injection: each vision map is projected and sharpened by a depthwise convolution; a 3x3
       convolution fuses them; language-model states and a learned position are added to make the memory.
    2. Spatial-semantic query: Fourier features of the box plus the token's state, then decoder layers over the memory.
    3. Pixel fusion: the fused map at `upscale` times its grid, joined with the features of a convolutional stem that
       are gated by the widened box. A dot product of the query's kernel with them gives the mask.
    4. Refinement: the mask's mean feature corrects the query, which gives the final mask; a head predicts its IoU.

    The join is a 1x1 convolution of the concatenation [up, gate * stem]. A gate is one number a pixel, so the two
    commute: the convolution is made once a picture, in two halves, and an answer costs two dot products a pixel.

    Chosen where the paper is silent: pre-norm query layers without self-attention (see QueryLayer), six of them with 8
    heads and an inner width of 2048; states resized bilinearly to the vision grid; a learned position of 32x32, resized
    too; 32 frequencies from half a wave to 128 waves a picture; a box widened by half its margin on each side; a stem
    of stride 4, resized to the resolution of the logits, four times the vision grid (a stride of 4 for patches
    of 16, of 3.5 for patches of 14); 128 pixel channels; kernel and refinement by small MLPs; one object a box, so no
    maximum over boxes; no dropout.

    With `use_token=False` and `use_states=False` a box and the vision encoder are enough: no segmentation token in the
    policy and no language-model pass after the one that wrote the box. What is switched off is not created. At Qwen3-VL
    4B's widths (states 2560; blocks 5, 11, 17 and 23, of 1024) 17.2M parameters, and 15.9M for boxes alone.

    Args:
        llm_dim: width of the language model.
        vision_dims: channels of each vision map, all on one grid.
        hidden: width of memory and queries.
        layers: of the query's decoder.
        heads: of its attention; must divide `hidden`.
        feedforward: its inner width.
        pixel: channels at the resolution of the logits.
        frequencies: of the box's Fourier features.
        positions: rows and columns of the learned position.
        margin: by which share of its size the gate's box is widened.
        sharpness: of the gate's sides, per picture width or height.
        stem_stride: of the stem, in pixels: the encoder's patch over `upscale`, or what is next to it.
        upscale: logits per cell of the vision grid and side, a power of two.
        multi_scale: part 1; off: only the last map, projected.
        box_query: the box in part 2; off: the query is made of the token alone, or is the same for all objects.
        pixel_fusion: the stem and the gate of part 3; off: `up` alone.
        refinements: rounds of part 4; 0 is off.
        use_token: the query has the state of a segmentation token.
        use_states: the memory has the language model's image states.
        spec: see MaskDecoder.

    Raises:
        ValueError: neither box nor token is used, so that nothing would tell objects apart; `upscale` is no power of 2.
    """

    def __init__(
        self,
        llm_dim: int,
        vision_dims: Sequence[int],
        hidden: int = 256,
        layers: int = 6,
        heads: int = 8,
        feedforward: int = 2048,
        pixel: int = 128,
        frequencies: int = 32,
        positions: int = 32,
        margin: float = 0.15,
        sharpness: float = 20.0,
        stem_stride: int = 4,
        upscale: int = 4,
        multi_scale: bool = True,
        box_query: bool = True,
        pixel_fusion: bool = True,
        refinements: int = 1,
        use_token: bool = True,
        use_states: bool = True,
        spec: Spec | dict | None = None,
    ) -> None:
        super().__init__(spec)
        self.needs_states, self.needs_token, self.needs_box = use_states, use_token, box_query or pixel_fusion
        if not (self.needs_token or self.needs_box):
            raise ValueError("BoxGuidedDecoder: use_token, box_query or pixel_fusion must be on to tell objects apart.")
        if upscale < 2 or upscale.bit_count() != 1:
            raise ValueError(f"BoxGuidedDecoder: upscale={upscale}: a power of two, 2 or more.")
        self.upscale = upscale
        self.multi_scale, self.box_query, self.pixel_fusion = multi_scale, box_query, pixel_fusion
        self.frequencies, self.margin, self.sharpness = frequencies, margin, sharpness
        self.refinements = refinements

        if multi_scale:
            self.levels = nn.ModuleList(Level(width, hidden) for width in vision_dims)
            self.fuse = nn.Conv2d(len(vision_dims) * hidden, hidden, 3, padding=1)
        else:
            self.project = nn.Conv2d(vision_dims[-1], hidden, 1)
        if use_states:
            self.from_states = nn.Linear(llm_dim, hidden)
        self.position = nn.Parameter(0.02 * torch.randn(1, hidden, positions, positions))

        if box_query:
            self.from_box = MLP(8 * frequencies, [hidden, hidden])
        if use_token:
            self.from_token = nn.Linear(llm_dim, hidden)
        if not (box_query or use_token):
            self.query = nn.Parameter(torch.randn(1, hidden))
        self.query_norm = nn.LayerNorm(hidden)
        self.layers = nn.ModuleList(QueryLayer(hidden, heads, feedforward) for _ in range(layers))
        self.layers_norm = nn.LayerNorm(hidden)

        self.upsample = Upsample(hidden, pixel, upscale.bit_length() - 1)
        self.join_up = nn.Conv2d(pixel, pixel, 1)
        if pixel_fusion:
            self.stem = Stem(pixel, stem_stride)
            self.join_stem = nn.Conv2d(pixel, pixel, 1, bias=False)
        self.kernel = MLP(hidden, [hidden, hidden, pixel])
        if refinements:
            self.from_target = MLP(pixel, [hidden, hidden])
            self.target_norm = nn.LayerNorm(hidden)
        self.iou = MLP(hidden, [hidden, hidden, 1])

    def encode_image(self, features: Features) -> BoxGuidedState:
        """All that needs neither box nor token; every convolution is here.

        Raises:
            ValueError: no image states, unless use_states=False.
        """
        if self.multi_scale:
            levels = [level(map_) for level, map_ in zip(self.levels, features.vision, strict=True)]
            fused = self.fuse(torch.cat(levels, dim=1))  # (B, hidden, h, w)
        else:
            fused = self.project(features.vision[-1])
        height, width = fused.shape[-2:]
        # antialias: on a smaller grid every learned position still counts
        position = F.interpolate(self.position.float(), (height, width), mode="bilinear", antialias=True)
        memory = fused + position.to(fused.dtype)
        if self.needs_states:
            states = self._need(features.image_states, "image_states", "use_states=False removes that need")
            states = self.from_states(states.movedim(1, -1)).movedim(-1, 1)  # (B, hidden, h', w')
            memory = memory + F.interpolate(states, (height, width), mode="bilinear")
        tokens = memory.flatten(2).mT  # (B, h w, hidden)

        stem = None
        if self.pixel_fusion:
            stem = self.join_stem(self.stem(2 * features.pixels - 1))
            stem = F.interpolate(stem, (self.upscale * height, self.upscale * width), mode="bilinear")
        remembered = tuple(layer.remember(tokens) for layer in self._query_layers)
        return BoxGuidedState(remembered, self.join_up(self.upsample(fused)), stem)

    def decode(
        self, state: BoxGuidedState, index: Tensor, boxes: Tensor | None = None, seg_states: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mask logits `(N, upscale * h, upscale * w)` for a vision grid of h x w, and predicted IoU `(N,)`.

        Any finite box gives a mask, also one without area or outside the picture; see MaskDecoder.
        """
        query = self._first_query(index, boxes, seg_states)  # (N, hidden)
        for layer, remembered in zip(self._query_layers, state.remembered, strict=True):
            query = layer(query, remembered, index)
        query = self.layers_norm(query)

        pixels = self._pixels(state, index, boxes)
        logits = pixels.dot(self.kernel(query))
        for _ in range(self.refinements):
            query = self.target_norm(query + self.from_target(pixels.mean(logits.sigmoid())))
            logits = pixels.dot(self.kernel(query))
        return logits, self.iou(query)[:, 0]

    @property
    def _query_layers(self) -> list[QueryLayer]:
        return [layer for layer in self.layers if isinstance(layer, QueryLayer)]

    def _first_query(self, index: Tensor, boxes: Tensor | None, seg_states: Tensor | None) -> Tensor:
        parts: list[Tensor] = []
        if self.box_query:
            boxes = self._need(boxes, "boxes", "box_query=False and pixel_fusion=False remove that need")
            parts.append(self.from_box(box_fourier(boxes, self.frequencies).to(self.position.dtype)))
        if self.needs_token:
            parts.append(self.from_token(self._need(seg_states, "seg_states", "use_token=False removes that need")))
        return self.query_norm(torch.stack(parts).sum(0) if parts else self.query.expand(len(index), -1))

    def _pixels(self, state: BoxGuidedState, index: Tensor, boxes: Tensor | None) -> _Pixels:
        up = of_pictures(state.up, index)
        if state.stem is None:
            return _Pixels(up, None, None)
        boxes = self._need(boxes, "boxes", "box_query=False and pixel_fusion=False remove that need")
        gate = box_gate(boxes, up.shape[-2], up.shape[-1], self.margin, self.sharpness)
        return _Pixels(up, of_pictures(state.stem, index), gate.to(up.dtype))


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Pixel features `up + gate * stem` of `N` objects, never made: `(N, pixel, H, W)`, twice, and `(N, H, W)`."""

    up: Tensor
    stem: Tensor | None
    gate: Tensor | None

    def dot(self, kernel: Tensor) -> Tensor:
        """`(N, pixel)` with the features of each pixel, `(N, H, W)`."""
        logits = torch.einsum("nc,nchw->nhw", kernel, self.up)
        if self.stem is None or self.gate is None:
            return logits
        return logits + self.gate * torch.einsum("nc,nchw->nhw", kernel, self.stem)

    def mean(self, weight: Tensor) -> Tensor:
        """Mean feature `(N, pixel)` under weights `(N, H, W)`."""
        total = torch.einsum("nhw,nchw->nc", weight, self.up)
        if self.stem is not None and self.gate is not None:
            total = total + torch.einsum("nhw,nchw->nc", weight * self.gate, self.stem)
        return total / (weight.sum((1, 2)) + 1e-6)[:, None]

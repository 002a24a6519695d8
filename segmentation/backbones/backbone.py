"""What all policies share: watch one ordinary forward, hand out each row's picture in raster order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from segmentation.backbones.features import Features, Spec, projector_cells

VisionLayers = Sequence[int] | Literal["deepstack"]
Cells = Literal["replicate", "scan"]


class Layout(NamedTuple):
    """Where a picture is among all that the vision encoder was given, and how its parts are arranged.

    A part is what the encoder's first axis counts: a patch (Qwen) or a tile (InternVL).

    Args:
        parts: the picture's slice of `pixel_values` and of each block's output.
        rows, columns: arrangement of its parts; an InternVL picture may have one part more, its thumbnail.
    """

    parts: slice
    rows: int
    columns: int


@dataclass
class Recording:
    """What the forwards made inside `Backbone.record` computed, still in the order of the model.

    Several forwards (a batch scored in chunks) are joined along the batch, in the order in which they were made.

    Args:
        blocks: for each chosen vision block its outputs, one a forward.
        norms: the language model's states behind its final norm, `(B, L, D)` a forward.
    """

    blocks: tuple[list[Tensor], ...]
    norms: list[Tensor] = field(default_factory=list)

    @property
    def outputs(self) -> list[Tensor]:
        """Each chosen block's output over all forwards."""
        return [_joined(kept) for kept in self.blocks]

    @property
    def states(self) -> Tensor:
        """The language model's last hidden states, those that lm_head reads, `(B, L, D)`.

        Raises:
            ValueError: no language-model forward was recorded, or several of different lengths, as `generate` makes.
        """
        lengths = sorted({states.shape[1] for states in self.norms})
        if len(lengths) != 1:
            raise ValueError(
                f"record: saw forwards of {lengths or 'no'} tokens; make one ordinary forward, or some of one length."
            )
        return _joined(self.norms)


class Backbone(ABC):
    """A policy as a light mask decoder sees it. Changes nothing about the policy, and adds no pass to it.

        with backbone.record() as recording:
            model(**inputs)
        features = backbone.features(recording, inputs)  # of each row

    Nothing is detached: gradients flow into the policy wherever the forward kept them, through checkpoints too. But
    `backward` belongs outside `record`, since checkpoints run their blocks again in it.

    Args:
        model: the policy, also inside PEFT's, accelerate's or DeepSpeed's wrappers.
        processor: the policy's; its image processor says how pixels were normalised.
        vision_layers: blocks of the vision encoder whose outputs are wanted, negative ones counting from the last; or
            "deepstack" for those that the model itself feeds into its language model (Qwen3-VL).
        cells: also make `Features.projected` and `projected_fine`, by the policy's projector; see `projector_cells`.

    Raises:
        ValueError: a block that the encoder does not have, or "deepstack" of a model without.
    """

    def __init__(
        self, model: Any, processor: Any, vision_layers: VisionLayers = (-1,), cells: Cells | None = None
    ) -> None:
        whole = unwrap(model)
        self.config = whole.config
        self.inner = whole.model  # vision encoder, projector and language model, without lm_head
        images = processor.image_processor
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (images.image_mean, images.image_std))
        layers = self._resolve(vision_layers)
        self.cells: Cells | None = cells
        self._recorded = layers if cells is None else (*layers, len(self.blocks) - 1)  # the projector reads the last
        vision = self.config.vision_config
        self.spec = Spec(
            family=self.config.model_type,
            vision_layers=layers,
            vision_dims=(vision.hidden_size,) * len(layers),
            llm_dim=self.config.text_config.hidden_size,
        )

    def _resolve(self, wanted: VisionLayers) -> tuple[int, ...]:
        depth, family = len(self.blocks), self.config.model_type
        if isinstance(wanted, str):
            layers: Sequence[int] = getattr(self.config.vision_config, "deepstack_visual_indexes", ())
            if wanted != "deepstack" or not layers:
                raise ValueError(f"vision_layers={wanted!r}: {family} has no such levels; name some of 0..{depth - 1}.")
        else:
            layers = wanted
        if missing := [layer for layer in layers if not -depth <= layer < depth]:
            raise ValueError(f"vision_layers={tuple(layers)}: no block {missing[0]}, the encoder has {depth}.")
        return tuple(layer % depth for layer in layers)

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The vision encoder's blocks."""

    @abstractmethod
    def layouts(self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]] | None) -> list[Layout]:
        """Each row's picture among the `inputs` of a forward."""

    @abstractmethod
    def to_map(self, parts: Tensor, layout: Layout) -> Tensor:
        """A block's output for one picture as a map `(1, C, h, w)`."""

    @abstractmethod
    def to_grid(self, states: Tensor, layout: Layout) -> Tensor:
        """States `(n, D)` of one picture's image tokens as a grid `(1, D, h', w')`."""

    @abstractmethod
    def to_picture(self, pixel_values: Tensor, layout: Layout) -> Tensor:
        """One picture's part of `pixel_values`, still normalised, `(1, 3, H, W)`."""

    @abstractmethod
    def project(self, patches: Tensor) -> Tensor:
        """What the policy's projector makes of cells `(n, 4, C)` of four patches of the last block, `(n, D)`."""

    @contextmanager
    def record(self) -> Iterator[Recording]:
        """Keep what the policy computes while the context is open. Its hooks are gone after it, also on an error."""
        recording = Recording(blocks=tuple([] for _ in self._recorded))
        hooks = [
            self.blocks[layer].register_forward_hook(_appender(kept))
            for layer, kept in zip(self._recorded, recording.blocks, strict=True)
        ]
        hooks.append(self.inner.language_model.norm.register_forward_hook(_appender(recording.norms)))
        try:
            yield recording
        finally:
            for hook in hooks:
                hook.remove()

    def features(
        self,
        recording: Recording,
        inputs: Mapping[str, Any],
        rows: Sequence[int] | None = None,
        *,
        shift: bool = False,
        image_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[Features]:
        """Each row's picture (`B` of 1), with the language model's image states.

        Args:
            recording: of a forward of `inputs`.
            inputs: of the forward: `input_ids` `(B, L)`, padded on any side, `pixel_values`, and Qwen's
                `image_grid_thw`. One image a row, all images in the order of the rows.
            rows: rows wanted, all if None. Nothing is computed for others, as when rows share a picture.
            shift: take the state *before* each image token, as MLLMSeg's published code does (its image map is off
                by one position: jcwang0602/MLLMSeg at a8fceda).
            image_sizes: (height, width) of each row's picture as the processor was given it. Only InternVL needs it,
                and only for tiled pictures.

        Raises:
            ValueError: a row without image or with several, inputs of another forward, or a missing `image_sizes`.
        """
        tokens = inputs["input_ids"] == self.config.image_token_id  # (B, L)
        check_one_image(tokens)
        states, outputs = recording.states, recording.outputs
        if states.shape[:2] != tokens.shape:
            raise ValueError(f"features: recorded {tuple(states.shape[:2])} tokens, inputs have {tuple(tokens.shape)}.")
        layouts = self.layouts(inputs, image_sizes)
        features = []
        for row in range(len(tokens)) if rows is None else rows:
            positions = tokens[row].nonzero()[:, 0] - int(shift)
            grid = self.to_grid(states[row, positions], layouts[row])
            features.append(self._picture(inputs["pixel_values"], layouts[row], outputs, grid))
        return features

    def vision(
        self,
        inputs: Mapping[str, Any],
        rows: Sequence[int] | None = None,
        *,
        image_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[Features]:
        """Each row's picture without a pass of the language model: `image_states` is None.

        Runs the vision encoder on the pictures of `rows` alone. Arguments are those of `features`; `input_ids` is not
        needed, except by InternVL where `image_sizes` is not given.

        Raises:
            ValueError: a missing `image_sizes`.
        """
        layouts = self.layouts(inputs, image_sizes)
        layouts = layouts if rows is None else [layouts[row] for row in rows]
        pictures = self.encoder_inputs(inputs, layouts)
        with self.record() as recording:
            self.inner.get_image_features(**pictures)
        outputs = recording.outputs
        features, start = [], 0
        for layout in layouts:
            stop = start + layout.parts.stop - layout.parts.start
            alone = layout._replace(parts=slice(start, stop))  # among the pictures encoded here
            features.append(self._picture(pictures["pixel_values"], alone, outputs, None))
            start = stop
        return features

    def encoder_inputs(self, inputs: Mapping[str, Any], layouts: Sequence[Layout]) -> dict[str, Tensor]:
        """What the policy's `get_image_features` takes to encode these pictures alone."""
        return {"pixel_values": torch.cat([inputs["pixel_values"][layout.parts] for layout in layouts])}

    def _picture(
        self, pixel_values: Tensor, layout: Layout, outputs: list[Tensor], image_states: Tensor | None
    ) -> Features:
        picture = self.to_picture(pixel_values[layout.parts], layout)
        mean, std = self.mean.to(picture), self.std.to(picture)
        pixels = (picture * std + mean).clamp(0, 1)  # of what rounding leaves beyond
        maps = [self.to_map(output[layout.parts], layout) for output in outputs]
        if self.cells is None:
            return Features(tuple(maps), image_states, pixels)
        last = maps.pop()
        merged = projector_cells(last, "scan")[..., ::2, ::2]  # every second window of stride 1: the policy's own cells
        projected, fine = (self._project(cells) for cells in (merged, projector_cells(last, self.cells)))
        return Features(tuple(maps), image_states, pixels, projected, fine)

    def _project(self, cells: Tensor) -> Tensor:
        """Outputs `(1, D, h, w)` of the projector for cells `(1, 4 C, h, w)`."""
        patches = cells[0].flatten(1).T.contiguous().unflatten(1, (4, -1))  # (h * w, 4, C)
        return self.project(patches).T.unflatten(1, cells.shape[2:])[None]


def unwrap(model: Any) -> Any:
    """The transformers model inside what PEFT, accelerate and DeepSpeed wrap around it."""
    while True:
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif hasattr(model, "module"):
            model = model.module
        else:
            return model


def check_one_image(tokens: Tensor) -> None:
    """Raises ValueError naming the first row of `tokens (B, L)`, true at image tokens, without one image exactly."""
    starts = tokens.clone()
    starts[:, 1:] &= ~tokens[:, :-1]  # of a run: an image's tokens are one run, and there is text between images
    for row, images in enumerate(starts.sum(1).tolist()):
        if images != 1:
            raise ValueError(f"features: row {row} has {images} images; a row must have one.")


def _joined(forwards: list[Tensor]) -> Tensor:
    return torch.cat(forwards) if len(forwards) > 1 else forwards[0]


def _appender(kept: list[Tensor]):
    def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
        kept.append(output)

    return hook

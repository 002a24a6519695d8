"""What all trained mask decoders share: encode a picture once, decode many answers to it, save, load, fit a policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, TypeVar

import torch.nn.functional as F
from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin
from torch import Tensor, nn

from segmentation.backbones.features import Features, Spec

T = TypeVar("T")
CARD = """# {name}

A light mask decoder of refseg-rl, {size:.1f} M parameters: from what a vision-language model says of a picture and from
its features to masks. It was trained on the features of this policy, and fits no other:

`{spec}`

Its arguments: `{arguments}`

```python
from segmentation.decoders import load_decoder

decoder = load_decoder("owner/name")  # or this folder
```

In training and evaluation: `decoder=trained decoder.path=FOLDER`.
"""


class MaskDecoder(nn.Module, PyTorchModelHubMixin, ABC):
    """A light decoder: `encode_image` once a picture, `decode` once an answer, of which many share a picture.

    `save_pretrained` and `from_pretrained` (huggingface_hub) write and read safetensors and a config.json that holds
    the constructor's arguments, which must be plain values, lists and tuples (hydra: `_convert_: all`).

    Args:
        spec: the policy whose features it is trained on, for `check_fits`; as a dict if it comes from a config.json.
    """

    needs_states: bool  # the language model's image states
    needs_token: bool  # the state of a segmentation token
    needs_box: bool
    needs_projected: bool = False  # the projector's outputs, at both grids

    def __init__(self, spec: Spec | dict | None) -> None:
        super().__init__()
        if isinstance(spec, dict):  # JSON has no tuples
            spec = Spec(spec["family"], tuple(spec["vision_layers"]), tuple(spec["vision_dims"]), spec["llm_dim"])
        self.spec: Spec | None = spec

    @abstractmethod
    def encode_image(self, features: Features) -> Any:
        """What all answers to a picture share. Batched: `B` pictures of one size.

        Raises:
            ValueError: something that this decoder needs is None.
        """

    @abstractmethod
    def decode(
        self, state: Any, index: Tensor, boxes: Tensor | None = None, seg_states: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Masks of `N` objects, each independent of the others. Inputs that a decoder has no use for are ignored.

        Args:
            state: of `encode_image`.
            index: `(N,)` int64, which of the state's pictures each object is in.
            boxes: `(N, 4)` x1, y1, x2, y2 as shares of the picture's width and height, possibly outside 0..1.
            seg_states: `(N, D)` the language model's state of each object's segmentation token.

        Returns:
            Mask logits `(N, h, w)` over the whole picture at the decoder's own resolution, and predicted IoU `(N,)` as
            a logit, or None for decoders without.

        Raises:
            ValueError: something that this decoder needs is None.
        """

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> str | None:
        """Write model.safetensors and config.json, which also names the class, for `load_decoder`."""
        config = {"decoder": type(self).__name__, **(self._hub_mixin_config or {})}  # type: ignore[dict-item]
        return super().save_pretrained(save_directory, config=config, **kwargs)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """README.md of the folder: what it is, for which policy, and the line that loads it. The mixin writes it."""
        data = ModelCardData(library_name="refseg-rl", pipeline_tag="image-segmentation", license="apache-2.0")
        arguments = {key: value for key, value in (self._hub_mixin_config or {}).items() if key != "spec"}  # type: ignore[union-attr]
        text = CARD.format(name=type(self).__name__, spec=self.spec, arguments=arguments, size=count(self) / 1e6)
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")

    def _need(self, value: T | None, what: str, unless: str) -> T:
        if value is None:
            raise ValueError(f"{type(self).__name__} was given no {what}; {unless}.")
        return value

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        # Strict whatever the caller says: huggingface_hub's default leaves a missing weight at its random start.
        return super()._load_as_safetensor(model, model_file, map_location, strict=True)

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        raise ValueError(f"{model_file}: only safetensors are read.")


def count(decoder: nn.Module) -> int:
    """Parameters of a decoder."""
    return sum(one.numel() for one in decoder.parameters())


def resize_logits(logits: Tensor, height: int, width: int) -> Tensor:
    """Logits `(N, h, w)` at the size of the picture, bilinear; the mask is where they are above zero."""
    return F.interpolate(logits[:, None].float(), (height, width), mode="bilinear", align_corners=False)[:, 0]


def check_fits(decoder_spec: Spec | None, policy_spec: Spec, where: str) -> None:
    """Raises ValueError naming both sides if a decoder was trained on features that this policy does not give."""
    if decoder_spec != policy_spec:
        raise ValueError(f"{where}: the decoder was trained on {decoder_spec}, this policy gives {policy_spec}.")


def of_pictures(maps: Tensor, index: Tensor) -> Tensor:
    """`maps (B, ...)` of pictures for each of `index (N,)` objects, `(N, ...)`: a view if there is one picture."""
    return maps.expand(len(index), *maps.shape[1:]) if len(maps) == 1 else maps[index]

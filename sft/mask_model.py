"""What is trained: a mask decoder alone, or together with the policy whose features it reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_model
from torch import Tensor, nn

from rollouts.policy import Model, restore
from segmentation.backbones import by_size
from segmentation.decoders import MaskDecoder, Self1EHead
from sft.view import View, Viewer


class MaskModel(nn.Module):
    """A decoder, and in joint training the policy.

    Args:
        decoder: trained.
        viewer: runs the policy.
        policy: trained too, or None: it is frozen, and no part of this module.
    """

    def __init__(self, decoder: MaskDecoder, viewer: Viewer, policy: Model | None = None) -> None:
        super().__init__()
        self.decoder, self.policy = decoder, policy
        self.viewer = viewer

    def forward(
        self,
        owner: Sequence[int],
        boxes: Tensor,
        views: Sequence[View] | None = None,
        inputs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Masks of the batch's `N` objects.

        Args:
            owner: the row of each object.
            boxes: `(N, 4)` shares of the picture's sides.
            views: of each row, by the frozen policy.
            inputs: of the policy in training, in place of `views`.

        Returns:
            `logits`: N maps `(h, w)`; `iou`: `(N,)` or None; `auxiliary`: N maps or None; `text`: cross-entropy of the
            answers or None.
        """
        text = None
        if views is None:
            assert inputs is not None, "a policy in training needs inputs"
            views, text = self.viewer.read(self.policy, inputs)
        return {**decode(self.decoder, views, owner, boxes), "text": text}

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """Of the policy: the decoder is light."""
        assert self.policy is not None, "a frozen policy keeps nothing for a backward pass"
        self.policy.gradient_checkpointing_enable(**kwargs)

    def save(self, folder: str | Path) -> None:
        """Write `folder/decoder`, which `decoder=trained` loads, and `folder/policy`, LoRA's adapter alone."""
        self.decoder.save_pretrained(Path(folder) / "decoder")
        if self.policy is not None:
            self.policy.save_pretrained(Path(folder) / "policy")

    def load(self, folder: str | Path) -> None:
        """Read what `save` wrote."""
        load_model(self.decoder, Path(folder) / "decoder" / "model.safetensors")
        if isinstance(self.policy, PeftModel):
            set_peft_model_state_dict(self.policy, load_peft_weights(str(Path(folder) / "policy"), device="cpu"))
        elif self.policy is not None:
            restore(self.policy, Path(folder) / "policy")


def decode(decoder: MaskDecoder, views: Sequence[View], owner: Sequence[int], boxes: Tensor) -> dict[str, Any]:
    """`logits`, `iou` and `auxiliary` of `MaskModel.forward`. Pictures of one size are encoded together.

    Raises:
        ValueError: a row has more or fewer segmentation tokens than objects.
    """
    like = next(decoder.parameters())
    tokens = _tokens(views, owner).to(like) if decoder.needs_token else None
    rows = sorted(set(owner))  # a row without an object needs no mask
    logits: dict[int, Tensor] = {}
    scores: dict[int, Tensor] = {}
    auxiliary: dict[int, Tensor] = {}
    for where, batch in by_size([views[row].features for row in rows]):
        position = {rows[at]: order for order, at in enumerate(where)}
        mine = [order for order, row in enumerate(owner) if row in position]
        index = torch.tensor([position[owner[order]] for order in mine], device=like.device)
        state = decoder.encode_image(batch.to(like))
        states = None if tokens is None else tokens[mine]
        found, iou = decoder.decode(state, index, boxes[mine].to(like) if decoder.needs_box else None, states)
        logits |= dict(zip(mine, found, strict=True))
        if iou is not None:
            scores |= dict(zip(mine, iou, strict=True))
        if isinstance(decoder, Self1EHead):
            auxiliary |= dict(zip(mine, decoder.auxiliary(state, index, states), strict=True))
    order = range(len(owner))
    return {
        "logits": [logits[one] for one in order],
        "iou": torch.stack([scores[one] for one in order]) if scores else None,
        "auxiliary": [auxiliary[one] for one in order] if auxiliary else None,
    }


def _tokens(views: Sequence[View], owner: Sequence[int]) -> Tensor:
    """States of all objects' tokens, `(N, D)`."""
    kept = []
    for row, view in enumerate(views):
        assert view.tokens is not None, "the viewer was made for a decoder with tokens"
        wanted = sum(one == row for one in owner)
        if wanted and len(view.tokens) != wanted:
            raise ValueError(f"row {row} has {wanted} objects and {len(view.tokens)} segmentation tokens.")
        kept.append(view.tokens[:wanted])
    return torch.cat(kept)

"""What a mask decoder sees of a row: features of its picture and states of its segmentation tokens, by the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from rollouts.policy import Model, Processor, image_frame
from rollouts.rows import answer_rows, picture
from segmentation.backbones import Features, Recording, make_backbone, token_states
from segmentation.decoders import MaskDecoder
from segmentation.decoders.mask_decoder import check_fits
from segmentation.formats import Format
from segmentation.sample import Sample


@dataclass(frozen=True, slots=True)
class View:
    """Of one row.

    Args:
        features: of its picture, a batch of one.
        tokens: `(n, D)` states of the segmentation tokens in the order of the text; None if the decoder needs none.
    """

    features: Features
    tokens: Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> View:
        """On another device or in another type, as `Tensor.to`."""
        tokens = None if self.tokens is None else self.tokens.to(*args, **kwargs)
        return View(self.features.to(*args, **kwargs), tokens)


class Viewer:
    """The policy as training uses it: one pass over prompts and right answers, or over the pictures alone.

    A decoder of boxes and the vision encoder makes the policy's language model unnecessary: it is not run.

    Args:
        model: the policy; it may be wrapped for LoRA afterwards.
        processor: the policy's.
        decoder: whose needs are met.
        format: of the answers.
        text: run the language model whatever the decoder needs, because the text is trained, too.

    Raises:
        ValueError: the decoder was made for the features of another policy.
    """

    def __init__(
        self, model: Model, processor: Processor, decoder: MaskDecoder, format: Format, text: bool = False
    ) -> None:
        layers = decoder.spec.vision_layers if decoder.spec else (-1,)
        cells = getattr(decoder, "cells", None) if decoder.needs_projected else None
        self.backbone = make_backbone(model, processor, layers, cells)
        check_fits(decoder.spec, self.backbone.spec, "decoder")
        self.model, self.processor, self.format = model, processor, format
        self.frame = image_frame(processor)
        self.reads = text or decoder.needs_states or decoder.needs_token
        self.token = processor.tokenizer.convert_tokens_to_ids(format.seg_token) if decoder.needs_token else None
        self._collate = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)

    def inputs(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What `look` and `read` take: the policy's inputs, and `image_sizes`. Needs no model, so workers can make it.

        `labels` are the tokens of the answers, -100 elsewhere.

        Raises:
            BrokenImage: a picture cannot be read.
        """
        if self.reads:
            rows: list[Any] = list(answer_rows(samples, self.format, self.frame))
            pictures = [row["images"][0] for row in rows]
            made = self._collate(rows)
        else:
            pictures = [picture(sample, self.frame) for sample in samples]
            made = self.processor.image_processor(images=pictures, return_tensors="pt")
        return {**made, "image_sizes": [(image.height, image.width) for image in pictures]}

    @torch.no_grad()
    def look(self, inputs: Mapping[str, Any]) -> list[View]:
        """Each row's view by the frozen policy, without its head."""
        given, sizes, labels = _apart(inputs)
        if not self.reads:
            return [View(features) for features in self.backbone.vision(given, image_sizes=sizes)]
        with self.backbone.record() as recording:
            self.backbone.inner(**given, use_cache=False)
        return self._views(recording, given, sizes, labels)

    def read(self, policy: Model, inputs: Mapping[str, Any]) -> tuple[list[View], Tensor]:
        """Each row's view by a policy in training, and the cross-entropy of the answers."""
        given, sizes, labels = _apart(inputs)
        with self.backbone.record() as recording:
            self.backbone.inner(**given, use_cache=False)
        answered = labels[:, 1:] != -100  # by the state before it; logits of prompts and pictures are not made
        logits = policy.get_output_embeddings()(recording.states[:, :-1][answered])
        loss = F.cross_entropy(logits.float(), labels[:, 1:][answered])
        return self._views(recording, given, sizes, labels), loss

    def _views(
        self, recording: Recording, given: Mapping[str, Any], sizes: Sequence[tuple[int, int]], labels: Tensor
    ) -> list[View]:
        features = self.backbone.features(recording, given, image_sizes=sizes)
        if self.token is None:
            return [View(one) for one in features]
        answers = given["input_ids"].masked_fill(labels == -100, -1)  # a token that the prompt speaks of is no answer
        tokens = token_states(recording.states, answers, self.token)
        return [View(one, states) for one, states in zip(features, tokens, strict=True)]


def _apart(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[int, int]], Tensor]:
    given = dict(inputs)
    sizes, labels = given.pop("image_sizes"), given.pop("labels", torch.empty(0))
    return given, sizes, labels

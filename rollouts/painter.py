"""A trained mask decoder on its policy: masks for what the policy wrote about its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers.integrations import is_deepspeed_zero3_enabled

from rollouts.policy import Model, Processor
from rollouts.reading import answer_ids
from rollouts.rows import Chat
from segmentation.backbones import Features, Recording, make_backbone, token_states
from segmentation.decoders.fill import Answer, fill
from segmentation.decoders.mask_decoder import MaskDecoder, check_fits
from segmentation.formats import Format
from segmentation.sample import Found, Invalid, Prediction, Sample

PICTURES = 8  # that go through the policy at once, where the trainer's own forward is not used


@dataclass(frozen=True, slots=True)
class Seen:
    """A forward over prompts and completions, `B` rows.

    Args:
        recording: of the backbone.
        inputs: what the model was given: `input_ids` `(B, L)`, `pixel_values`, and Qwen's `image_grid_thw`.
        prompt: length of the padded prompts; completions stand behind it.
    """

    recording: Recording
    inputs: Mapping[str, Any]
    prompt: int


class Painter:
    """Fills predictions with the masks of a trained decoder, from the policy's own features.

    A decoder of boxes and the vision encoder alone costs a pass of that encoder for each picture, however many
    completions are about it. One that reads the language model's states costs a forward over what was written.

    Args:
        decoder: trained on this policy's features.
        model: the policy, also inside PEFT's or accelerate's wrappers.
        processor: the policy's.
        format: of the completions.

    Raises:
        ValueError: the decoder was trained on another policy, or needs what the format does not write.
    """

    def __init__(self, decoder: MaskDecoder, model: Model, processor: Processor, format: Format) -> None:
        layers = decoder.spec.vision_layers if decoder.spec else (-1,)
        cells = getattr(decoder, "cells", None) if decoder.needs_projected else None
        self.backbone = make_backbone(model, processor, layers, cells)
        check_fits(decoder.spec, self.backbone.spec, "decoder.path")
        if decoder.needs_token and format.seg_token is None:
            raise ValueError(f"decoder.path: it reads a segmentation token, and {type(format).__name__} writes none.")
        self.decoder, self.model, self.processor, self.format = decoder, model, processor, format
        self.reads_states = decoder.needs_states or decoder.needs_token
        self.token = processor.tokenizer.convert_tokens_to_ids(format.seg_token) if decoder.needs_token else None

    @torch.no_grad()
    def paint(
        self,
        predictions: Sequence[Prediction],
        samples: Sequence[Sample],
        chats: Sequence[Chat],
        images: Sequence[Image.Image],
        completions: Sequence[Sequence[int]],
        seen: Seen | None = None,
    ) -> list[Prediction]:
        """The predictions with their masks, where they are `Found`.

        For a decoder that reads segmentation tokens, an answer that has not one for each object is Invalid: the policy
        can spell the same text in other tokens. Those in its thoughts do not count.

        Args:
            samples: what was asked, for the size of the original picture.
            chats, images: the prompts and the pictures as the policy saw them. Rows about one picture share the object.
            completions: tokens written, in which the states of segmentation tokens are looked up.
            seen: a forward that was made over just these rows; without it, what is needed is computed here.
        """
        self.decoder.to(next(self.model.parameters()).device)
        first: dict[int, int] = {}  # of a picture's rows
        for row, image in enumerate(images):
            first.setdefault(id(image), row)
        rows = list(first.values())
        tokens: Sequence[Tensor | None] = [None] * len(samples)
        if not self.reads_states:
            features = self._look([images[row] for row in rows], len(images))
        else:
            seen = seen or self._forward(chats, images, completions)
            sizes = [(image.height, image.width) for image in images]
            with _root_weights(self.model):
                features = self.backbone.features(seen.recording, seen.inputs, rows, image_sizes=sizes)
            if self.token is not None:
                written = seen.inputs["input_ids"].clone()
                written[:, : seen.prompt] = -1  # a token that the prompt speaks of is no answer
                said = written[:, seen.prompt :]
                said.copy_(answer_ids(said, self.format, self.processor.tokenizer))
                tokens = token_states(seen.recording.states, written, self.token)
                predictions, tokens = zip(*map(self._matched, predictions, tokens), strict=True)
        like = next(self.decoder.parameters())
        answers = [
            Answer(prediction, rows.index(first[id(image)]), sample.height, sample.width, _to(like, states))
            for prediction, image, sample, states in zip(predictions, images, samples, tokens, strict=True)
        ]
        return fill(self.decoder, [one.to(like.dtype) for one in features], answers)

    def _matched(self, prediction: Prediction, states: Tensor) -> tuple[Prediction, Tensor]:
        """An answer and the states `(n, D)` of its objects' tokens."""
        if not isinstance(prediction, Found):
            return prediction, states
        objects = len(prediction.instances)
        if self.format.on_broken == "prefix":  # tokens behind the break are of objects that were not kept
            states = states[:objects]
        if len(states) != objects:
            prediction = Invalid(f"{objects} objects and {len(states)} times the token {self.format.seg_token}")
        return prediction, states

    def _look(self, images: Sequence[Image.Image], rows: int) -> list[Features]:
        """Each picture's features by the vision encoder, a few at a time.

        Args:
            rows: of the batch, as many in every process. A sharded model needs all processes to call it equally often,
                and they may have other numbers of pictures: those that have no more look at their first again.
        """
        features: list[Features] = []
        for first in range(0, rows if _is_sharded(self.model) else len(images), PICTURES):
            some = images[first : first + PICTURES]
            shown = some or images[:1]
            inputs = self.processor.image_processor(images=list(shown), return_tensors="pt")
            inputs = inputs.to(next(self.model.parameters()).device)
            with _root_weights(self.model):
                seen = self.backbone.vision(inputs, image_sizes=[(image.height, image.width) for image in shown])
            features += seen[: len(some)]
        return features

    def _forward(
        self, chats: Sequence[Chat], images: Sequence[Image.Image], completions: Sequence[Sequence[int]]
    ) -> Seen:
        """What a forward over prompts and completions computes, made a few rows at a time."""
        texts = self.processor.apply_chat_template(list(chats), tokenize=False, add_generation_prompt=True)
        inputs = self.processor(images=list(images), text=texts, padding=True, padding_side="left", return_tensors="pt")
        prompt = inputs["input_ids"].shape[1]
        inputs = _with_completions(inputs, completions, self.processor.tokenizer.pad_token_id)
        inputs = inputs.to(next(self.model.parameters()).device)
        layouts = self.backbone.layouts(inputs, [(image.height, image.width) for image in images])
        with self.backbone.record() as recording:
            for first in range(0, len(images), PICTURES):
                some = slice(first, first + PICTURES)
                shown = self.backbone.encoder_inputs(inputs, layouts[some])
                said = {name: value[some] for name, value in inputs.items() if name not in shown}
                self.model(**said, **shown, logits_to_keep=1, use_cache=False)
        return Seen(recording, inputs, prompt)


def _is_sharded(model: Model) -> bool:
    return isinstance(model, FSDPModule) or is_deepspeed_zero3_enabled()


@contextmanager
def _root_weights(model: Model) -> Iterator[None]:
    """Under FSDP2 gather what no layer of its own holds, such as the projector: by itself that lasts for a forward."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model._get_fsdp_state()._lazy_init()  # a layer that ran before the root would take itself for the root
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def _to(like: Tensor, states: Tensor | None) -> Tensor | None:
    return None if states is None else states.to(like)


def _with_completions(inputs: Any, completions: Sequence[Sequence[int]], pad: int) -> Any:
    """Inputs with each row's completion behind its prompt, padded on the right."""
    ids = inputs["input_ids"]
    longest = max(map(len, completions))
    added = torch.full((len(ids), longest), pad, dtype=ids.dtype)
    there = torch.zeros_like(added)
    for row, tokens in enumerate(completions):
        added[row, : len(tokens)] = torch.tensor(list(tokens), dtype=ids.dtype)
        there[row, : len(tokens)] = 1
    inputs["input_ids"] = torch.cat([ids, added], 1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], there], 1)
    if "mm_token_type_ids" in inputs:  # 0 is text
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(added)], 1)
    return inputs

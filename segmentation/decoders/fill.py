"""From answers to masks: what a trained decoder makes of the boxes and segmentation tokens that a policy wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from segmentation.backbones.features import Features, by_size
from segmentation.boxes import Box
from segmentation.decoders.mask_decoder import MaskDecoder, resize_logits
from segmentation.masks import box, encode
from segmentation.sample import Found, Instance, Prediction

PIXELS = 1 << 21  # of the pictures that are encoded at once, and of the objects whose masks are made at once


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of one picture.

    Args:
        prediction: as parsed; an `Instance` may have a box, a segmentation token, or both.
        picture: which of the features it is about.
        height, width: size of the original picture, in whose pixels boxes and masks are.
        tokens: `(n, D)` states of the segmentation tokens, one for each instance in order; None if there are none.
    """

    prediction: Prediction
    picture: int
    height: int
    width: int
    tokens: Tensor | None = None


@torch.no_grad()
def fill(decoder: MaskDecoder, features: Sequence[Features], answers: Sequence[Answer]) -> list[Prediction]:
    """The answers' predictions with every mask made; `NoTarget`, `Invalid` and masks already there pass through.

    Pictures are encoded once, those of one size together, however many answers are about them; `PIXELS` bounds the
    memory, whatever a policy writes. An instance without a box gets the one around its mask, which is (0, 0, 0, 0) if
    that is empty; `score` is the predicted IoU, where the decoder predicts one.

    Args:
        features: of each picture, a batch of one each (`Backbone.features`).

    Raises:
        ValueError: a decoder that needs boxes or tokens was given an instance without, or the number of tokens is not
            that of the instances.
    """
    wanted = [
        (at, order)
        for at, answer in enumerate(answers)
        if isinstance(answer.prediction, Found)
        for order, instance in enumerate(answer.prediction.instances)
        if instance.mask is None
    ]
    made: dict[tuple[int, int], Instance] = {}
    for where, batch in by_size(features, PIXELS):
        position = {picture: row for row, picture in enumerate(where)}
        mine = [(at, order) for at, order in wanted if answers[at].picture in position]
        if not mine:
            continue
        state = decoder.encode_image(batch)
        device, most = batch.pixels.device, max(PIXELS // batch.pixels[0, 0].numel(), 1)
        for some in (mine[first : first + most] for first in range(0, len(mine), most)):
            index = torch.tensor([position[answers[at].picture] for at, _ in some], device=device)
            boxes = torch.tensor([_share(decoder, answers[at], order) for at, order in some], device=device)  # (N, 4)
            tokens = torch.stack([_token(answers[at], order) for at, order in some]) if decoder.needs_token else None
            logits, iou = decoder.decode(state, index, boxes if decoder.needs_box else None, tokens)
            for row, (at, order) in enumerate(some):
                score = None if iou is None else float(iou[row].sigmoid())
                made[at, order] = _painted(answers[at], order, logits[row], score)
    return [_with(answer.prediction, at, made) for at, answer in enumerate(answers)]


def _share(decoder: MaskDecoder, answer: Answer, order: int) -> Box:
    """An instance's box as shares of the picture's sides; the whole picture where the decoder needs none."""
    assert isinstance(answer.prediction, Found)
    said = answer.prediction.instances[order].box
    if said is None:
        if decoder.needs_box:
            raise ValueError(f"fill: an object without a box; {type(decoder).__name__} needs one for each.")
        return 0.0, 0.0, 1.0, 1.0
    x1, y1, x2, y2 = said
    return x1 / answer.width, y1 / answer.height, x2 / answer.width, y2 / answer.height


def _token(answer: Answer, order: int) -> Tensor:
    assert isinstance(answer.prediction, Found)
    objects, tokens = len(answer.prediction.instances), 0 if answer.tokens is None else len(answer.tokens)
    if answer.tokens is None or tokens != objects:
        raise ValueError(f"fill: {objects} objects and {tokens} segmentation tokens; the decoder needs one for each.")
    return answer.tokens[order]


def _painted(answer: Answer, order: int, logits: Tensor, score: float | None) -> Instance:
    """One instance with the mask of its logits `(h, w)`, at the size of its picture, and their probabilities."""
    assert isinstance(answer.prediction, Found)
    instance = answer.prediction.instances[order]
    mask = encode((resize_logits(logits[None], answer.height, answer.width)[0] > 0).cpu().numpy())
    probability = logits.float().sigmoid().half().cpu().numpy()
    around = instance.box or box(mask) or (0.0, 0.0, 0.0, 0.0)
    return replace(instance, mask=mask, box=around, score=score, probability=probability)


def _with(prediction: Prediction, at: int, made: dict[tuple[int, int], Instance]) -> Prediction:
    if not isinstance(prediction, Found):
        return prediction
    return Found(tuple(made.get((at, order), instance) for order, instance in enumerate(prediction.instances)))

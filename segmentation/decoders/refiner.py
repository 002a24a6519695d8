"""`refiner=sam2 refiner.path=facebook/sam2.1-hiera-large`: masks that are there, redrawn by SAM 2. For evaluation only.

No reward comes through here: a policy paid for what SAM 2 makes of its answer would learn to leave the work to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, Sam2Model, Sam2Processor

from segmentation.decoders.mask_decoder import resize_logits
from segmentation.masks import area, box, decode, deepest, encode
from segmentation.processor import is_missing_folder
from segmentation.sample import Found, Instance, Prediction, Sample, open_image

Prompt = Literal["mask", "box", "point"]
PROMPTS: tuple[Prompt, ...] = ("mask", "box", "point")
CERTAIN = 10.0  # logit of a mask's pixels, of its background negative: what SAM 2 makes of a mask given to it as a mask


class Sam2Refiner:
    """SAM 2 with prompts made of what was found.

    Every instance of a `Found` is a prompt of its own, so instances do not compete for pixels. `NoTarget` and `Invalid`
    stay, and an instance keeps its box: what was found, and where, remains the policy's answer.

    What an instance does not have is left out of its prompt, or made of what it has: the box is its own, else the one
    around its mask; the point its own, else the deepest of its mask; an empty mask is no prompt. So a box that no
    decoder has filled is refined from the box alone. For the published box + SAM of filled boxes, `prompts=[box]`: a
    filled box says that the object is a rectangle.

    Args:
        path: a folder or a name on the hub with the weights (safetensors) and processor of a SAM 2, of its image or its
            video model; the memory of the latter is not used.
        prompts: what SAM 2 is shown.

    Raises:
        FileNotFoundError: `path` looks like a local folder and is not there.
        OSError: transformers finds no config, weights or processor at `path`.
        ValueError: no prompts, an unknown or a repeated one; another model than SAM 2; weights missing in the files.
    """

    def __init__(self, path: str | Path, prompts: tuple[Prompt, ...] = ("mask", "box")) -> None:
        if not prompts or len(set(prompts)) < len(prompts) or not set(prompts) <= set(PROMPTS):
            raise ValueError(f"refiner.prompts={list(prompts)}: choose one or more of {', '.join(PROMPTS)}, each once.")
        if is_missing_folder(path):
            raise FileNotFoundError(
                f"refiner.path={path}: no such folder; download a SAM 2 there, or name one on the hub."
            )
        try:
            kind = AutoConfig.from_pretrained(path).model_type
        except OSError as error:  # of the hub, which does not always say what was asked for
            raise OSError(f"refiner.path={path}: {error}") from error
        if kind not in ("sam2", "sam2_video"):
            raise ValueError(
                f"refiner.path={path}: a model of type {kind}; a SAM 2 such as facebook/sam2.1-hiera-large."
            )
        loaded: Any = Sam2Model.from_pretrained(path, use_safetensors=True, output_loading_info=True)
        model, report = loaded
        if missing := sorted(report["missing_keys"]):  # transformers would go on with random ones
            raise ValueError(f"refiner.path={path}: {len(missing)} weights are missing, the first is {missing[0]}.")
        self.model = model.eval()
        self.processor: Any = Sam2Processor.from_pretrained(path)
        self.prompts = prompts

    @torch.no_grad()
    def refine(self, predictions: Sequence[Prediction], samples: Sequence[Sample]) -> list[Prediction]:
        """The predictions with the masks of SAM 2, which says of each how sure it is (`score`, its predicted IoU).

        A picture is encoded once, however many of the answers are about it, and the masks on it are made together. What
        SAM 2 answers stands, even where it is empty.

        Args:
            samples: what each prediction is about; their original pictures are opened.

        Raises:
            BrokenImage: see `segmentation.sample.open_image`.
            ValueError: an instance has neither a mask nor anything to prompt with; the message names the sample.
        """
        answers: dict[object, list[int]] = {}  # of each picture
        for row, (prediction, sample) in enumerate(zip(predictions, samples, strict=True)):
            if isinstance(prediction, Found):
                answers.setdefault(sample.image if isinstance(sample.image, Path) else id(sample.image), []).append(row)
        refined = list(predictions)
        for rows in answers.values():
            found = [prediction for row in rows if isinstance(prediction := predictions[row], Found)]
            whole = [one for answer in found for one in answer.instances]
            shown = [self._shown(one, samples[row]) for row, a in zip(rows, found, strict=True) for one in a.instances]
            made = iter(self._redraw(whole, shown, samples[rows[0]]))
            for row, answer in zip(rows, found, strict=True):
                refined[row] = Found(tuple(next(made) for _ in answer.instances))
        return refined

    def _redraw(
        self, instances: Sequence[Instance], shown: Sequence[dict[Prompt, Any]], sample: Sample
    ) -> list[Instance]:
        """The instances on the picture of a sample, with new masks. Those prompted by the same things go together."""
        alike: dict[tuple[Prompt, ...], list[int]] = {}
        for at, prompt in enumerate(shown):
            alike.setdefault(tuple(prompt), []).append(at)
        redrawn = list(instances)
        if not any(alike):
            return redrawn
        inputs = self.processor(images=open_image(sample), return_tensors="pt")
        maps = self.model.get_image_embeddings(inputs["pixel_values"].to(self.model.device, self.model.dtype))
        for kinds, where in alike.items():
            if not kinds:
                continue
            given: dict[Prompt, list[Any]] = {kind: [shown[at][kind] for at in where] for kind in kinds}
            output = self.model(
                image_embeddings=[one.expand(len(where), -1, -1, -1) for one in maps],
                multimask_output=False,
                **self._inputs(given, sample),
            )
            for at, logits, score in zip(where, output.pred_masks[:, 0], output.iou_scores[:, 0, 0], strict=True):
                redrawn[at] = _painted(redrawn[at], logits, sample, float(score))
        return redrawn

    def _shown(self, instance: Instance, sample: Sample) -> dict[Prompt, Any]:
        """What SAM 2 is shown of an instance, in pixels of the picture; empty for one with an empty mask and no box."""
        drawn = instance.mask if instance.mask and area(instance.mask) else None
        prompt: dict[Prompt, Any] = {
            "mask": drawn and decode(drawn),
            "box": instance.box or (drawn and box(drawn)),
            "point": instance.point or (drawn and deepest(drawn)),
        }
        prompt = {kind: prompt[kind] for kind in self.prompts if prompt[kind] is not None}
        if not prompt and instance.mask is None:
            raise ValueError(
                f"refiner: an object of sample {sample.id} has no mask, and nothing to prompt with "
                f"(refiner.prompts={list(self.prompts)}); configure a decoder."
            )
        return prompt

    def _inputs(self, given: dict[Prompt, list[Any]], sample: Sample) -> dict[str, Tensor]:
        """Prompts of `N` objects as the model takes them, each on a picture of its own: a picture has one mask prompt.

        Boxes `(N, 1, 4)` and points `(N, 1, 1, 2)` in the model's frame, masks `(N, 1, h, w)` as logits.
        """
        inputs: dict[str, Tensor] = {}
        coordinates: dict[str, Any] = {}
        if "box" in given:
            coordinates["input_boxes"] = [[list(map(float, box)) for box in given["box"]]]
        if "point" in given:
            coordinates["input_points"] = [[[list(map(float, point))] for point in given["point"]]]
        if coordinates:
            size = [[sample.height, sample.width]]
            framed = self.processor(original_sizes=size, return_tensors="pt", **coordinates)
            inputs |= {key: framed[key].transpose(0, 1) for key in coordinates}
        if "mask" in given:
            size = self.model.prompt_encoder.mask_input_size
            inputs["input_masks"] = torch.cat([_logits(mask, size) for mask in given["mask"]])
        return {key: value.to(self.model.device, self.model.dtype) for key, value in inputs.items()}


def _logits(mask: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Logits `(1, 1, *size)` of a mask `bool (H, W)`; a cell that it covers in part lies between certain and not."""
    pixels = torch.from_numpy(mask).float()[None, None]
    share = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    return CERTAIN * (2 * share - 1)


def _painted(instance: Instance, logits: Tensor, sample: Sample, score: float) -> Instance:
    """The instance with the mask of its logits `(1, h, w)`, at the size of its picture."""
    mask = encode((resize_logits(logits, sample.height, sample.width)[0] > 0).cpu().numpy())
    return replace(instance, mask=mask, box=instance.box or box(mask), score=score)

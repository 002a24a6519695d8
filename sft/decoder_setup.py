"""What `sft/train_decoder.py` is made of, from its config: checked before anything is trained."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any

import torch
from omegaconf import DictConfig
from peft import get_peft_model
from transformers import TrainingArguments

import configs
from configs.strict import locate
from rollouts.device import training_arguments, under_deepspeed, under_fsdp
from rollouts.policy import Model, Processor, freeze_vision
from rollouts.sections import make_lora
from segmentation.backbones import make_backbone
from segmentation.boxes import Box
from segmentation.decoders import MaskDecoder
from segmentation.formats import Format
from segmentation.sample import Found, Sample
from sft.decoder_batches import objects
from sft.decoder_boxes import own_boxes
from sft.feature_cache import FeatureCache, made_by
from sft.view import Viewer

BOXES = ("annotated", "predictions")


def make_arguments(cfg: DictConfig) -> TrainingArguments:
    """The Trainer's arguments.

    Raises:
        ConfigError: a key of the trainer, or keys that exclude each other.
    """
    if under_deepspeed() or under_fsdp():
        raise configs.ConfigError(
            "launch: a decoder is trained without DeepSpeed and FSDP; use configs/launch/gpu1.yaml or gpu8_ddp.yaml."
        )
    if cfg.joint and cfg.cache is not None:
        raise configs.ConfigError("cache: with joint=true the policy changes at every step; set cache=null.")
    if not cfg.joint and cfg.trainer.gradient_checkpointing:
        raise configs.ConfigError("trainer.gradient_checkpointing: only with joint=true is there much to recompute.")
    if cfg.boxes not in BOXES:
        raise configs.unknown("value of boxes", cfg.boxes, BOXES)
    if not 0 <= cfg.box_jitter < 0.5:
        raise configs.ConfigError(f"box_jitter={cfg.box_jitter}: from 0 to below 0.5 of a side.")
    files = {"boxes_file": cfg.boxes_file, "val_boxes_file": cfg.val_boxes_file}
    if missing := [key for key, file in files.items() if (file is None) == (cfg.boxes == "predictions")]:
        raise configs.ConfigError(f"{', '.join(missing)}: given with boxes=predictions, and only then.")
    return configs.build(
        TrainingArguments,
        cfg.trainer,
        where="trainer",
        output_dir=cfg.output_dir,
        seed=cfg.seed,
        remove_unused_columns=False,  # a sample has none
        metric_for_best_model="miou",
        greater_is_better=True,
        label_names=[],
        **training_arguments(),
    )


def new_decoder(section: Mapping[str, Any], model: Model, processor: Processor) -> MaskDecoder:
    """The decoder of the section, its widths those of the policy; `decoder=trained` is trained further.

    `vision_layers` is no argument of a decoder: it says which blocks of the vision encoder are its maps, by number, or
    how many, evenly spaced up to the last.

    Raises:
        ConfigError: the section is of no decoder that can be trained, or the policy has no such blocks.
    """
    values = configs.plain(section)
    layers, given = values.pop("vision_layers", None), {}
    if layers is not None:
        try:
            depth = len(make_backbone(model, processor).blocks)
            layers = evenly(layers, depth) if isinstance(layers, int) else layers
            spec = make_backbone(model, processor, layers).spec
        except ValueError as error:
            raise configs.ConfigError(f"decoder.vision_layers: {error}") from error
        widths = {"llm_dim": spec.llm_dim, "vision_dims": spec.vision_dims, "vision_dim": spec.vision_dims[-1]}
        taken = inspect.signature(locate(values["_target_"], "decoder")).parameters
        given = {key: value for key, value in widths.items() if key in taken} | {"spec": asdict(spec)}
    decoder = configs.instantiate(values, where="decoder", **given)
    if not isinstance(decoder, MaskDecoder):
        raise configs.ConfigError(f"decoder: {type(decoder).__name__} has nothing to train; try decoder=box_guided.")
    return decoder


def evenly(count: int, depth: int) -> tuple[int, ...]:
    """`count` of `depth` blocks, evenly spaced up to the last: 4 of 24 are 5, 11, 17 and 23."""
    if not 1 <= count <= depth:
        raise ValueError(f"{count} blocks of an encoder that has {depth}.")
    return tuple(round(depth * (one + 1) / count) - 1 for one in range(count))


def check_format(decoder: MaskDecoder, format: Format, samples: Sequence[Sample]) -> None:
    """That the format's texts hold what the decoder reads.

    Raises:
        ConfigError: they do not, or they have masks already.
        ValueError: the data has no masks.
    """
    name = type(decoder).__name__
    sample = next((one for one in islice(samples, 1000) if one.targets), None)
    if sample is None:
        raise configs.ConfigError("data: no target in the first 1,000 samples: there is no mask to learn from.")
    objects(sample, format)
    if decoder.needs_token and format.seg_token is None:
        raise configs.ConfigError(
            f"format: {name} reads a segmentation token, and this format writes none; choose format=mask_token or "
            "format=seg_token, or a decoder of boxes alone (decoder=box_guided decoder.use_token=false)."
        )
    said = format.parse(format.encode(sample), sample.height, sample.width)
    instances = said.instances if isinstance(said, Found) else ()
    if any(instance.mask is not None for instance in instances):
        raise configs.ConfigError("format: its text has the masks, no decoder would ever be asked; try format=box.")
    if decoder.needs_box and any(instance.box is None for instance in instances):
        raise configs.ConfigError(
            f"format: {name} needs a box for each object, and this format writes none; choose format=box or "
            "format=mask_token, or set decoder.box_query=false decoder.pixel_fusion=false."
        )


def training_boxes(
    cfg: DictConfig, samples: Sequence[Sample], validation: Sequence[Sample], format: Format
) -> tuple[dict[str, list[Box]] | None, dict[str, list[Box]] | None]:
    """The policy's own boxes of both, by sample; None for annotated ones. Prints how many were matched.

    Raises:
        ConfigError: a file is missing, is broken, or is of other samples.
    """
    if cfg.boxes == "annotated":
        return None, None
    made = []
    for key, part in (("boxes_file", samples), ("val_boxes_file", validation)):
        try:
            own = own_boxes(part, cfg[key], partial(objects, format=format))
        except (ValueError, OSError) as error:
            raise configs.ConfigError(f"{key}: {error}") from error
        print(f"{key}: {own}", flush=True)
        made.append(own.boxes)
    return made[0], made[1]


def rows_seen(arguments: TrainingArguments, samples: int) -> int:
    """How many different rows a training can ask for at most."""
    if arguments.max_steps <= 0:
        return samples
    step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    return min(samples, arguments.max_steps * step)


def make_cache(cfg: DictConfig, viewer: Viewer, rows: int) -> FeatureCache | None:
    """The cache for `rows` rows, None if none is wanted. Raises ConfigError if the folder's is stale."""
    if cfg.cache is None:
        return None
    try:
        return FeatureCache(cfg.cache, made_by(viewer), rows)
    except (ValueError, OSError) as error:
        raise configs.ConfigError(str(error)) from error


def validation_samples(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` samples with targets out of as many places, evenly spread.

    Raises:
        ConfigError: none has a target.
    """
    count = min(count, len(samples))
    spread = (samples[index * len(samples) // count] for index in range(count))
    if not (chosen := [sample for sample in spread if sample.targets]):
        raise configs.ConfigError(f"benchmark: none of {count} samples has a target; raise val_samples.")
    return chosen


def trained_policy(cfg: DictConfig, model: Model) -> Model:
    """The policy as joint training changes it: LoRA on its language model, or all of it but what is frozen."""
    model = freeze_vision(model) if cfg.model.freeze_vision else model
    lora = make_lora(cfg.model.lora)
    return model if lora is None else get_peft_model(model, lora)


def make_optimizer(
    decoder: MaskDecoder, policy: Model | None, arguments: TrainingArguments, policy_rate: float
) -> torch.optim.Optimizer | None:
    """AdamW with a rate of its own for the policy; None, the Trainer's own, without one."""
    if policy is None:
        return None
    groups = [
        {"params": list(decoder.parameters()), "lr": arguments.learning_rate},
        {"params": [weight for weight in policy.parameters() if weight.requires_grad], "lr": policy_rate},
    ]
    return torch.optim.AdamW(groups, weight_decay=arguments.weight_decay)

"""What a training needs of each GPU: python -m rollouts.memory, and behind it what the training would be given.

    python -m rollouts.memory recipe=qwen2_5_vl_3b_lora_24gb                    # of rl/grpo.py with these overrides
    python -m rollouts.memory warm_start recipe=qwen2_5_vl_3b_lora_24gb format=bricks

No GPU is needed to choose a recipe. rl/grpo.py and sft/warm_start.py print the same table when they start on CUDA, and
say so if it will not fit. It counts the largest pictures that `model.max_pixels` allows and completions of full length:
a batch of smaller ones needs less.
"""

from __future__ import annotations

import sys

import configs

# Imports take seconds, the command line is checked before them.
training = sys.argv.pop(1) if __name__ == "__main__" and sys.argv[1:2] in (["grpo"], ["warm_start"]) else "grpo"
command = configs.main(training, several=["data"], script=__name__)

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console

from configs.terminal import first_rank
from rollouts import footprint
from rollouts.architectures import architecture, image_tokens, on_meta
from rollouts.estimate import GIB, Estimate, Part, show
from rollouts.painter import PICTURES
from rollouts.policy import LANGUAGE_LINEARS, freeze_vision, image_frame, load_processor
from rollouts.sections import make_decoder
from segmentation.boxes import Relative, ResizedPixels
from segmentation.decoders import MaskDecoder
from segmentation.decoders.fill import PIXELS

PROMPT, ANSWER = 128, 512  # tokens of a prompt's text; and of an answer to learn, which no config bounds
RESERVE = GIB  # CUDA's context, workspaces of cuBLAS and NCCL, and what the allocator cannot use
ENGINE = GIB  # what vLLM takes beside weights and cache: its own forward, CUDA graphs
MASKS = 400  # bytes that a trained decoder takes for each pixel of the pictures it encodes at once, DSFF the most


@dataclass(frozen=True, slots=True)
class Machine:
    """What a training runs on: as launched, or as the config's `hardware` says where nothing is launched yet.

    Args:
        gpus: processes.
        card: bytes of each GPU; None if neither is known.
        sharding: ZeRO's stage, 0 for none; FSDP with full sharding counts as 3.
    """

    gpus: int
    card: int | None
    sharding: int


def planned(hardware: Mapping[str, Any]) -> Machine:
    """The machine that the config describes."""
    card = hardware["memory"]
    return Machine(hardware["gpus"] or 1, card * GIB if card else None, hardware["sharding"] or 0)


def launched() -> Machine:
    """The machine under this process, as `accelerate launch` says it in the environment."""
    stage = int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "0"))
    if os.environ.get("ACCELERATE_USE_FSDP", "false") == "true":
        stage = 3
    card = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return Machine(int(os.environ.get("WORLD_SIZE", "1")), card, stage)


def estimate(cfg: DictConfig, machine: Machine) -> Estimate:
    """Of an rl/grpo.py config, or of an sft/warm_start.py config, which has no rollouts.

    Raises:
        ConfigError: `model.max_pixels` is null and the model's own processor has no limit that is known here.
    """
    grpo = "rollouts" in cfg
    config: Any = architecture(cfg.model.path)
    model = on_meta(config, cfg.model.dtype)
    plain = footprint.weights(model.parameters())
    element = model.dtype.itemsize
    added = 0 if grpo else _tokens_of(cfg.format)
    everything, trained = parameters(model, cfg.model.freeze_vision, cfg.model.lora, added)
    trainer, stack, vision = cfg.trainer, footprint.language_stack(config), footprint.vision_stack(config)
    pixels = _max_pixels(cfg.model)
    rows, gpus = trainer.per_device_train_batch_size, machine.gpus
    completion = trainer.max_completion_length if grpo else ANSWER
    sequence = image_tokens(config, pixels) + PROMPT + completion

    parts = [*_states(everything, trained, machine)]
    lora = cfg.model.lora
    per_token = footprint.layer(
        stack, bool(lora), element, bool(lora and lora.get("lora_dropout")), lora.r if lora else 0
    )
    kept = footprint.training_activations(stack, rows * sequence, per_token, trainer.gradient_checkpointing, element)
    how = f"{rows} x {sequence} tokens, {'' if trainer.gradient_checkpointing else 'not '}checkpointed"
    parts.append(Part("activations", kept, "training", how))
    seen = rows * footprint.patches(config, pixels)
    if cfg.model.freeze_vision:
        looking = footprint.pass_without_gradients(vision, seen, element)
    else:
        per_patch = footprint.layer(vision, False, element)
        looking = footprint.training_activations(vision, seen, per_patch, trainer.gradient_checkpointing, element)
    parts.append(Part("vision encoder", looking, "training", f"{rows} pictures of {pixels} pixels"))
    head = model.get_output_embeddings().weight
    head_trained = any(one.shape == head.shape for one in trained)
    fused = footprint.loss(stack, len(head), rows * completion, head_trained)
    parts.append(Part("loss", fused, "training", f"tiles of logits, {len(head)} rows"))
    notes = []
    if grpo:
        if trainer.beta and lora is None:  # with LoRA it is the policy without its adapters
            shared = (
                machine.gpus if machine.sharding == 3 else 1
            )  # ZeRO 2 leaves it whole: trl.models.prepare_deepspeed
            parts.append(
                Part("reference", plain // shared, "always", f"the first policy, of trainer.beta={trainer.beta}")
            )
        written = rows * (trainer.get("steps_per_generation") or trainer.gradient_accumulation_steps)
        held = written * footprint.pixel_bytes(config, pixels)
        parts.append(Part("pictures", held, "always", f"of {written} completions that are written at once"))
        if cfg.rollouts.use_vllm:
            part, note = _engine(cfg.rollouts, machine, plain, footprint.key_values(stack, sequence))
            parts.append(part)
            notes += note
        else:
            cache = footprint.key_values(stack, written * sequence, element)
            parts.append(Part("keys and values", cache, "writing", f"{written} x {sequence} tokens at once"))
            first = footprint.pass_without_gradients(stack, written * (sequence - completion), element)
            first = max(
                first, footprint.pass_without_gradients(vision, written * footprint.patches(config, pixels), element)
            )
            parts.append(Part("prompts", first, "writing", f"{written} pictures and prompts in one pass"))
        parts += _decoder(cfg, config, written, trainer.num_generations, sequence, pixels, element)
    parts.append(Part("reserve", RESERVE, "always", "CUDA's context, workspaces, fragments"))
    notes += _differs(cfg.hardware, gpus)
    return Estimate(tuple(part for part in parts if part.bytes), machine.card, tuple(notes))


def parameters(
    model: Any, freeze: bool, lora: Mapping[str, Any] | None, added: int = 0
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """All parameters of a model as it is trained, and those that are trained. Nothing is allocated.

    Args:
        model: on the meta device.
        freeze: its vision encoder.
        lora: `model.lora`, of which the rank counts; adapters are float32, as peft makes them.
        added: tokens that are new to it: with LoRA, whole tables are trained for them, in float32, too
            (`rollouts.policy.new_rows`, `learn_in_float32`).
    """
    model = freeze_vision(model) if freeze else model
    whole = list(model.parameters())
    if lora is None:
        return whole, [one for one in whole if one.requires_grad]
    trained: list[torch.Tensor] = []
    with torch.device("meta"):
        for name, part in model.named_modules():
            if isinstance(part, torch.nn.Linear) and re.fullmatch(LANGUAGE_LINEARS, name):
                trained.append(torch.empty(lora["r"], part.in_features))
                trained.append(torch.empty(part.out_features, lora["r"]))
    if added:
        tables = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
        trained += [
            torch.empty(one.shape, device=one.device) for one in tables[: 1 if model.config.tie_word_embeddings else 2]
        ]
    return whole + trained, trained


def _states(everything: list[torch.Tensor], trained: list[torch.Tensor], machine: Machine) -> list[Part]:
    """Weights, gradients and the optimiser's states on one GPU."""
    gpus, stage = machine.gpus, machine.sharding
    count = _count(trained)
    whole, gradients = footprint.weights(everything), footprint.weights(trained)
    said = f"{_count(everything) / 1e9:.2f} B, {count / 1e6:.0f} M of them trained"
    if not stage:
        buckets = gradients if gpus > 1 else 0  # DistributedDataParallel's, beside the gradients
        return [
            Part("weights", whole, "always", said),
            Part("gradients", gradients + buckets, "always", "in the weights' type" + ", twice: DDP" * bool(buckets)),
            Part("optimiser", footprint.adamw(trained), "always", "AdamW: two moments in the weights' type"),
        ]
    shared = f"over {gpus} GPUs by ZeRO {stage}"
    bucket = 2 * 2 * 500_000_000 if count > 500_000_000 else 0  # DeepSpeed's reduce_bucket_size, one filled, one sent
    held, how = 2 * _count(everything), said
    if stage == 3:
        held, how = held // gpus, f"{said}, {shared}"
    return [
        Part("weights", held, "always", how),
        Part("gradients", 2 * count // gpus + bucket, "always", f"{shared}, and its buckets"),
        Part("optimiser", footprint.zero_states(count, gpus), "always", f"float32 weights and two moments, {shared}"),
    ]


def _engine(rollouts: Mapping[str, Any], machine: Machine, weights: int, sequence: int) -> tuple[Part, list[str]]:
    """vLLM's share of the card, and what is wrong with it."""
    share = rollouts["vllm_gpu_memory_utilization"]
    needs = weights + ENGINE + sequence
    if machine.card is None or rollouts["vllm_mode"] != "colocate":
        return Part("vLLM", needs if rollouts["vllm_mode"] == "colocate" else 0, "always", "at least: one sequence"), []
    taken = int(share * machine.card)
    room = max(taken - weights - ENGINE, 0) // sequence
    part = Part("vLLM", taken, "always", f"{share} of the card: its copy of the weights, {room} sequences at once")
    if room:
        return part, []
    least = needs / machine.card
    return part, [
        f"vLLM cannot start: weights and one sequence need rollouts.vllm_gpu_memory_utilization={least:.2f}, "
        f"it is {share}; or rollouts=transformers, which shares the trainer's weights."
    ]


def _decoder(
    cfg: DictConfig, config: Any, written: int, group: int, sequence: int, pixels: int, element: int
) -> list[Part]:
    """A trained decoder's weights, and the features of the policy that are kept for it."""
    decoder = make_decoder(cfg.decoder)
    if not isinstance(decoder, MaskDecoder) or decoder.spec is None:
        return []
    all_rows = decoder.needs_states or decoder.needs_token
    pictures = written if all_rows else max(written // group, 1)
    features = pictures * footprint.patches(config, pixels) * sum(decoder.spec.vision_dims) * element
    features += written * sequence * decoder.spec.llm_dim * element if all_rows else 0
    how = f"its weights, and features of {pictures} {'completions' if all_rows else 'pictures'}"
    held = footprint.weights(decoder.parameters()) + features
    patches = PICTURES * footprint.patches(config, pixels)
    passes = [footprint.pass_without_gradients(footprint.vision_stack(config), patches, element)]
    if all_rows:
        stack = footprint.language_stack(config)
        passes.append(footprint.pass_without_gradients(stack, PICTURES * sequence, element))
    at_once = max(*passes, max(PIXELS, pixels) * MASKS)
    return [
        Part("decoder", held, "always", how),
        Part("painting", at_once, "writing", f"{PICTURES} pictures pass the policy, or a few objects the decoder"),
    ]


def _tokens_of(section: Mapping[str, Any]) -> int:
    """How many tokens a format adds to a vocabulary; its frame makes no difference to that."""
    values = configs.plain(section)
    values.pop("reasoning", None)
    frame = {"convention": Relative(1000)} if values.get("convention", "") is None else {}
    return len(configs.instantiate(values, where="format", **frame).new_tokens)


def _max_pixels(model: Mapping[str, Any]) -> int:
    if model["max_pixels"] is not None:
        return model["max_pixels"]
    frame = image_frame(load_processor(model["path"]))
    if frame is None:
        raise configs.ConfigError("model.max_pixels: needed to count the memory of this family's pictures.")
    return frame.max_pixels if isinstance(frame, ResizedPixels) else frame.most * frame.side**2


def _differs(hardware: Mapping[str, Any], gpus: int) -> list[str]:
    """A recipe launched on another number of GPUs has another global batch."""
    if hardware["gpus"] in (None, gpus):
        return []
    meant = hardware["gpus"]
    return [
        f"hardware.gpus={meant}, launched on {gpus}: the global batch is {gpus / meant:g} times the recipe's. "
        f"Launch with --num_processes {meant}, or change trainer.gradient_accumulation_steps."
    ]


def _count(tensors: list[torch.Tensor]) -> int:
    return sum(one.numel() for one in tensors)


def report(cfg: DictConfig) -> None:
    """Before a training on CUDA: print what it needs, once. On a CPU there is nothing to say."""
    if torch.cuda.is_available() and first_rank():
        show(estimate(cfg, launched()), Console(highlight=False, stderr=True))


@command
def main(cfg: DictConfig) -> None:
    """Print the table; exit status 1 if it will not fit."""
    said = estimate(cfg, planned(cfg.hardware))
    show(said, Console(highlight=False, width=None))
    sys.exit(0 if said.fits and not said.notes else 1)


if __name__ == "__main__":
    main()

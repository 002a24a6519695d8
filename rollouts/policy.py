"""The policy: a vision-language model and its processor, in one plain folder that transformers and vLLM both load.

That directory (weights, processor, chat template, generation config) is the single source of truth: vLLM preprocesses
images with the processor saved in it, so nothing about images or tokens may be changed in code alone.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.integrations import is_deepspeed_zero3_enabled

from rollouts.device import under_deepspeed, under_fsdp
from rollouts.vision_attention import batch_vision_attention
from segmentation.processor import Processor as Processor
from segmentation.processor import convention as convention
from segmentation.processor import family as family
from segmentation.processor import image_frame as image_frame
from segmentation.processor import load_processor as load_processor

# What transformers loads: a PreTrainedModel, whose attributes depend on the family. A type checker knows neither those
# nor what calling it returns.
Model = Any

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
# Linear layers of the language model alone: bare names such as `q_proj` would also hit the vision tower (peft#2615).
LANGUAGE_LINEARS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def load_model(path: str | Path, dtype: str = "auto") -> Model:
    """The model saved at `path`, on the CPU; a trainer or an engine moves it where it belongs."""
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=dtype)
    # InternVL's config says tied unless told otherwise, and its head is not: adding tokens would overwrite it.
    head: Any = model.get_output_embeddings()
    model.config.tie_word_embeddings = head.weight is model.get_input_embeddings().weight
    if model.config.model_type in QWEN and not torch.cuda.is_available():
        batch_vision_attention(model)
    return model


def freeze_vision(model: Model) -> Model:
    """The model with its vision encoder and the projector behind it set to stay as they are.

    Raises:
        ValueError: neither `visual` (Qwen) nor `vision_tower` (InternVL) is there.
    """
    inner = model.model
    parts = [getattr(inner, n) for n in ("visual", "vision_tower", "multi_modal_projector") if hasattr(inner, n)]
    if not parts:
        raise ValueError(f"model.freeze_vision: {type(model).__name__} has no vision encoder of a known name.")
    for part in parts:
        part.requires_grad_(False)
        # For adapters under gradient checkpointing, transformers 5.17 makes what comes out of each part's input
        # embeddings require gradients (enable_input_require_grads): a frozen encoder would be kept, made again and gone
        # back through for nothing. Can go when it passes over parts without a parameter to train.
        part.get_input_embeddings = _no_embeddings
    return model


def _no_embeddings() -> None:
    return None


NAMES = ("There were missing keys in the checkpoint", "There were unexpected keys in the checkpoint")  # every weight's


def restore(model: Model, checkpoint: str | Path | None) -> Model:
    """The model with the weights of a trainer's checkpoint; as it is if there is none, or if it holds an adapter.

    transformers 5.17 saves these models under the names of the hub, and its Trainer loads a checkpoint under those of
    the module, not strictly: a full fine-tuning would go on from the weights it began with, and say nothing. Can go
    when Trainer._load_from_checkpoint maps names as from_pretrained does. Adapters are loaded by name and are right,
    and so are the parts of a model under ZeRO-3 and FSDP2, which are no business of from_pretrained's.
    """
    if checkpoint is None or is_deepspeed_zero3_enabled() or under_fsdp():
        return model
    if not (Path(checkpoint) / "adapter_config.json").exists():
        model.load_state_dict(load_model(checkpoint, str(model.dtype).removeprefix("torch.")).state_dict())
        logging.getLogger("transformers.trainer").addFilter(lambda record: not record.getMessage().startswith(NAMES))
    return model


def add_tokens(model: Model, processor: Processor, tokens: tuple[str, ...]) -> int:
    """Put a format's tokens into vocabulary and embedding; returns how many were new.

    Rows that the embedding has to spare are used first (Qwen2.5-VL has 271), so that most models keep their size. A new
    row starts as the mean of the rows in use, so that it is neither likely nor unlikely. Tokens are ordinary ones, not
    special: decoding must never drop them.

    Raises:
        ValueError: new rows were to be written into a table of which this process holds a part.
    """
    tokenizer = processor.tokenizer
    used = len(tokenizer)
    added = tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in tokens])
    if not added:
        return 0
    if is_deepspeed_zero3_enabled():
        raise ValueError(
            f"{added} tokens of the format are new to the model, and under ZeRO-3 no process has the whole embedding; "
            "warm-start with configs/launch/zero2.yaml or gpu8_ddp.yaml. GRPO may then use zero3.yaml."
        )
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        resize_embeddings(model, len(tokenizer))
    with torch.no_grad():
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.weight[used : used + added] = table.weight[:used].mean(0)
    return added


def resize_embeddings(model: Model, tokens: int) -> None:
    """Give the embedding at least a row for each of so many tokens, always as many for the same number."""
    model.resize_token_embeddings(tokens, pad_to_multiple_of=64)


def new_rows(added: int, tied: bool) -> dict[str, Any]:
    """What a LoRA config needs when tokens were added: whole embedding tables, since vLLM knows no other way.

    Tied embeddings must stay tied through the wrapper, or the head would be lost in the merge (peft#2777).
    """
    if not added:
        return {}
    return {"modules_to_save": ["embed_tokens"] if tied else ["embed_tokens", "lm_head"], "ensure_weight_tying": tied}


def learn_new_rows_alone(model: Model, tokens: int, added: int) -> None:
    """Keep the rows of old tokens as they are where whole tables are trained for the new ones (`new_rows`).

    Softmax pulls a little at every row, and Adam makes a full step of it: 100 updates at 1e-4 moved tokens that no text
    had by 0.7e-2 of weights of 2e-2. Not under FSDP2, whose parameters are others than these.

    Args:
        tokens: the vocabulary's, of which the last `added` are new.
    """
    for name, parameter in model.named_parameters():
        if added and parameter.requires_grad and "modules_to_save" in name:
            parameter.register_hook(lambda gradient: _of_rows(gradient, tokens - added, tokens))


def _of_rows(gradient: torch.Tensor, first: int, end: int) -> torch.Tensor:
    """The gradient of some rows, 0 elsewhere; in place, as a second table would take gigabytes."""
    gradient[:first] = 0
    gradient[end:] = 0
    return gradient


def loaded_dtype(model: Model) -> torch.dtype:
    """What the model was loaded in, whatever was made of parts of it since; saving turns the config's into text."""
    return getattr(torch, str(model.config.dtype).removeprefix("torch."))


def learn_in_float32(model: Model) -> None:
    """Give what is trained beside a 16-bit base 32 bits: peft does so for adapters, not for tables of new tokens.

    AdamW would round small updates of a bfloat16 table away. What the table gives out keeps the model's type, so that
    activations stay as small as they were. ZeRO and FSDP2 keep a copy in float32 themselves.
    """
    dtype = loaded_dtype(model)
    if dtype not in (torch.bfloat16, torch.float16) or under_fsdp() or under_deepspeed():
        return
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.get_input_embeddings().register_forward_hook(lambda module, args, output: output.to(dtype))


def check_tokens(processor: Processor, tokens: tuple[str, ...], path: str | Path) -> None:
    """Raises ValueError if the checkpoint's vocabulary lacks a token of the format: it was warm-started on another."""
    vocabulary = processor.tokenizer.get_vocab()
    missing = [token for token in tokens if token not in vocabulary]
    if missing:
        raise ValueError(
            f"model.path={path}: its vocabulary lacks {len(missing)} tokens of the format, the first {missing[0]!r}. "
            "Warm-start it on this format first (sft/warm_start.py format=...)."
        )


def image_token_ids(path: str | Path) -> list[int]:
    """Ids of tokens that stand for pictures: a completion must never contain one (R1-V#91, EasyR1#110)."""
    config = AutoConfig.from_pretrained(path)
    return [getattr(config, name) for name in ("image_token_id", "video_token_id") if getattr(config, name, None)]

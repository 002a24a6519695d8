"""Small Qwen2.5-VL and Qwen3-VL models with tokenizer and processor of their own, built offline from nothing.

    python sft/small_base/build.py qwen3_vl outputs/qwen3_vl     # random weights, for tests

The architecture, file layout, chat format and special tokens are those of the released models, so that everything
that loads a released model loads these. Scenes (64x64) are 8x8 patches, 4x4 tokens to the language model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from rollouts.policy import Model, Processor
from segmentation.data.scenes import Scenes, scene
from sft.small_base.texts import ABSENT, QUESTIONS, conversations

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
TOKENS = 512  # in the tokenizer
ROWS = 768  # in the embedding: like the released models, it has spare rows for tokens added later
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WIDTH, LAYERS, HEAD = 160, 4, 32  # vLLM's CPU attention wants heads of 32 at least
VISION = {"depth": 4, "hidden_size": 96, "intermediate_size": 256, "num_heads": 3, "patch_size": 8}


def tokenizer() -> hf.Qwen2Tokenizer:
    """Byte-level BPE with Qwen's pre-tokenisation (digits one by one), trained on words about scenes and on JSON."""
    words = [
        '[{"bbox_2d": [, , , ], "label": "shape"}]',
        "Locate and segment in the image, report bbox in JSON format.",
    ]
    texts = [ABSENT, *QUESTIONS, *words * 50]
    for index in range(300):
        texts += [text for pair in conversations(*scene("train", 0, index)) for text in pair]
        texts.append(Scenes("train")[index].expression)
    bpe = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=TOKENS - len(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    )
    trained = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(merge) for merge in trained["merges"]]
    made = hf.Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    made.add_special_tokens({"additional_special_tokens": [t for t in SPECIAL if t not in made.all_special_tokens]})
    return made


def _text_config(ids, mrope: dict) -> dict:
    return {
        "vocab_size": ROWS,
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": WIDTH // HEAD,
        "num_key_value_heads": WIDTH // HEAD,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **mrope},
        "bos_token_id": None,
        "eos_token_id": ids("<|im_end|>"),
        "pad_token_id": ids("<|endoftext|>"),
        "tie_word_embeddings": True,
    }


def _token_ids(ids) -> dict:
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    return {f"{key}_token_id": ids(f"<|{token}|>") for key, token in names.items()}


def _generation(ids) -> hf.GenerationConfig:
    stops = [ids("<|im_end|>"), ids("<|endoftext|>")]
    return hf.GenerationConfig(eos_token_id=stops, pad_token_id=ids("<|endoftext|>"))


def _pixels(side: int) -> dict:
    """The processor's limits: nothing smaller than one scene, nothing larger than four."""
    return {"shortest_edge": side * side, "longest_edge": 4 * side * side}


def qwen2_5_vl() -> tuple[Model, Processor]:
    """Qwen2.5-VL of 2 M parameters: random weights, and its processor."""
    words = tokenizer()
    ids = words.convert_tokens_to_ids
    images = hf.Qwen2VLImageProcessor(patch_size=8, size=_pixels(64))
    videos = Qwen2VLVideoProcessor(patch_size=8, size=_pixels(64))
    processor = hf.Qwen2_5_VLProcessor(images, words, videos, chat_template=CHAT)
    vision = {**VISION, "out_hidden_size": WIDTH, "fullatt_block_indexes": list(range(VISION["depth"]))}
    config = hf.Qwen2_5_VLConfig(
        text_config=_text_config(ids, {"mrope_section": [4, 6, 6]}),
        vision_config=vision,
        tie_word_embeddings=True,
        **_token_ids(ids),
    )
    model = hf.Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = _generation(ids)
    return model, processor


def qwen3_vl() -> tuple[Model, Processor]:
    """Its Qwen3-VL twin: deepstack, learned vision positions, interleaved M-RoPE."""
    words = tokenizer()
    ids = words.convert_tokens_to_ids
    images = hf.Qwen2VLImageProcessor(patch_size=8, size=_pixels(64), image_mean=[0.5] * 3, image_std=[0.5] * 3)
    videos = hf.Qwen3VLVideoProcessor(patch_size=8, size=_pixels(64))
    processor = hf.Qwen3VLProcessor(images, words, videos, chat_template=CHAT)
    vision = {**VISION, "out_hidden_size": WIDTH, "deepstack_visual_indexes": [1], "num_position_embeddings": 64}
    config = hf.Qwen3VLConfig(
        text_config={**_text_config(ids, {"mrope_section": [6, 5, 5], "mrope_interleaved": True}), "head_dim": HEAD},
        vision_config=vision,
        tie_word_embeddings=True,
        **_token_ids(ids),
    )
    model = hf.Qwen3VLForConditionalGeneration(config)
    model.generation_config = _generation(ids)
    return model, processor


FAMILIES = {"qwen2_5_vl": qwen2_5_vl, "qwen3_vl": qwen3_vl}

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in FAMILIES:
        raise SystemExit(f"usage: python sft/small_base/build.py {{{','.join(FAMILIES)}}} FOLDER")
    torch.manual_seed(0)
    built, its_processor = FAMILIES[sys.argv[1]]()
    built.save_pretrained(Path(sys.argv[2]))
    its_processor.save_pretrained(Path(sys.argv[2]))
    print(f"{sys.argv[2]}: {built.num_parameters():,} parameters, {len(its_processor.tokenizer)} tokens")

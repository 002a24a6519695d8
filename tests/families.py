"""A tiny policy of each family whose vision encoder is as a real one's, and batches for it."""

import torch
import transformers as hf
from PIL import Image
from tokenizers import pre_tokenizers

from segmentation.backbones import make_backbone
from sft.small_base import build

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "internvl")
PATCH, CELL = 8, 16  # pixels of a patch and of a merged one, in all three


def internvl():
    """A tiny InternVL: tiles of 4x4 patches, 2x2 tokens, up to 6 tiles and a thumbnail."""
    special = {
        **{"start_image_token": "<img>", "end_image_token": "</img>"},
        **{"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"},
    }
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words = hf.Qwen2Tokenizer(
        vocab={letter: index for index, letter in enumerate(sorted(alphabet))},
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=special,
    )
    size = {"height": 32, "width": 32}
    images = hf.GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=6)
    processor = hf.InternVLProcessor(images, words, hf.InternVLVideoProcessor(size=size), image_seq_length=4)
    vision = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3}
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = hf.InternVLConfig(
        text_config={"model_type": "qwen2", "vocab_size": len(words), "num_key_value_heads": 2, **text},
        vision_config={**vision, "image_size": [32, 32], "patch_size": [PATCH, PATCH]},
        image_token_id=processor.image_token_id,
        image_seq_length=4,
    )
    return hf.InternVLForConditionalGeneration(config), processor


def policies():
    """A tiny random policy of each family, and its processor."""
    torch.manual_seed(0)
    made = {family: builder() for family, builder in {**build.FAMILIES, "internvl": internvl}.items()}
    for model, processor in made.values():
        model.eval()
        processor.tokenizer.padding_side = "left"
        if hasattr(processor.image_processor, "merge_size"):  # 16 x 4 cells of a strip fit
            processor.image_processor.size = {"shortest_edge": 64 * 64, "longest_edge": 256 * 256}
    made["qwen2_5_vl"][0].model.visual.window_size = 64  # 4 x 4 cells: pictures are no whole number of windows
    made["qwen2_5_vl"][0].config.vision_config.window_size = 64
    return made


def prompt(processor, words="where?", images=1):
    """A turn with pictures and a text."""
    one = {"InternVLProcessor": "<IMG_CONTEXT>\n"}.get(
        type(processor).__name__, "<|vision_start|><|image_pad|><|vision_end|>"
    )
    return one * images + words


def sizes_of(pictures):
    return [(picture.height, picture.width) for picture in pictures]


def inputs_of(processor, pictures, texts=None):
    """A left-padded batch with a picture a row; texts differ in length."""
    texts = texts or [prompt(processor, "where? " + "now " * row) for row in range(len(pictures))]
    return processor(images=pictures, text=texts, padding=True, return_tensors="pt")


def seen(model, processor, pictures, layers=(0,), **options):
    """Features of a batch, without gradients."""
    backbone = make_backbone(model, processor, layers)
    inputs = inputs_of(processor, pictures)
    with torch.no_grad(), backbone.record() as recording:
        model(**inputs)
    return backbone.features(recording, inputs, image_sizes=sizes_of(pictures), **options)


def noise(size, seed=0):
    pixels = torch.randint(80, 176, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.to(torch.uint8).numpy())

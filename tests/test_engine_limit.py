"""vLLM keeps room for pictures of model.max_pixels, whatever the processor in the policy's folder would take."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rollouts.device import engine_options
from segmentation.data.resize import fit
from segmentation.processor import engine_limit, image_frame, load_processor
from sft.small_base.build import FAMILIES
from tests.families import internvl

BUILD = {**FAMILIES, "internvl": internvl}
LIMIT = {"qwen2_5_vl": (16384, 64), "qwen3_vl": (16384, 64), "internvl": (4096, 20)}  # pixels, tokens at most
TEXT = {"internvl": "<IMG_CONTEXT>\nhi"}


@pytest.mark.vllm
@pytest.mark.parametrize("family", BUILD)
def test_the_engine_reckons_with_the_trainers_pictures(family: str, tmp_path: Path):
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.multimodal.encoder_budget import get_mm_max_toks_per_item
    from vllm.multimodal.processing.context import TimingContext
    from vllm.multimodal.processing.inputs import ProcessorInputs

    model, released = BUILD[family]()
    if family == "internvl":
        released.image_processor.crop_to_patches = False  # as on the hub
    else:
        released.image_processor.size = {"shortest_edge": 64 * 64, "longest_edge": 1024 * 1024}
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(tmp_path)
    released.save_pretrained(tmp_path)

    def engine(told: dict[str, Any]) -> Any:
        options = {"max_model_len": 512, "dtype": "float32", **engine_options(), "enforce_eager": True}
        return MULTIMODAL_REGISTRY.create_processor(
            ModelConfig(model=str(tmp_path), mm_processor_kwargs=told, **options)
        )

    pixels, most = LIMIT[family]
    processor = load_processor(tmp_path, pixels)
    told = engine(engine_limit(processor))
    assert get_mm_max_toks_per_item(told, {"image": 1}, None)["image"] == most
    assert get_mm_max_toks_per_item(engine({}), {"image": 1}, None)["image"] != most

    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    frame = image_frame(processor)
    assert frame is not None
    picture = fit(Image.fromarray(noise), frame)
    text = TEXT.get(family, "<|vision_start|><|image_pad|><|vision_end|>hi")
    ours = processor(images=[picture], text=[text], return_tensors="pt")["input_ids"][0].tolist()
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt = ProcessorInputs(prompt=ids, mm_data_items=told.info.parse_mm_data({"image": picture}))
    assert told.apply(prompt, TimingContext(enabled=False))["prompt_token_ids"] == ours

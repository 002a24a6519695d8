"""Batched vision attention gives the numbers of transformers' own loop over images."""

import pytest
import torch
from PIL import Image

from rollouts.vision_attention import NAME, batch_vision_attention
from sft.small_base.build import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", [[(64, 64)] * 3, [(64, 64), (128, 64), (96, 80)]], ids=["one size", "several"])
def test_same_states_as_one_image_at_a_time(family, sizes):
    torch.manual_seed(0)
    model, processor = FAMILIES[family]()
    pictures = [Image.effect_noise(size, 80).convert("RGB") for size in sizes]
    inputs = processor.image_processor(pictures, return_tensors="pt")
    with torch.no_grad():
        expected = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        batch_vision_attention(model)
        assert model.model.visual.config._attn_implementation == NAME
        assert model.model.language_model.config._attn_implementation != NAME
        batched = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
    torch.testing.assert_close(batched, expected, atol=1e-5, rtol=1e-4)
    assert expected.std() > 0

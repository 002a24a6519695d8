"""Qwen3-VL-Seg's decoder: its published size, and its parts against their definitions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segmentation.decoders import BoxGuidedDecoder
from segmentation.decoders.box_guided_layers import Stem, box_gate
from tests.small_decoders import BOXES, answers, box_guided, decode, pictures, size


def test_box_guided_has_about_as_many_parameters_as_published():
    with torch.device("meta"):
        whole = size(BoxGuidedDecoder(2560, (1024,) * 4))
        off = [{"multi_scale": False}, {"box_query": False}, {"pixel_fusion": False}, {"refinements": 0}]
        assert all(size(BoxGuidedDecoder(2560, (1024,) * 4, **kwargs)) < whole for kwargs in off)
    assert 16.0e6 <= whole <= 17.9e6


def test_box_guided_pixels_are_a_convolution_of_the_gated_join():
    torch.manual_seed(0)
    decoder, features = box_guided().eval(), pictures((2, 3), count=1)
    raw: dict[str, Tensor] = {}
    for name in ("upsample", "stem"):
        decoder.get_submodule(name).register_forward_hook(lambda _module, _in, out, name=name: raw.update({name: out}))
    kernel, weight = torch.randn(9, 16), torch.rand(9, 16, 24)
    with torch.no_grad():
        state = decoder.encode_image(features)
        pixels = decoder._pixels(state, torch.zeros(9, dtype=torch.long), BOXES)
        gate = box_gate(BOXES, 16, 24, decoder.margin, decoder.sharpness)
        stem = F.interpolate(raw["stem"], (16, 24), mode="bilinear")
        joined = torch.cat([raw["upsample"].expand(9, -1, -1, -1), gate[:, None] * stem], dim=1)
        both = torch.cat([decoder.join_up.weight, decoder.join_stem.weight], dim=1)
        whole = F.conv2d(joined, both, decoder.join_up.bias)  # (9, 16, 16, 24)
        logits = (whole * kernel[:, :, None, None]).sum(1)
        torch.testing.assert_close(pixels.dot(kernel), logits, atol=1e-4, rtol=1e-4)
        mean = (whole * weight[:, None]).sum((2, 3)) / weight.sum((1, 2))[:, None]
        torch.testing.assert_close(pixels.mean(weight), mean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("stride", "size"), [(1, (32, 48)), (2, (16, 24)), (4, (8, 12)), (8, (4, 6))])
def test_the_stem_reads_pixels_at_its_stride(stride, size):
    assert Stem(16, stride)(torch.rand(1, 3, 32, 48)).shape[-2:] == size


@pytest.mark.parametrize("upscale", [2, 4, 8])
def test_box_guided_logits_are_as_fine_as_asked(upscale):
    decoder, features = box_guided(upscale=upscale), pictures((3, 5), count=1)
    logits, _ = decode(decoder, features, torch.zeros(len(BOXES), dtype=torch.long), **answers())
    height, width = features.vision[-1].shape[-2:]
    assert logits.shape == (len(BOXES), upscale * height, upscale * width)


@pytest.mark.parametrize("upscale", [0, 1, 3])
def test_logits_that_no_doubling_reaches_are_refused(upscale):
    with pytest.raises(ValueError, match=f"upscale={upscale}"):
        box_guided(upscale=upscale)


def test_a_stem_of_another_stride_is_refused():
    with pytest.raises(ValueError, match="stem_stride=3"):
        Stem(16, 3)


def test_the_gate_is_the_product_of_four_sigmoids_of_a_widened_box():
    gate = box_gate(torch.tensor([[0.2, 0.4, 0.6, 0.8]]), 10, 20, margin=0.15, sharpness=20.0)
    x, y = 7.5 / 20, 4.5 / 10
    sides = (x - 0.17, 0.63 - x, y - 0.37, 0.83 - y)
    expected = math.prod(1 / (1 + math.exp(-20 * side)) for side in sides)
    assert gate.shape == (1, 10, 20) and gate[0, 4, 7].item() == pytest.approx(expected, rel=1e-5)

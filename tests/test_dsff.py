"""MLLMSeg's decoder: its published sizes, and its parts against what they are made of."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rewards.box_iou import box_iou
from segmentation.decoders import DSFFDecoder
from segmentation.decoders.dsff import DySample, TokenLayer
from segmentation.decoders.fill import Answer, fill
from segmentation.masks import area, from_box
from segmentation.sample import Found, Instance, Sample, Target
from tests.small_decoders import LLM, answers, decode, dsff, pictures, size


@pytest.mark.parametrize(
    "kwargs, parameters",
    [
        ({"fusion": "vision"}, 17_556_070),
        ({"fusion": "llm"}, 21_784_198),
        ({"fusion": "concat"}, 22_832_774),
        ({"fusion": "dsff"}, 34_385_542),
        ({"llm_dim": 896}, 27_831_942),
        ({"llm_dim": 2048}, 30_191_238),
    ],
)
def test_dsff_has_as_many_parameters_as_published(kwargs, parameters):
    with torch.device("meta"):
        assert size(DSFFDecoder(**kwargs)) == parameters


def test_an_object_without_a_box_whose_mask_is_empty_overlaps_nothing():
    decoder = dsff().eval()
    nn.init.constant_(decoder.conv2.get_parameter("bias"), -1e6)
    found = Answer(Found((Instance(None),)), 0, 20, 30, torch.randn(1, LLM))
    features = pictures((2, 3), count=1)
    (prediction,) = fill(decoder, [features], [found])
    assert isinstance(prediction, Found)
    (painted,) = prediction.instances
    assert painted.mask is not None and not area(painted.mask) and painted.box == (0, 0, 0, 0)
    meant = Target((5.0, 5.0, 15.0, 15.0), from_box((5, 5, 15, 15), 20, 30))
    sample = Sample("1", Path("none.png"), 20, 30, "it", (meant,))
    assert box_iou([prediction], [sample], [painted.mask]) == [0.0]


def test_the_layer_of_one_token_is_the_layer_it_halves():
    torch.manual_seed(0)
    layer = TokenLayer(16, 4, 16, batch_first=True).eval()
    whole = nn.TransformerDecoderLayer(16, 4, 16, batch_first=True).eval()
    whole.load_state_dict(layer.state_dict())
    target, token = torch.randn(3, 10, 16), torch.randn(3, 16)
    with torch.no_grad():
        halves = layer.attend_to_token(layer.attend_to_itself(target), token)
        torch.testing.assert_close(halves, whole(target, token[:, None]), atol=1e-5, rtol=1e-5)


def test_dysample_starts_as_bilinear_resizing_and_moves_groups_on_their_own():
    torch.manual_seed(0)
    upsample, cells = DySample(8, groups=4), torch.randn(2, 8, 3, 5)
    nn.init.zeros_(upsample.offset.weight)
    plain = F.interpolate(cells, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsample(cells), plain)
    with torch.no_grad():
        upsample.offset.get_parameter("bias")[4:8] = 4.0  # x of the second group, by 0.25 * 4 = one cell to the right
    moved = upsample(cells)
    torch.testing.assert_close(moved[:, [0, 1, 4, 5, 6, 7]], plain[:, [0, 1, 4, 5, 6, 7]])
    torch.testing.assert_close(moved[:, 2:4, :, :-3], plain[:, 2:4, :, 2:-1])


def test_batchnorm_of_two_grids_trains_and_then_uses_what_it_learned():
    decoder = dsff(norm="batch").train()
    for grid in ((2, 3), (5, 2)):
        decode(decoder, pictures(grid), torch.tensor([0, 1]), **answers(2))
    assert decoder.norm.num_batches_tracked == 2
    decoder.eval()
    features, given = pictures((2, 2)), answers(2)
    with torch.no_grad():
        both, _ = decode(decoder, features, torch.tensor([0, 1]), **given)
        one, _ = decode(decoder, features, torch.tensor([1]), seg_states=given["seg_states"][1:])
    torch.testing.assert_close(both[1:], one, atol=1e-5, rtol=1e-5)

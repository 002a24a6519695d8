"""The three light mask decoders: published sizes, answers independent of each other, every weight alive, learning."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rewards.box_iou import box_iou
from segmentation.backbones.features import Features, Spec, projector_cells, stack
from segmentation.decoders import BoxGuidedDecoder, DSFFDecoder, MaskDecoder, Self1EHead
from segmentation.decoders.box_guided_layers import Stem, box_gate
from segmentation.decoders.dsff import DySample, TokenLayer
from segmentation.decoders.fill import Answer, fill
from segmentation.decoders.mask_decoder import check_fits, resize_logits
from segmentation.masks import area, from_box
from segmentation.sample import Found, Instance, Sample, Target

LLM, VISION, PATCH = 24, 16, 8
SPEC = Spec("qwen3_vl", (5, 11), (VISION, VISION), LLM)
BOX: dict[str, Any] = {"hidden": 32, "layers": 2, "heads": 4, "feedforward": 64, "pixel": 16, "positions": 6}


def dsff(**kwargs) -> DSFFDecoder:
    return DSFFDecoder(LLM, VISION, **{"hidden": 32, "heads": 4, "upscale": 4, "spec": SPEC, **kwargs})


def box_guided(**kwargs) -> BoxGuidedDecoder:
    return BoxGuidedDecoder(LLM, (VISION, VISION), spec=SPEC, **{**BOX, **kwargs})


VARIANTS: dict[str, Callable[[], MaskDecoder]] = {
    "dsff": dsff,
    "dsff batch": lambda: dsff(norm="batch"),
    "dsff concat": lambda: dsff(fusion="concat"),
    "dsff vision": lambda: dsff(fusion="vision"),
    "dsff llm": lambda: dsff(fusion="llm"),
    "dsff widths": lambda: DSFFDecoder(LLM, VISION, hidden=24, heads=2, upscale=2, mid=3, groups=2, spec=SPEC),
    "box": box_guided,
    "box multi_scale": lambda: box_guided(multi_scale=False),
    "box box_query": lambda: box_guided(box_query=False),
    "box pixel_fusion": lambda: box_guided(pixel_fusion=False),
    "box refinements": lambda: box_guided(refinements=0),
    "box twice refined": lambda: box_guided(refinements=2),
    "box use_token": lambda: box_guided(use_token=False),
    "box use_states": lambda: box_guided(use_states=False),
    "box alone": lambda: box_guided(use_token=False, use_states=False),
    "box gate alone": lambda: box_guided(use_token=False, box_query=False),
    "box token alone": lambda: box_guided(box_query=False, pixel_fusion=False),
    "self1e": lambda: Self1EHead(LLM, spec=SPEC),
}
THREE = ["dsff", "box", "self1e"]
every_variant = pytest.mark.parametrize("name", VARIANTS)
every_decoder = pytest.mark.parametrize("name", THREE)


def make(name: str, seed: int = 0) -> MaskDecoder:
    torch.manual_seed(seed)
    return VARIANTS[name]()


def pictures(grid: tuple[int, int], count: int = 2, seed: int = 1) -> Features:
    """Random features of `count` pictures whose language-model grid is `grid`, everything in them."""
    draw = torch.Generator().manual_seed(seed)
    h, w = grid
    return Features(
        vision=tuple(torch.randn(count, VISION, 2 * h, 2 * w, generator=draw) for _ in range(2)),
        image_states=torch.randn(count, LLM, h, w, generator=draw),
        pixels=torch.rand(count, 3, 2 * h * PATCH, 2 * w * PATCH, generator=draw),
        projected=torch.randn(count, LLM, h, w, generator=draw),
        projected_fine=torch.randn(count, LLM, 2 * h, 2 * w, generator=draw),
    )


# The picture; a corner; over the border; one pixel of 1,000; outside; a line; a point; inverted; far outside.
BOXES = torch.tensor(
    [
        *([0.0, 0.0, 1.0, 1.0], [0.9, 0.9, 1.0, 1.0], [-0.2, 0.3, 0.4, 1.3], [0.5, 0.5, 0.501, 0.501]),
        *(
            [1.5, 1.5, 1.9, 1.8],
            [0.2, 0.4, 0.8, 0.4],
            [0.3, 0.3, 0.3, 0.3],
            [0.7, 0.8, 0.2, 0.1],
            [-9.0, 5.0, -8.0, 70.0],
        ),
    ]
)


def answers(count: int = len(BOXES), seed: int = 2) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {"boxes": BOXES[:count], "seg_states": torch.randn(count, LLM, generator=draw)}


def decode(decoder: MaskDecoder, features: Features, index: Tensor, **given) -> tuple[Tensor, Tensor | None]:
    return decoder.decode(decoder.encode_image(features), index, **given)


def size(decoder: nn.Module) -> int:
    return sum(parameter.numel() for parameter in decoder.parameters())


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


@pytest.mark.parametrize("width", [1536, 3584])
def test_self1e_has_as_many_parameters_as_published(width):
    with torch.device("meta"):
        assert size(Self1EHead(width)) == 12 * width**2 + 12 * width


def test_box_guided_has_about_as_many_parameters_as_published():
    with torch.device("meta"):
        whole = size(BoxGuidedDecoder(2560, (1024,) * 4))
        off = [{"multi_scale": False}, {"box_query": False}, {"pixel_fusion": False}, {"refinements": 0}]
        assert all(size(BoxGuidedDecoder(2560, (1024,) * 4, **kwargs)) < whole for kwargs in off)
    assert 16.0e6 <= whole <= 17.9e6


@pytest.mark.parametrize("grid", [(3, 3), (2, 5), (6, 1)], ids=str)
@every_variant
def test_a_batch_decodes_as_its_objects_do_alone(name, grid):
    decoder, features, given = make(name).eval(), pictures(grid, count=3), answers()
    index = torch.arange(len(BOXES)) % 3
    with torch.no_grad():
        logits, ious = decode(decoder, features, index, **given)
        assert logits.shape[0] == len(BOXES) and logits.shape[1] * grid[1] == logits.shape[2] * grid[0]
        for number, picture in enumerate(index.tolist()):
            one = pictures(grid, count=3)
            one = Features(*(cut(getattr(one, field), picture) for field in Features.__dataclass_fields__))
            alone = {key: value[number : number + 1] for key, value in given.items()}
            mask, iou = decode(decoder, one, torch.tensor([0]), **alone)
            torch.testing.assert_close(mask[0], logits[number], atol=1e-5, rtol=1e-5)
            if ious is not None and iou is not None:
                torch.testing.assert_close(iou[0], ious[number], atol=1e-5, rtol=1e-5)


def cut(value: Any, picture: int) -> Any:
    return tuple(cut(part, picture) for part in value) if isinstance(value, tuple) else value[picture : picture + 1]


@every_decoder
def test_no_answers_are_no_masks(name):
    decoder = make(name).eval()
    logits, ious = decode(decoder, pictures((2, 3)), torch.empty(0, dtype=torch.long), **answers(0))
    assert logits.shape[0] == 0 and (ious is None or ious.shape == (0,))


@every_variant
def test_odd_boxes_give_finite_masks_and_gradients(name):
    decoder, given = make(name), answers()
    given["boxes"] = given["boxes"].clone().requires_grad_()
    logits, ious = decode(decoder, pictures((2, 3), count=1), torch.zeros(len(BOXES), dtype=torch.long), **given)
    total = logits.square().mean() + (0 if ious is None else ious.square().mean())
    total.backward()
    assert logits.isfinite().all() and (ious is None or ious.isfinite().all())
    grads = [parameter.grad for parameter in decoder.parameters()] + [given["boxes"].grad]
    assert all(grad is None or grad.isfinite().all() for grad in grads)


@every_variant
def test_what_is_missing_is_named_and_what_is_not_needed_may_be(name):
    decoder, whole, index = make(name).eval(), pictures((2, 2)), torch.tensor([0, 1])
    unless = {
        "image_states": {"dsff": 'fusion="vision"', "box": "use_states=False", "self1e": "no setting"},
        "seg_states": {"dsff": "use_token=False", "box": "use_token=False", "self1e": "use_token=False"},
        "boxes": {"box": "box_query=False and pixel_fusion=False"},
    }
    needed = {"image_states": decoder.needs_states, "seg_states": decoder.needs_token, "boxes": decoder.needs_box}
    for missing, is_needed in needed.items():
        given: dict[str, Any] = answers(2)
        states = None if missing == "image_states" else whole.image_states
        features = Features(whole.vision, states, whole.pixels, whole.projected, whole.projected_fine)
        if missing in given:
            given[missing] = None
        if not is_needed:
            decode(decoder, features, index, **given)
            continue
        with pytest.raises(ValueError, match=missing) as error:
            decode(decoder, features, index, **given)
        assert type(decoder).__name__ in str(error.value)
        assert unless[missing][name.split()[0]] in str(error.value)


def test_self1e_needs_the_projector():
    whole = pictures((2, 2))
    with pytest.raises(ValueError, match="Self1EHead was given no projected_fine"):
        Self1EHead(LLM).encode_image(Features(whole.vision, whole.image_states, whole.pixels, whole.projected))


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="fusion='sum'"):
        DSFFDecoder(fusion="sum")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="use_token, box_query or pixel_fusion"):
        box_guided(use_token=False, box_query=False, pixel_fusion=False)
    whole = pictures((2, 2))
    assert whole.image_states is not None
    with pytest.raises(ValueError, match=r"vision grid \(4, 4\) is not twice that of states \(2, 1\)"):
        dsff().encode_image(Features(whole.vision, whole.image_states[..., :1], whole.pixels))


@every_variant
def test_a_saved_decoder_comes_back_bit_for_bit(name, tmp_path):
    decoder, features, given, index = make(name).train(), pictures((2, 3)), answers(4), torch.tensor([0, 1, 1, 0])
    decode(decoder, features, index, **given)  # so that running statistics are not those of a new decoder
    decoder.eval().save_pretrained(tmp_path)
    torch.manual_seed(9)
    loaded = type(decoder).from_pretrained(tmp_path)
    assert loaded.spec == SPEC and not loaded.training
    with torch.no_grad():
        for ours, theirs in zip(
            decode(decoder, features, index, **given), decode(loaded, features, index, **given), strict=True
        ):
            assert (ours is None and theirs is None) or torch.equal(ours, theirs)  # pyright: ignore[reportArgumentType]
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "config.json").read_text() == (tmp_path / "again" / "config.json").read_text()
    assert not list(tmp_path.rglob("*.bin"))


def test_a_checkpoint_without_a_weight_is_refused(tmp_path):
    dsff().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["text_down.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"text_down\.bias"):
        DSFFDecoder.from_pretrained(tmp_path)


def test_a_decoder_of_another_policy_is_refused(tmp_path):
    box_guided().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["spec"]["family"] == "qwen3_vl"
    loaded = BoxGuidedDecoder.from_pretrained(tmp_path)
    check_fits(loaded.spec, SPEC, "here")
    for other in (Spec("internvl", (5, 11), (VISION, VISION), LLM), Spec("qwen3_vl", (11,), (VISION,), LLM)):
        with pytest.raises(ValueError, match="here") as error:
            check_fits(loaded.spec, other, "here")
        assert str(SPEC) in str(error.value) and str(other) in str(error.value)
    with pytest.raises(ValueError, match="trained on None"):
        check_fits(None, SPEC, "here")


@every_variant
def test_every_weight_is_reached_and_moves(name):
    decoder, features, given = make(name).train(), pictures((2, 3)), answers(4)
    index = torch.tensor([0, 1, 1, 0])
    before = {key: parameter.detach().clone() for key, parameter in decoder.named_parameters()}
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(10):
        optimizer.zero_grad()
        state = decoder.encode_image(features)
        logits, ious = decoder.decode(state, index, **given)
        target = (resize_logits(torch.randn(4, 2, 3), *logits.shape[1:]) > 0).float()
        loss = F.binary_cross_entropy_with_logits(logits, target) + (0 if ious is None else (ious - 1).square().mean())
        loss.backward()
        idle = [key for key, each in decoder.named_parameters() if each.grad is None or not each.grad.any()]
        assert not idle
        optimizer.step()
    assert not [key for key, parameter in decoder.named_parameters() if torch.equal(parameter, before[key])]


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


def test_projector_cells():
    vision = torch.arange(6.0).reshape(1, 1, 2, 3)  # 0 1 2 / 3 4 5
    assert torch.equal(projector_cells(vision, "replicate"), vision.expand(1, 4, 2, 3))
    scan = projector_cells(vision, "scan")
    assert scan[0, :, 0, 0].tolist() == [0, 1, 3, 4] and scan[0, :, 1, 2].tolist() == [5, 5, 5, 5]
    two = torch.cat([vision, 10 + vision], dim=1)
    assert projector_cells(two, "scan")[0, :, 0, 1].tolist() == [1, 11, 2, 12, 4, 14, 5, 15]


def test_features_carry_the_projector_through_stacking():
    whole = pictures((2, 3), count=2)
    parts = [Features(*(cut(getattr(whole, name), k) for name in Features.__dataclass_fields__)) for k in (0, 1)]
    both = stack(parts).to(torch.float64)
    assert both.projected is not None and both.projected_fine is not None and whole.projected is not None
    assert both.projected_fine.shape == (2, LLM, 4, 6) and torch.equal(both.projected, whole.projected.double())
    bare = Features(whole.vision, whole.image_states, whole.pixels)
    with pytest.raises(ValueError, match="2 sizes"):
        stack([whole, bare])
    assert stack([bare, bare]).projected is None


def test_self1e_without_change_shows_the_projector_alone():
    """Refilling adds what the language model changed: with `spread` equal to `own` and states equal to V1, nothing."""
    torch.manual_seed(0)
    head, whole = Self1EHead(LLM).eval(), pictures((2, 3))
    head.spread.load_state_dict(head.own.state_dict())
    same = Features(whole.vision, whole.projected, whole.pixels, whole.projected, whole.projected_fine)
    with torch.no_grad():
        fine = head.encode_image(same).fine
        assert whole.projected_fine is not None
        own = F.pixel_shuffle(head.own(whole.projected_fine.movedim(1, -1)).movedim(-1, 1), 2)
        torch.testing.assert_close(fine, head.combine(own.movedim(1, -1)).movedim(-1, 1), atol=1e-5, rtol=1e-5)
    assert fine.shape == (2, LLM, 8, 12)


def test_self1e_has_auxiliary_logits_at_the_vision_grid():
    head, features = Self1EHead(LLM), pictures((2, 3))
    state, index, token = head.encode_image(features), torch.tensor([0, 1, 1]), torch.randn(3, LLM)
    assert head.auxiliary(state, index, token).shape == (3, 4, 6)
    assert head.decode(state, index, seg_states=token)[0].shape == (3, 8, 12)
    with pytest.raises(ValueError, match="seg_states"):
        head.auxiliary(state, index, None)


def shapes() -> tuple[Tensor, Tensor]:
    """Four ellipses on 32 x 48 pixels, left and right in turn, `(4, 32, 48)`; their boxes as shares of the picture."""
    draw = torch.Generator().manual_seed(3)
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(48) + 0.5, indexing="ij")
    cx, cy = torch.tensor([11.0, 36.0, 13.0, 34.0]), 12 + 8 * torch.rand(4, generator=draw)
    rx, ry = 6 + 4 * torch.rand(4, generator=draw), 6 + 5 * torch.rand(4, generator=draw)
    inside = ((x - cx[:, None, None]) / rx[:, None, None]) ** 2 + ((y - cy[:, None, None]) / ry[:, None, None]) ** 2 < 1
    return inside, torch.stack([(cx - rx) / 48, (cy - ry) / 32, (cx + rx) / 48, (cy + ry) / 32], dim=1)


@pytest.mark.parametrize("name", ["dsff", "dsff concat", "dsff vision", "dsff llm", "box", "box alone", "self1e"])
def test_a_decoder_learns_a_handful_of_masks(name):
    """Two pictures of two ellipses, each marked in its own way in noisy features of a language-model grid of 4 x 6.

    Only the box or the token says which of the two is meant.
    """
    torch.manual_seed(0)
    masks, boxes = shapes()
    share = F.pixel_unshuffle(masks[:, None].float(), 4)  # (4, 16, 8, 12): of each cell its 16 pixels
    merged = F.adaptive_avg_pool2d(share, (4, 6))

    def marked(cells: Tensor, width: int) -> Tensor:
        marks = torch.einsum("pochw,ocd->pdhw", cells.unflatten(0, (2, 2)), torch.randn(2, 16, width))
        return 2 * marks + 0.3 * torch.randn_like(marks)

    features = Features(
        vision=(marked(share, VISION), marked(share, VISION)),
        image_states=marked(merged, LLM),
        pixels=(masks.view(2, 2, 1, 32, 48).any(1) * torch.rand(3, 1, 1) + 0.3 * torch.rand(2, 3, 32, 48)).clamp(max=1),
        projected=marked(merged, LLM),
        projected_fine=marked(share, LLM),
    )
    decoder = VARIANTS[name]()
    given, index = {"boxes": boxes, "seg_states": torch.randn(4, LLM)}, torch.tensor([0, 0, 1, 1])
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    iou = torch.zeros(4)
    for step in range(600):
        logits, ious = decode(decoder.train(), features, index, **given)
        logits = resize_logits(logits, 32, 48)
        probability = logits.sigmoid()
        dice = 1 - 2 * (probability * masks).sum((1, 2)) / (probability.sum((1, 2)) + masks.sum((1, 2)))
        loss = F.binary_cross_entropy_with_logits(logits, masks.float()) + dice.mean()
        if ious is not None:
            loss = loss + (ious.sigmoid() - iou).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 19:
            with torch.no_grad():
                found = resize_logits(decode(decoder.eval(), features, index, **given)[0], 32, 48) > 0
            iou = (found & masks).sum((1, 2)) / (found | masks).sum((1, 2))
            if iou.min() >= 0.95:
                break
    assert iou.min() >= 0.95, iou

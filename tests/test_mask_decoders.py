"""Every mask decoder in every variant: answers independent of each other, every weight alive, saved whole, learning."""

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from segmentation.backbones.features import Features, Spec
from segmentation.decoders import BoxGuidedDecoder, DSFFDecoder, MaskDecoder
from segmentation.decoders.mask_decoder import check_fits, resize_logits
from tests.small_decoders import (
    BOXES,
    LLM,
    SPEC,
    VARIANTS,
    VISION,
    answers,
    box_guided,
    cut,
    decode,
    dsff,
    pictures,
)

THREE = ["dsff", "box", "self1e"]
every_variant = pytest.mark.parametrize("name", VARIANTS)
every_decoder = pytest.mark.parametrize("name", THREE)


def make(name: str, seed: int = 0) -> MaskDecoder:
    torch.manual_seed(seed)
    return VARIANTS[name]()


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

"""Every decoder can paint real objects: it fits eight of them on frozen features of a random policy of each family."""

from typing import Any

import pytest
import torch

from rollouts.policy import add_tokens
from segmentation import masks
from segmentation.backbones import make_backbone
from segmentation.boxes import Relative
from segmentation.data.refer import Refer
from segmentation.decoders import BoxGuidedDecoder, DSFFDecoder, Self1EHead
from segmentation.formats import BoxFormat
from sft.decoder_batches import DecoderBatches
from sft.decoder_setup import evenly
from sft.mask_loss import MaskLoss, mask_iou
from sft.mask_model import decode
from sft.small_base import build
from sft.view import Viewer
from tests.families import internvl

SIZE: dict[str, Any] = {"hidden": 64, "heads": 4}
DECODERS = {
    "box_guided": lambda spec: BoxGuidedDecoder(
        spec.llm_dim, spec.vision_dims, layers=2, feedforward=128, pixel=32, positions=8, spec=spec, **SIZE
    ),
    "dsff": lambda spec: DSFFDecoder(
        spec.llm_dim, spec.vision_dims[-1], dropout=0.0, upscale=8, mid=4, spec=spec, **SIZE
    ),
    "self1e": lambda spec: Self1EHead(spec.llm_dim, spec=spec),
}


@pytest.fixture(scope="module")
def policies():
    """A tiny random policy of each family that sees pictures of about 256 x 256 pixels, and its processor."""
    torch.manual_seed(0)
    made = {family: builder() for family, builder in {**build.FAMILIES, "internvl": internvl}.items()}
    for model, processor in made.values():
        add_tokens(model.eval(), processor, BoxFormat(mask_token=True).new_tokens)
        processor.tokenizer.padding_side = "left"
        if hasattr(processor.image_processor, "merge_size"):
            processor.image_processor.size = {"shortest_edge": 64 * 64, "longest_edge": 256 * 256}
        else:
            processor.image_processor.max_patches = 48  # tiles of 32 x 32
            processor.chat_template = build.CHAT.replace(
                "<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n"
            )
    return made


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl"])
@pytest.mark.parametrize("name", DECODERS)
def test_each_decoder_fits_eight_real_objects(policies, real_data, name, family):
    model, processor = policies[family]
    read = Refer(real_data / "refer_mini", split="val")
    samples = [one for one in read if one.mask is not None and masks.area(one.mask) > 20000]
    chosen, pictures = [], set()
    for sample in samples:  # of different pictures: a random language model hardly tells expressions apart
        if sample.image not in pictures:
            chosen.append(sample)
            pictures.add(sample.image)
    assert len(chosen) >= 8
    torch.manual_seed(0)
    layers = evenly(2, len(make_backbone(model, processor).blocks))
    decoder = DECODERS[name](make_backbone(model, processor, layers).spec)
    viewer = Viewer(model, processor, decoder, BoxFormat(Relative(1000), mask_token=True))
    batch = DecoderBatches(viewer)(chosen[:8])
    views = viewer.look(batch["inputs"])
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=2e-3, weight_decay=0.0)
    loss = MaskLoss(short_side=128, auxiliary=0.5)
    reached = 0.0
    for step in range(1, 801):
        found = decode(decoder, views, batch["owner"], batch["boxes"])
        optimizer.zero_grad()
        loss(found["logits"], batch["masks"], found["iou"], found["auxiliary"])["loss"].backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0:
            decoder.eval()
            with torch.no_grad():
                found = decode(decoder, views, batch["owner"], batch["boxes"])
            reached = mask_iou(found["logits"], batch["masks"]).mean().item()
            decoder.train()
            if reached >= 0.95:
                break
    assert reached >= 0.95

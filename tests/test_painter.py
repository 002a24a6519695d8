"""A trained decoder on the small base model: masks from the policy's features, pictures shared, batches harmless."""

from typing import Any

import pytest
import torch

from rollouts.painter import Painter
from rollouts.policy import add_tokens, image_frame, load_model, load_processor
from rollouts.rows import chat, picture
from segmentation.backbones import make_backbone
from segmentation.data.scenes import Scenes
from segmentation.decoders import BoxGuidedDecoder, DSFFDecoder, Self1EHead
from segmentation.decoders.load import load_decoder
from segmentation.decoders.mask_decoder import resize_logits
from segmentation.formats import BoxFormat, Format, Reasoning
from segmentation.masks import decode
from segmentation.sample import Found, Invalid, NoTarget
from tests.runs import BASE, QUICK_GRPO, history, launch

SMALL: dict[str, Any] = {
    "hidden": 32,
    "layers": 1,
    "heads": 4,
    "feedforward": 64,
    "pixel": 16,
    "frequencies": 8,
    "positions": 4,
}


@pytest.fixture(scope="module")
def policy():
    """Model and processor with the tokens of `BoxFormat(mask_token=True)`."""
    processor = load_processor(BASE)
    model = load_model(BASE, "float32").eval()
    add_tokens(model, processor, BoxFormat(mask_token=True).new_tokens)
    return model, processor


def _decoder(kind, model, processor):
    cells = "replicate" if kind == "self1e" else None
    spec = make_backbone(model, processor, (-1,), cells).spec
    torch.manual_seed(0)
    if kind == "box":
        return BoxGuidedDecoder(spec.llm_dim, spec.vision_dims, **SMALL, use_token=False, use_states=False, spec=spec)
    if kind == "box_states":
        return BoxGuidedDecoder(spec.llm_dim, spec.vision_dims, **SMALL, use_token=False, spec=spec)
    if kind == "box_guided":
        return BoxGuidedDecoder(spec.llm_dim, spec.vision_dims, **SMALL, spec=spec)
    if kind == "dsff":
        return DSFFDecoder(spec.llm_dim, spec.vision_dims[0], hidden=32, heads=4, upscale=4, spec=spec)
    return Self1EHead(spec.llm_dim, spec=spec)


def _asked(format, processor, count=6) -> tuple[Any, ...]:
    """Samples with what a perfect policy would have seen and said."""
    scenes = Scenes("val", 40)
    samples = [sample for sample in scenes if sample.targets][:count]
    images = [picture(sample, image_frame(processor)) for sample in samples]
    chats = [chat(format.prompt(sample.expression)) for sample in samples]
    texts = [format.encode(sample) for sample in samples]
    said = [format.parse(text, s.height, s.width) for text, s in zip(texts, samples, strict=True)]
    ids = [processor.tokenizer.encode(text, add_special_tokens=False) for text in texts]
    return said, samples, chats, images, ids


@pytest.mark.parametrize("reasoning", [False, True])
def test_a_token_spelled_otherwise_is_no_object_and_thoughts_are_none_either(policy, reasoning):
    model, processor = policy
    format: Format = BoxFormat(mask_token=True)
    format = Reasoning(format) if reasoning else format
    painter = Painter(_decoder("dsff", model, processor).eval(), model, processor, format)
    said, samples, chats, images, ids = _asked(format, processor, 3)
    plain = painter.paint(said, samples, chats, images, ids)
    assert all(isinstance(one, Found) for one in plain)

    token = processor.tokenizer.convert_tokens_to_ids("<mask_token>")
    spelled = [processor.tokenizer.encode(text, add_special_tokens=False) for text in ("<mask_", "token>")]
    at = ids[0].index(token)
    ids[0][at : at + 1] = [part for piece in spelled for part in piece]
    assert format.parse(processor.tokenizer.decode(ids[0]), samples[0].height, samples[0].width) == said[0]
    if reasoning:
        think = processor.tokenizer.encode("<think>", add_special_tokens=False)
        ids[1][len(think) : len(think)] = [token, token]
    painted = painter.paint(said, samples, chats, images, ids)
    assert isinstance(painted[0], Invalid) and "times the token <mask_token>" in painted[0].reason
    assert isinstance(painted[1], Found) and painted[2] == plain[2]


@pytest.mark.parametrize("kind", ["box", "box_guided", "dsff", "self1e"])
def test_masks_are_those_of_each_answer_alone(policy, kind):
    model, processor = policy
    format = BoxFormat(mask_token=True)
    painter = Painter(_decoder(kind, model, processor).eval(), model, processor, format)
    asked = _asked(format, processor)
    together = painter.paint(*asked)
    for row, (prediction, sample) in enumerate(zip(together, asked[1], strict=True)):
        assert isinstance(prediction, Found)
        said, samples, chats, images, ids = ([column[row]] for column in asked)
        alone = painter.paint(said, samples, chats, images, ids)[0]
        assert isinstance(alone, Found)
        for one, other in zip(prediction.instances, alone.instances, strict=True):
            assert one.mask is not None and other.mask is not None
            assert one.mask["size"] == [sample.height, sample.width]
            assert (decode(one.mask) != decode(other.mask)).mean() < 0.001  # padding moves logits by rounding
            assert one.probability is not None and one.probability.ndim == 2
            logits = torch.from_numpy(one.probability).float().logit()
            assert 0.0 < one.probability.min() < one.probability.max() < 1.0
            likely = (resize_logits(logits[None], sample.height, sample.width)[0] > 0).numpy()
            assert (likely != decode(one.mask)).mean() < 0.01  # float16


@pytest.mark.parametrize("kind", ["box", "dsff"])
def test_memory_is_bounded_and_the_masks_are_the_same(policy, kind, monkeypatch):
    model, processor = policy
    format = BoxFormat(mask_token=True)
    painter = Painter(_decoder(kind, model, processor).eval(), model, processor, format)
    asked = _asked(format, processor, 5)
    together = painter.paint(*asked)
    pictures, objects = [], []
    decode_all = painter.decoder.decode
    monkeypatch.setattr(painter.decoder, "decode", lambda *a: objects.append(len(a[1])) or decode_all(*a))
    monkeypatch.setattr("rollouts.painter.PICTURES", 2)
    monkeypatch.setattr("segmentation.decoders.fill.PIXELS", 1)
    hook = model.model.visual.register_forward_hook(lambda *_: pictures.append(1))
    try:
        apart = painter.paint(*asked)
    finally:
        hook.remove()
    assert len(pictures) == 3 and set(objects) == {1}
    for one, other in zip(together, apart, strict=True):
        assert isinstance(one, Found) and isinstance(other, Found)
        for whole, part in zip(one.instances, other.instances, strict=True):
            assert whole.mask is not None and part.mask is not None
            assert (decode(whole.mask) != decode(part.mask)).mean() < 0.001  # batches move logits by rounding


def test_processes_of_a_sharded_model_look_equally_often(policy, monkeypatch):
    model, processor = policy
    painter = Painter(_decoder("box", model, processor).eval(), model, processor, BoxFormat())
    images = _asked(BoxFormat(), processor, 3)[3]
    monkeypatch.setattr("rollouts.painter.PICTURES", 2)
    monkeypatch.setattr("rollouts.painter.is_deepspeed_zero3_enabled", lambda: True)
    passes = []
    hook = model.model.visual.register_forward_hook(lambda *_: passes.append(1))
    try:
        few, many = painter._look(images[:1], 6), painter._look(images, 6)
    finally:
        hook.remove()
    assert (len(few), len(many), len(passes)) == (1, 3, 6)
    torch.testing.assert_close(few[0].vision, many[0].vision)


def test_a_picture_is_encoded_once_for_its_whole_group(policy):
    model, processor = policy
    format = BoxFormat()
    painter = Painter(_decoder("box", model, processor).eval(), model, processor, format)
    said, samples, chats, images, ids = (column * 4 for column in _asked(format, processor, 2))
    seen = []
    hook = model.model.visual.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[0]))
    language = model.model.language_model.register_forward_hook(lambda *_: seen.append("language model"))
    try:
        said[3:5] = [NoTarget(), Invalid("broken")]
        painted = painter.paint(said, samples, chats, images, ids)
    finally:
        hook.remove()
        language.remove()
    assert len(seen) == 1 and seen[0] != "language model"
    assert painted[3:5] == [NoTarget(), Invalid("broken")]
    assert painted[0] == painted[2]


def test_a_decoder_of_another_policy_or_without_its_token_is_refused(policy, tmp_path):
    model, processor = policy
    decoder = _decoder("dsff", model, processor)
    with pytest.raises(ValueError, match="segmentation token"):
        Painter(decoder, model, processor, BoxFormat())
    decoder.save_pretrained(tmp_path)
    assert load_decoder(tmp_path).spec == decoder.spec
    other = BoxGuidedDecoder(7, [3], **SMALL)
    with pytest.raises(ValueError, match="trained on"):
        Painter(other, model, processor, BoxFormat())
    with pytest.raises(FileNotFoundError, match=r"decoder\.path"):
        load_decoder(tmp_path / "nothing")


def test_evaluation_and_training_with_a_trained_decoder(policy, tmp_path):
    model, processor = policy
    _decoder("box", model, processor).save_pretrained(tmp_path / "decoder")
    said = ["format=box", f"model.path={BASE}", "decoder=trained", f"decoder.path={tmp_path / 'decoder'}"]
    here = ["benchmark.length=8", "answers=annotated", f"output_dir={tmp_path / 'evaluation'}"]
    printed = launch("evaluation/evaluate.py", *said, *here)
    assert "annotated" in printed
    tuned = tmp_path / "grpo"
    launch("rl/grpo.py", *said, *QUICK_GRPO, f"output_dir={tuned}", "trainer.beta=0.01", "+model.lora={r: 4}")
    assert all("rewards/mask_iou/mean" in line for line in history(tuned) if "reward" in line)

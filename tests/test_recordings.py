"""What a forward leaves in a recording: gradients, chunks of a batch, states of tokens; and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from segmentation.backbones import by_size, make_backbone, stack, token_states
from tests import families
from tests.families import FAMILIES, inputs_of, internvl, noise, prompt, seen, sizes_of


@pytest.fixture(scope="module")
def policies():
    return families.policies()


@pytest.mark.parametrize("at", ["predicting", "itself"])
def test_states_of_segmentation_tokens(policies, at):
    model, processor = policies["qwen3_vl"]
    token = processor.tokenizer.convert_tokens_to_ids("<|box_start|>")
    texts = [prompt(processor, words) for words in ("a", "a <|box_start|> b", "<|box_start|><|box_start|> abc")]
    inputs = inputs_of(processor, [noise((64, 64))] * 3, texts)
    assert inputs["attention_mask"][:2, 0].tolist() == [0, 0]
    backbone = make_backbone(model, processor)
    with torch.no_grad(), backbone.record() as recording:
        logits = model(**inputs).logits
    states = token_states(recording.states, inputs["input_ids"], token, at)
    assert [len(row) for row in states] == [0, 1, 2]
    for row, found in enumerate(states):
        where = [p - (at == "predicting") for p, said in enumerate(inputs["input_ids"][row].tolist()) if said == token]
        torch.testing.assert_close(model.lm_head(found), logits[row, where], atol=1e-5, rtol=1e-4)


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_are_gone_after_an_error(policies, family):
    model, processor = policies[family]
    before = hooks(model)
    with pytest.raises(ZeroDivisionError), make_backbone(model, processor, (0, -1)).record():
        assert hooks(model) == before + 3
        raise ZeroDivisionError
    assert hooks(model) == before


class Wrapped(torch.nn.Module):
    """As DDP and DeepSpeed wrap a model."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, **inputs):
        return self.module(**inputs)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_the_adapters_of_a_wrapped_model(checkpointing):
    torch.manual_seed(0)
    model, processor = internvl()
    linears = r".*(language_model|vision_tower).*\.(q_proj|v_proj)"
    wrapped = Wrapped(get_peft_model(model, LoraConfig(r=2, target_modules=linears)))
    if checkpointing:
        wrapped.module.gradient_checkpointing_enable()
    pictures = [noise((64, 32)), noise((32, 32))]
    inputs = inputs_of(processor, pictures)
    backbone = make_backbone(wrapped, processor, (1,))
    with backbone.record() as recording:
        wrapped.train()(**inputs)
    features = backbone.features(recording, inputs, image_sizes=sizes_of(pictures))
    touched = {}
    for name, values in (("vision", features[0].vision[0]), ("language", features[0].image_states)):
        assert values is not None
        wrapped.zero_grad()
        values.square().sum().backward(retain_graph=True)
        touched[name] = {n for n, p in wrapped.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert touched["vision"] and all("vision_tower.encoder.layer" in name for name in touched["vision"])
    assert not any("layer.2" in name for name in touched["vision"])
    assert any("language_model" in name for name in touched["language"])


def recorded_in_chunks(model, inputs, backbone):
    """A forward a row, as a trainer scores a batch."""
    patches = inputs["image_grid_thw"].prod(1).tolist()
    with torch.no_grad(), backbone.record() as recording:
        for row, pixel_values in enumerate(inputs["pixel_values"].split(patches)):
            chunk = {name: value[row : row + 1] for name, value in inputs.items() if name != "pixel_values"}
            model(**chunk, pixel_values=pixel_values)
    return recording


def test_gradients_pass_reentrant_checkpoints():
    torch.manual_seed(0)
    model, processor = internvl()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    inputs = inputs_of(processor, [noise((32, 32))])
    backbone = make_backbone(model.train(), processor, (1,))
    with backbone.record() as recording:
        model(**inputs)
    backbone.features(recording, inputs)[0].vision[0].sum().backward()
    layers = [layer.attention.q_proj.weight.grad for layer in model.model.vision_tower.encoder.layer]
    assert [gradient is not None and bool(gradient.any()) for gradient in layers] == [True, True, False]


def test_a_batch_scored_in_chunks_and_rows_that_share_a_picture(policies):
    model, processor = policies["qwen2_5_vl"]
    pictures = [noise((64, 64)), noise((96, 64)), noise((96, 64))]
    backbone = make_backbone(model, processor, (0,))
    inputs = inputs_of(processor, pictures)
    expected = seen(model, processor, pictures)
    recording = recorded_in_chunks(model, inputs, backbone)
    (last, first) = backbone.features(recording, inputs, rows=[2, 0])
    for features, row in ((last, 2), (first, 0)):
        torch.testing.assert_close(features.vision, expected[row].vision)
        torch.testing.assert_close(features.image_states, expected[row].image_states, atol=1e-5, rtol=1e-4)
    assert [where for where, _ in by_size(expected)] == [[0], [1, 2]]
    assert [where for where, _ in by_size(expected, 2 * 64 * 96)] == [[0], [1, 2]]
    assert [where for where, _ in by_size(expected, 2 * 64 * 96 - 1)] == [[0], [1], [2]]
    assert tuple(stack(expected[1:]).pixels.shape) == (2, 3, 64, 96)


def test_recordings_of_something_else_are_refused(policies):
    model, processor = policies["qwen2_5_vl"]
    backbone = make_backbone(model, processor)
    inputs = inputs_of(processor, [noise((64, 64))])
    with torch.no_grad(), backbone.record() as nothing:
        pass
    with pytest.raises(ValueError, match="saw forwards of no tokens"):
        backbone.features(nothing, inputs)
    with torch.no_grad(), backbone.record() as sampling:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    with pytest.raises(ValueError, match="make one ordinary forward"):
        backbone.features(sampling, inputs)
    with torch.no_grad(), backbone.record() as twice:
        model(**inputs)
        model(**inputs)
    with pytest.raises(ValueError, match=r"recorded \(2, \d+\) tokens, inputs have \(1, \d+\)"):
        backbone.features(twice, inputs)


def test_unknown_family():
    other = SimpleNamespace(config=SimpleNamespace(model_type="llava"))
    with pytest.raises(ValueError, match="no backbone for 'llava'; there is one for qwen2_5_vl, qwen3_vl, internvl"):
        make_backbone(other, None)

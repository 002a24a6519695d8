"""Training reads a completion as evaluation does, and paints it from the states of the policy that is trained."""

import pytest
import torch

from rl.trainer import SegGRPOTrainer
from rollouts.engines import _completion
from rollouts.painter import Painter
from rollouts.policy import load_model, load_processor
from segmentation.backbones import make_backbone
from segmentation.data.scenes import Scenes
from segmentation.decoders import BoxGuidedDecoder
from tests.grpo_trainer import LOTTERY, make_trainer
from tests.runs import BASE, ROOT
from tests.small_decoders import BOX

SAMPLES = Scenes("val", 8)[:]


@pytest.mark.parametrize("padding_ends", [False, True])
def test_a_completion_ends_where_evaluation_says(tmp_path, padding_ends):
    model, words = load_model(ROOT / BASE, "float32"), load_processor(ROOT / BASE).tokenizer
    assert words.pad_token_id != words.eos_token_id
    ends = [words.eos_token_id] + [words.pad_token_id] * padding_ends
    model.generation_config.eos_token_id = ends
    trainer = make_trainer(tmp_path, SAMPLES, model=model)
    said, pad, end = words.encode("a cup"), words.pad_token_id, words.eos_token_id
    for ids in ([*said, end], said, [*said, pad, pad], [*said, pad, *said], [*said, pad, *said, end], [pad], [end]):
        expected = _completion(ids, set(ends), None)
        text = words.decode(expected.tokens, skip_special_tokens=False)
        assert trainer.text(ids) == (text, expected.truncated)


class Watched(SegGRPOTrainer):
    """Lets the adapters say something from the first update on."""

    def train(self, *args, **kwargs):
        for name, one in self.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(one, std=0.2)
        return super().train(*args, **kwargs)


@pytest.mark.parametrize("iterations", [2, 1], ids=["scored before", "the reference alone is scored"])
def test_masks_are_made_of_the_policys_states_and_not_of_the_references(tmp_path, monkeypatch, iterations):
    spec = make_backbone(load_model(ROOT / BASE, "float32"), load_processor(ROOT / BASE), (-1,)).spec
    decoder = BoxGuidedDecoder(spec.llm_dim, spec.vision_dims, **BOX, use_token=False, spec=spec).eval()
    painted, scored = [], []
    paint = Painter.paint

    def watched(self, predictions, samples, chats, images, completions, seen=None):
        scored.append(seen is not None)
        fresh = self._forward(chats, images, completions)
        for one in (seen or fresh), fresh:
            sizes = [(image.height, image.width) for image in images]
            painted.append(
                [f.image_states for f in self.backbone.features(one.recording, one.inputs, image_sizes=sizes)]
            )
        with self.model.disable_adapter():
            off = self._forward(chats, images, completions)
            painted.append([f.image_states for f in self.backbone.features(off.recording, off.inputs)])
        return paint(self, predictions, samples, chats, images, completions, seen)

    monkeypatch.setattr(Painter, "paint", watched)
    how = "model.lora={r: 4, lora_alpha: 8}", "trainer.beta=0.1", f"trainer.num_iterations={iterations}"
    make_trainer(tmp_path, SAMPLES, LOTTERY, *how, "trainer.max_steps=1", kind=Watched, decoder=decoder).train()
    assert scored == [iterations == 2]
    given, policy, reference = painted
    for one, same, other in zip(given, policy, reference, strict=True):
        torch.testing.assert_close(one, same, atol=1e-4, rtol=1e-3)
        assert (one - other).abs().max() > 0.1

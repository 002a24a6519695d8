"""sft/warm_start.py: new tokens are learned, merged, and in one folder that everything loads."""

import pytest
import torch

from rollouts.policy import check_tokens, load_model, load_processor
from segmentation.formats import BrickFormat
from sft.checkpoints import last_checkpoint
from tests.runs import BASE, QUICK_SFT, launch

LORA = "model.lora={r: 8, lora_alpha: 16}"


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_the_policy_is_a_plain_model_with_the_formats_tokens(tmp_path, lora):
    chosen = ["format=bricks_box", "format.grid=10", "format.columns=6", f"model.path={BASE}", f"output_dir={tmp_path}"]
    launch("sft/warm_start.py", *chosen, *QUICK_SFT, "trainer.save_steps=2", *([LORA] if lora else []))
    policy = tmp_path / "policy"
    model, processor = load_model(policy, "float32"), load_processor(policy)
    check_tokens(processor, BrickFormat(10, scope="box", code="columns", columns=6).new_tokens, policy)
    assert not (policy / "adapter_config.json").exists()
    assert model.lm_head.weight is model.get_input_embeddings().weight  # tied, as the base is
    base = load_model(BASE, "float32")
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in base.named_parameters()]
    old, new = base.get_input_embeddings().weight, model.get_input_embeddings().weight
    brick = processor.tokenizer.convert_tokens_to_ids("<fg1>")
    assert old.shape == new.shape
    assert not torch.equal(new[brick], new[:brick].mean(0))
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")

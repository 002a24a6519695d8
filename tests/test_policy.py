"""Loading a policy, its frame of coordinates, and new tokens."""

import json
from typing import Any

import pytest
import torch
from peft import get_peft_model

from rollouts.policy import (
    add_tokens,
    check_tokens,
    convention,
    freeze_vision,
    image_frame,
    image_token_ids,
    learn_in_float32,
    learn_new_rows_alone,
    load_model,
    load_processor,
    new_rows,
    resize_embeddings,
)
from rollouts.sections import make_lora
from segmentation.boxes import Relative, ResizedPixels
from segmentation.formats import BrickFormat
from sft.merge import merge, read_arguments, save_policy
from sft.small_base.build import FAMILIES
from tests.families import inputs_of, internvl, noise


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Both families with random weights, saved as a released model is."""
    made = {}
    for name, build in FAMILIES.items():
        torch.manual_seed(0)
        model, processor = build()
        made[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(made[name])
        processor.save_pretrained(made[name])
    return made


def test_frame_follows_the_family(folders):
    frames = {name: convention(name, load_processor(path)) for name, path in folders.items()}
    assert frames["qwen2_5_vl"] == ResizedPixels(factor=16, min_pixels=64 * 64, max_pixels=128 * 128)
    assert frames["qwen3_vl"] == Relative(1000)
    assert image_frame(load_processor(folders["qwen3_vl"])) == frames["qwen2_5_vl"]


def test_new_tokens_take_spare_rows_and_survive_saving(folders, tmp_path):
    path = folders["qwen2_5_vl"]
    model, processor = load_model(path), load_processor(path)
    rows = model.get_input_embeddings().weight.shape[0]
    tokens = BrickFormat(scope="box", grid=8).new_tokens
    with pytest.raises(ValueError, match="lacks 24 tokens of the format"):
        check_tokens(processor, tokens, path)
    assert add_tokens(model, processor, tokens) == len(tokens)
    assert add_tokens(model, processor, tokens) == 0
    assert model.get_input_embeddings().weight.shape[0] == rows
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = load_processor(tmp_path)
    check_tokens(again, tokens, tmp_path)
    text = "<seg><fg3><bg5><row></seg>"
    ids = again.tokenizer(text)["input_ids"]
    assert len(ids) == 5
    assert again.tokenizer.decode(ids, skip_special_tokens=True) == text  # ordinary tokens: decoding keeps them


def test_the_embedding_grows_when_no_rows_are_spare(folders):
    model, processor = load_model(folders["qwen3_vl"]), load_processor(folders["qwen3_vl"])
    tokens = tuple(f"<t{i}>" for i in range(300))
    add_tokens(model, processor, tokens)
    assert model.get_input_embeddings().weight.shape[0] >= len(processor.tokenizer)
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("spare", [True, False])
def test_a_merged_adapter_knows_the_tokens_it_was_taught(folders, tmp_path, spare):
    base, tokens = folders["qwen2_5_vl"], BrickFormat(64).new_tokens
    if not spare:
        tokens = (*tokens, *(f"<more{i}>" for i in range(2000)))
    model, processor = load_model(base, "float32"), load_processor(base)
    rows = model.get_input_embeddings().weight.shape[0]
    added = add_tokens(model, processor, tokens)
    assert (model.get_input_embeddings().weight.shape[0] == rows) == spare
    lora = make_lora({"r": 4, "lora_alpha": 8}, **new_rows(added, model.config.tie_word_embeddings))
    assert lora is not None
    taught: Any = get_peft_model(model, lora)
    for name, parameter in taught.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    taught.save_pretrained(tmp_path / "checkpoint")
    processor.save_pretrained(tmp_path / "checkpoint")

    merged = merge(tmp_path / "checkpoint", tmp_path / "policy")
    check_tokens(load_processor(merged), tokens, merged)
    ids = torch.tensor([load_processor(merged).tokenizer.convert_tokens_to_ids([*tokens[:3], tokens[-1]])])
    with torch.no_grad():
        expected, found = taught(input_ids=ids).logits, load_model(merged, "float32")(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])  # with a tied head, and with one of its own
def test_tables_of_new_tokens_are_learned_in_float32(folders, tmp_path, family):
    if family == "internvl":
        torch.manual_seed(0)
        model, processor = internvl()
        model.save_pretrained(tmp_path / "base")
        processor.save_pretrained(tmp_path / "base")
    base = tmp_path / "base" if family == "internvl" else folders[family]
    model, processor = load_model(base, "bfloat16"), load_processor(base)
    added = add_tokens(model, processor, ("<new>",))
    lora = make_lora({"r": 4, "lora_alpha": 8}, **new_rows(added, model.config.tie_word_embeddings))
    assert lora is not None
    taught: Any = get_peft_model(model, lora)
    learn_in_float32(taught)
    learn_new_rows_alone(taught, len(processor.tokenizer), added)
    tables = {name: one.detach().clone() for name, one in taught.named_parameters() if "modules_to_save" in name}
    trained = [one for one in taught.parameters() if one.requires_grad]
    assert {one.dtype for one in trained} == {torch.float32}
    table = taught.get_input_embeddings().modules_to_save["default"].weight
    row = processor.tokenizer.convert_tokens_to_ids("<new>")
    before = table[row].detach().clone()
    states = []
    layer = (
        taught.get_base_model()
        .model.language_model.layers[0]
        .register_forward_hook(lambda module, args, output: states.append(args[0].dtype))
    )
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            taught(input_ids=torch.tensor([[row, 5, row]]), labels=torch.tensor([[row, 5, row]])).loss.backward()
        torch.optim.AdamW(trained, lr=1e-6, weight_decay=0.0).step()  # far below what bfloat16 can tell from the weight
    layer.remove()
    assert set(states) == {torch.bfloat16}
    assert ((table[row] != before).float().mean() > 0.9).item()
    now = dict(taught.named_parameters())
    assert tables
    for name, one in tables.items():  # the head's other rows have gradients, too, of the softmax
        assert (now[name] != one).any(1).nonzero().flatten().tolist() == [row]
    taught.get_base_model().config.dtype = "bfloat16"  # as saving a checkpoint leaves it
    saved = load_model(save_policy(taught, processor, tmp_path / "policy"), "auto")
    assert {one.dtype for one in saved.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_vision_leaves_the_language_model_to_be_trained(folders, family):
    model = freeze_vision(load_model(folders[family]))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if "visual" not in name}
    blind = torch.nn.Module()
    blind.model = torch.nn.Identity()
    with pytest.raises(ValueError, match="no vision encoder of a known name"):
        freeze_vision(blind)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl"])
def test_a_frozen_encoder_is_not_gone_back_through(family):
    torch.manual_seed(0)
    model, processor = {**FAMILIES, "internvl": internvl}[family]()
    lora = make_lora({"r": 4, "lora_alpha": 8})
    assert lora is not None
    taught: Any = get_peft_model(freeze_vision(model), lora).train()
    taught.gradient_checkpointing_enable({"use_reentrant": False})
    taught.enable_input_require_grads()  # as TRL does for adapters under checkpointing
    seen = []
    part = getattr(taught.get_base_model().model, "visual", None) or taught.get_base_model().model.vision_tower
    for layer in part.modules():
        layer.register_forward_hook(lambda module, args, out: seen.extend(one for one in [out] if torch.is_tensor(one)))
    taught(**inputs_of(processor, [noise((64, 64))])).logits.sum().backward()
    assert seen and not any(one.requires_grad for one in seen)
    assert all(one.grad is not None for one in taught.parameters() if one.requires_grad)


def test_image_tokens_are_known(folders):
    processor = load_processor(folders["qwen2_5_vl"])
    assert processor.image_token_id in image_token_ids(folders["qwen2_5_vl"])


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_processor(tmp_path / "missing")


def test_a_head_of_its_own_stays_so_whatever_the_config_leaves_out(tmp_path):
    """InternVL's config says tied unless told otherwise; the released models' heads are not."""
    made, _ = internvl()
    made.config.tie_word_embeddings = False
    made.lm_head.weight = torch.nn.Parameter(torch.randn_like(made.lm_head.weight))
    made.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    written.pop("tie_word_embeddings", None)
    (tmp_path / "config.json").write_text(json.dumps(written))
    model = load_model(tmp_path)
    assert not model.config.tie_word_embeddings
    rows = len(made.lm_head.weight)
    resize_embeddings(model, rows + 1)
    assert torch.equal(model.lm_head.weight[:rows], made.lm_head.weight)
    assert not torch.equal(model.get_input_embeddings().weight[:rows], made.lm_head.weight)


def test_a_runs_folder_is_told_from_its_policys(tmp_path):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=rf"is a run's folder; its policy is {tmp_path}/policy"):
        load_processor(tmp_path)


def test_only_an_adapter_is_merged(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("sys.argv", ["merge.py", str(tmp_path), str(tmp_path / "merged")])
    with pytest.raises(SystemExit):
        read_arguments()
    assert f"it is whole already: model.path={tmp_path}" in capsys.readouterr().err

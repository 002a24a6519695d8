"""The estimator's formulas against what small models really take, and what it says of a run."""

import io
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from peft import get_peft_model
from rich.console import Console
from torch.autograd.graph import saved_tensors_hooks
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils

from rollouts import footprint, memory
from rollouts.architectures import architecture, image_tokens, on_meta
from rollouts.estimate import GIB, Estimate, Part, show
from rollouts.policy import freeze_vision, learn_in_float32, load_model, new_rows
from rollouts.sections import make_lora
from tests.runs import BASE, ROOT

LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0}


@pytest.fixture(scope="module")
def path():
    return str(ROOT / BASE)


def composed(command, *overrides):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose(command, [f"model.path={ROOT / BASE}", *overrides])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("lora", "added"), [(None, 0), (LORA, 0), (LORA, 5)])
def test_weights_gradients_and_adamw_are_exact(path, dtype, lora, added):
    counted, trained = memory.parameters(on_meta(architecture(path), dtype), True, lora, added)
    model = freeze_vision(load_model(path, dtype))
    if lora:
        adapter = make_lora(lora, **new_rows(added, model.config.tie_word_embeddings))
        assert adapter
        model = get_peft_model(model, adapter)
        learn_in_float32(model)
    parameters = list(model.parameters())
    learned = [one for one in parameters if one.requires_grad]
    assert footprint.weights(counted) == sum(one.numel() * one.element_size() for one in parameters)
    assert footprint.weights(trained) == sum(one.numel() * one.element_size() for one in learned)
    optimizer = torch.optim.AdamW(learned)
    for one in learned:
        one.grad = torch.zeros_like(one)
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    assert footprint.adamw(trained) == sum(value.numel() * value.element_size() for value in states)


def kept(model, tokens):
    """Bytes that autograd keeps for the backward of the language model, its weights left out."""
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    storages = {}  # held, so that none is freed and its address used again

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage
        return tensor

    language = (
        model.model.language_model if not hasattr(model, "peft_config") else model.base_model.model.model.language_model
    )
    width = language.config.hidden_size
    dtype = next(language.parameters()).dtype
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16), saved_tensors_hooks(pack, lambda t: t):
        states = torch.randn(1, tokens, width, dtype=dtype, requires_grad=True)
        language(inputs_embeds=states, use_cache=False).last_hidden_state.sum()
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_activations_are_within_a_quarter(path, dtype, lora):
    tokens = 512
    model = freeze_vision(load_model(path, dtype)).train()
    stack = footprint.language_stack(model.config)
    if lora:
        adapter = make_lora(lora)
        assert adapter
        model = get_peft_model(model, adapter)
        learn_in_float32(model)
    element = getattr(torch, dtype).itemsize
    per_token = footprint.layer(stack, bool(lora), element, rank=lora["r"] if lora else 0)
    measured = kept(model, tokens)
    assert measured == pytest.approx(tokens * stack.layers * per_token, rel=0.25)


def test_checkpointing_keeps_the_input_of_each_layer(path):
    tokens = 512
    model = load_model(path, "float32").train()
    model.gradient_checkpointing_enable({"use_reentrant": True})  # as it saves its inputs where a hook sees them
    stack = footprint.language_stack(model.config)
    last_norm = (4 + 4) * stack.width
    assert kept(model, tokens) == pytest.approx(tokens * (stack.layers * 4 * stack.width + last_norm), rel=0.01)


def test_the_tiles_are_those_of_trl():
    assert footprint.TOKEN_TILE == chunked_logprob.TOKEN_CHUNK_SIZE
    assert footprint.VOCABULARY_TILE == trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE


def test_keys_and_values_are_those_of_a_cache(path):
    model = load_model(path, "float32").eval()
    with torch.no_grad():
        cache = model.model.language_model(inputs_embeds=torch.randn(2, 7, 160), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert footprint.key_values(footprint.language_stack(model.config), 2 * 7, element=4) == held


@pytest.mark.parametrize("command", ["grpo", "warm_start"])
def test_a_run_on_the_small_model_fits_and_is_told_by_part(command):
    said = memory.estimate(composed(command), memory.Machine(1, 24 * GIB, 0))
    names = {part.name for part in said.parts}
    assert {"weights", "gradients", "optimiser", "activations", "loss", "reserve"} <= names
    assert ("vLLM" in names) == (command == "grpo")
    assert said.fits and not said.notes


@pytest.mark.parametrize("trainer", ["grpo", "grpo_long", "grpo_lora"])
def test_every_trainer_has_what_is_counted(trainer):
    assert memory.estimate(composed("grpo", f"trainer={trainer}"), memory.Machine(1, 24 * GIB, 0)).parts


def test_zero_divides_what_it_shards():
    def by_part(stage, gpus):
        parts = memory.estimate(composed("warm_start"), memory.Machine(gpus, None, stage)).parts
        return {part.name: part.bytes for part in parts}

    two, three = by_part(2, 8), by_part(3, 8)
    _, trained = memory.parameters(on_meta(architecture(str(ROOT / BASE)), "float32"), True, None)
    count = sum(one.numel() for one in trained)
    assert two["optimiser"] == three["optimiser"] == 12 * count // 8
    assert two["gradients"] == 2 * count // 8
    assert three["weights"] == two["weights"] // 8


@pytest.mark.parametrize(("sharding", "share"), [(0, 1), (2, 1), (3, 8)])
def test_a_reference_is_a_second_model_unless_the_policy_has_adapters(sharding, share):
    cfg = composed("grpo", "algorithm=grpo", "model.lora=null", "hardware.gpus=8", f"hardware.sharding={sharding}")
    machine = memory.planned(cfg.hardware)
    (reference,) = [part for part in memory.estimate(cfg, machine).parts if part.name == "reference"]
    model = load_model(cfg.model.path)
    assert reference.bytes == sum(one.numel() * one.element_size() for one in model.parameters()) // share
    for other in (["trainer.beta=0"], ["model.lora={r: 4, lora_alpha: 8, lora_dropout: 0}"]):
        alone = composed("grpo", "algorithm=grpo", "model.lora=null", "hardware.gpus=8", *other)
        assert "reference" not in [part.name for part in memory.estimate(alone, machine).parts]


def test_what_will_not_fit_is_said_with_what_to_change():
    cfg = composed("grpo", "rollouts.vllm_gpu_memory_utilization=0.01", "hardware.gpus=8", "hardware.memory=1")
    said = memory.estimate(cfg, memory.Machine(1, GIB, 0))
    assert not said.fits
    text = io.StringIO()
    show(said, Console(file=text, width=500))
    assert "will not fit a card of 1.0. Lower trainer.per_device_train_batch_size" in text.getvalue()
    assert "vLLM cannot start: weights and one sequence need rollouts.vllm_gpu_memory_utilization=" in text.getvalue()
    assert "hardware.gpus=8, launched on 1: the global batch is 0.125 times the recipe's" in text.getvalue()


def test_the_peak_is_the_larger_of_writing_and_training():
    parts = (Part("a", 5, "always", ""), Part("b", 3, "writing", ""), Part("c", 4, "training", ""))
    assert Estimate(parts, None, ()).peak == 9
    assert Estimate(parts, 9, ()).fits and not Estimate(parts, 8, ()).fits


def test_tokens_of_a_picture():
    released = architecture("OpenGVLab/InternVL3-2B-hf")
    assert [image_tokens(released, tiles * 448 * 448) for tiles in (1, 2, 4)] == [256, 768, 1280]
    assert footprint.patches(released, 448 * 448) == 1025
    qwen = architecture("Qwen/Qwen3-VL-4B-Instruct")
    assert (image_tokens(qwen, 1280 * 32 * 32), footprint.patches(qwen, 1280 * 32 * 32)) == (1280, 5120)


def test_a_launch_is_read_from_its_environment(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * GIB))
    assert memory.launched() == memory.Machine(8, 80 * GIB, 2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert memory.launched().sharding == 3

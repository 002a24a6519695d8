"""The private parts of TRL that this project overrides still have the shape it was written for."""

import inspect

import pytest
import trl.trainer.grpo_trainer as grpo
from transformers import GenerationMixin, Trainer
from trl import GRPOTrainer
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from rl.trainer import SegGRPOTrainer
from rl.validation import FREE
from rl.watched import WatchedTrainer
from rollouts.vllm_engine import TrainingEngine

PARAMETERS = [
    "self",
    "model",
    "input_ids",
    "attention_mask",
    "logits_to_keep",
    "batch_size",
    "compute_entropy",
    "compute_aux_loss",
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
]
SIGNATURES = {
    (GRPOTrainer, "_tokenize_prompts"): ["self", "prompts"],
    (GRPOTrainer, "_generate_single_turn"): [
        "self",
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
        "has_tool_images",
    ],
    (GRPOTrainer, "_calculate_rewards"): ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    (GRPOTrainer, "_generate_and_score_completions"): ["self", "inputs"],
    (GRPOTrainer, "_get_per_token_logps_and_entropies"): PARAMETERS,
    (GRPOTrainer, "compute_loss"): ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    (GRPOTrainer, "_generate"): ["self", "prompts"],
    (Trainer, "_get_grad_norm"): ["self", "model", "grad_norm"],
    (Trainer, "_save_checkpoint"): ["self", "model", "trial"],
    (VLLMGeneration, "_init_vllm"): ["self"],
    (VLLMGeneration, "_iter_named_params"): ["self"],
    (VLLMGeneration, "sync_weights"): ["self"],
    (VLLMGeneration, "generate"): ["self", "prompts", "images", "num_generations", "profiler"],
}


@pytest.mark.parametrize(("owner", "name"), SIGNATURES)
def test_overridden_methods_keep_their_signatures(owner, name):
    assert list(inspect.signature(getattr(owner, name)).parameters) == SIGNATURES[owner, name]


def test_the_names_that_are_replaced_exist():
    assert grpo.VLLMGeneration is VLLMGeneration  # SegGRPOTrainer puts TrainingEngine in its place
    assert hasattr(vllm_generation, "LLM")  # TrainingEngine adds the dtype to it
    source = inspect.getsource(VLLMGeneration)  # validation sets what generate reads of the engine
    assert all(f"self.{name} = {name}" in source and source.count(f"self.{name}") > 1 for name in FREE)
    processors = vars(GenerationMixin)["_get_logits_processor"]  # rollouts.draws
    assert "generation_config" in inspect.signature(processors).parameters


def overridden(trainer: type) -> set[str]:
    """The private methods of TRL's and transformers' trainers that a class has its own of."""
    names = {name for name in vars(trainer) if hasattr(GRPOTrainer, name) and name.startswith("_")}
    return {name for name in names if inspect.isfunction(vars(trainer)[name])} - {"__init__"}


def test_nothing_else_is_overridden():
    shared = {
        "_generate_single_turn",
        "_calculate_rewards",
        "_generate_and_score_completions",
        "_get_per_token_logps_and_entropies",
    }
    assert overridden(SegGRPOTrainer) == shared | {"_tokenize_prompts"}
    assert overridden(WatchedTrainer) == shared | {"_get_grad_norm"}
    changed = {name for name in vars(TrainingEngine) if inspect.isfunction(vars(TrainingEngine)[name])}
    assert changed == {"_init_vllm", "_seeded", "_iter_named_params", "sync_weights", "generate", "check_prompts"}

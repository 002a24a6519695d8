"""The one TRL subclass: GRPO whose completions are read as predictions and painted as masks, then rewarded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import wraps
from typing import Any

import torch
import trl.trainer.grpo_trainer as trl_grpo
from accelerate.utils import gather
from datasets import Dataset
from peft.tuners.tuners_utils import BaseTunerLayer
from trl import GRPOConfig
from trl.extras.profiling import profiling_context

from rl import dynamic_sampling
from rl.credit import inside, pays_parts, split_advantages, teaches, whole_advantages
from rl.dynamic_sampling import Scored
from rl.prompts import TICKET, Prompts, tickets
from rl.step_log import STATES
from rl.watched import WatchedTrainer
from rollouts.draws import Draws, rows_draw_alone
from rollouts.painter import Painter, Seen
from rollouts.reading import answer_ids, read, read_parts
from rollouts.vllm_engine import TrainingEngine
from segmentation.backbones import unwrap
from segmentation.data.order import Kind, Order
from segmentation.decoders import Decoder, MaskDecoder
from segmentation.formats import Format
from segmentation.sample import Prediction, prediction_mask, state

Reward = Callable[..., list[float | None]]


class SegGRPOTrainer(WatchedTrainer):
    """GRPOTrainer with a format, an optional mask decoder, and rewards of `(predictions, samples, masks)`.

    Rewards are also given `texts`, the completions as written, `parts`, their thoughts and answers apart where the
    format has thoughts, and TRL's own columns, such as `completion_ids`.

    Rows carry `prompt`, `image` and `sample` (`rollouts.rows.prompt_rows`). It overrides what TRL 1.16 has no hook for:

    - `_tokenize_prompts` and `_generate_single_turn`: a colocated vLLM is given prompts whose image token is not yet
      expanded, since it expands it itself (trl#6294; can go when TRL passes unexpanded ids). Every row is drawn with
      numbers of its own, the same on any number of processes (`rollouts.draws`).
    - `_calculate_rewards`: each completion is decoded with its special tokens kept, parsed once and painted once, and
      all rewards see the result. Can go when TRL lets rewards share a computation.
    - `_get_per_token_logps_and_entropies`: a decoder of states reads what the policy's scoring pass before the rewards
      computes. Not what the reference's does, another model or adapters off: validation and evaluation read the policy.
    - `_generate_and_score_completions`: TRL's sampler hands out tickets, and prompts are dealt here (`rl.prompts`);
      those that teach nothing may be replaced (`rl.dynamic_sampling`). Rewards may pay parts of a completion
      (`rl.credit`): TRL's loss takes advantages `(B, T)`, and TRL makes `(B,)`.
    - the engine class, which TRL names in its constructor (`rollouts.vllm_engine.TrainingEngine`).

    Args:
        format: how completions are read.
        rewards: pure functions by name, which is also their metric's name.
        paid: for each reward, the tokens it pays (`rl.credit`); all, unless given.
        decoder: fills the masks of formats that have none in their text; a trained one stays as it is.
        order: of the training set; TRL's own, unless given.
        resample: rounds of dynamic sampling, at most; 0 for none.
        Everything else is GRPOTrainer's, or WatchedTrainer's.

    Raises:
        ValueError: rewards pay parts and a setting speaks of whole completions (`rl.credit.pays_parts`), or groups that
            lie on two processes are to be resampled.
    """

    def __init__(
        self,
        *,
        args: GRPOConfig,
        train_dataset: Dataset,
        format: Format,
        rewards: Mapping[str, Reward],
        paid: Sequence[str] | None = None,
        decoder: Decoder | MaskDecoder | None = None,
        order: Order | None = None,
        resample: int = 0,
        **kwargs: Any,
    ) -> None:
        self.format = format
        self.decoder = None if isinstance(decoder, MaskDecoder) else decoder
        self.painter: Painter | None = None
        self._seen: Seen | None = None
        self.paid = paid or ["all"] * len(rewards)
        how = args.scale_rewards, args.multi_objective_aggregation, args.importance_sampling_level
        self._parts = pays_parts(self.paid, format.mask_tags is not None, *how)
        self.resample = dynamic_sampling.check_rounds(resample, args)
        assert args.generation_batch_size and args.steps_per_generation and args.num_generations  # it works them out
        self._prompts_at_once = args.generation_batch_size // args.num_generations
        updates = args.steps_per_generation * args.num_iterations  # that a batch serves, counted as TRL does
        self.num_generations: Any
        self.num_generations_eval: Any
        self.processing_class: Any
        self.vllm_generation: Any
        self.model: Any
        self.chat_template_kwargs: dict[str, Any]
        self._tokenizer: Any
        self._unexpanded_ids: list[list[int]] = []
        self.draws = Draws(args.seed)
        original = trl_grpo.VLLMGeneration
        trl_grpo.VLLMGeneration = TrainingEngine
        try:
            functions: Any = [_adapted(name, f) for name, f in rewards.items()]
            due = tickets(len(train_dataset), self._prompts_at_once)
            super().__init__(args=args, reward_funcs=functions, train_dataset=due, **kwargs)
        finally:
            trl_grpo.VLLMGeneration = original
        self.prompts = Prompts(
            train_dataset,
            order or Order(range(len(train_dataset)), args.seed, shuffle=bool(args.shuffle_dataset)),
            self.num_generations,
            self.accelerator.num_processes,
            self.accelerator.process_index,
            used_up=lambda: self._step % updates == 0,
        )
        self.add_callback(self.prompts)
        if self._dist.fsdp_version == 2:  # `generate` must go on until all processes are done
            unwrap(self.model)._is_fsdp_managed_module = True
        if isinstance(decoder, MaskDecoder):
            self.painter = Painter(decoder.requires_grad_(False), self.model, self.processing_class, format)

    def _tokenize_prompts(self, prompts: list) -> tuple:
        expanded = super()._tokenize_prompts(prompts)
        if self.use_vllm and self.vllm_mode == "colocate":
            texts = self.processing_class.apply_chat_template(
                prompts, add_generation_prompt=True, tokenize=False, **self.chat_template_kwargs
            )
            self._unexpanded_ids = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return expanded

    def _generate_single_turn(self, prompt_ids: list, *args: Any, **kwargs: Any) -> tuple:
        seed = self.draws.next(self.state.global_step, self.model.training)
        if not self.use_vllm:
            first = seed + self.accelerator.process_index * len(prompt_ids)
            with rows_draw_alone(self.model, range(first, first + len(prompt_ids))):
                return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        self.vllm_generation.seed = seed
        if self.vllm_mode == "server":
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        generated = super()._generate_single_turn(self._unexpanded_ids, *args, **kwargs)
        self.vllm_generation.check_prompts(prompt_ids, self._ids)
        return generated

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list, completions: list, completion_ids: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        samples = [row["sample"] for row in inputs]
        texts, predictions = self.read(inputs, prompts, completion_ids)
        parts = [read_parts(*text, s, self.format) for text, s in zip(texts, samples, strict=True)]
        for row, prediction, sample, (text, _), part in zip(inputs, predictions, samples, texts, parts, strict=True):
            row["prediction"], row["text"], row["parts"] = prediction, text, part
            row["regions"] = self.format.regions(sample)
            row["mask"] = prediction_mask(prediction, sample.height, sample.width)
        self._broken = self._log_states(predictions)
        try:
            self._scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids)
            return self._scores
        finally:
            for row in inputs:
                del row["prediction"], row["text"], row["parts"], row["regions"], row["mask"]

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, logits_to_keep: int, *args, **kwargs
    ) -> tuple:
        given = (model, input_ids, attention_mask, logits_to_keep, *args)
        painter = self.painter if self.painter and self.painter.reads_states else None  # else of pictures alone
        if painter is None or torch.is_grad_enabled() or _is_reference(unwrap(model), painter):
            return super()._get_per_token_logps_and_entropies(*given, **kwargs)
        with painter.backbone.record() as recording:
            scored = super()._get_per_token_logps_and_entropies(*given, **kwargs)
        self._seen = Seen(recording, {"input_ids": input_ids, **kwargs}, input_ids.shape[1] - logits_to_keep)
        return scored

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if TICKET not in inputs[0]:  # evaluation
            return self._with_parts(self._score(inputs))
        kinds = self.prompts.begin(self._prompts_at_once)
        scored, counts = dynamic_sampling.fill(
            kinds,
            self.resample,
            self.accelerator.num_processes,
            self.accelerator.process_index,
            self.num_generations,
            self._answer,
            self._teaches,
            self._tokenizer.pad_token_id,
        )
        if self.resample:
            for name, value in asdict(counts).items():
                self._metrics["train"][f"dynamic_sampling/{name}"].append(value)
        if counts.filled > counts.kept:  # it is not the batch that TRL has seen
            tokens: Any = gather(scored.output["completion_mask"].sum())
            scored.output["num_items_in_batch"] = tokens.sum()
            how = self.num_generations, self.scale_rewards, self.multi_objective_aggregation
            weights = self.reward_weights.to(scored.rewards)
            scored.output["advantages"] = self._own(whole_advantages(scored.rewards, weights, *how))
        return self._with_parts(scored)

    def _score(self, rows: list[dict[str, Any]]) -> Scored:
        output: dict[str, Any] = super()._generate_and_score_completions(rows)
        return Scored(output, self._scores, self._broken)

    def _answer(self, kinds: Sequence[Kind], again: bool) -> Scored:
        """Completions to fresh prompts. Metrics are of a batch's first ones alone: of as many prompts at each step."""
        rows = self.prompts.deal(kinds)
        if not again:
            return self._score(rows)
        logged, self._metrics["train"] = self._metrics["train"], defaultdict(list)
        try:
            return self._score(rows)
        finally:
            logged["num_tokens"] = self._metrics["train"]["num_tokens"]
            self._metrics["train"] = logged

    def _teaches(self, scored: Scored) -> torch.Tensor:
        weights = self.reward_weights.to(scored.rewards)
        how = self.paid, self.num_generations, scored.broken, self.multi_objective_aggregation
        return teaches(scored.rewards, weights, *how)

    def _with_parts(self, scored: Scored) -> dict[str, Any]:
        """The output for TRL's loss, with advantages by token where rewards pay parts."""
        output = scored.output
        if self._parts:
            group = self.num_generations if self.model.training else self.num_generations_eval
            opening, closing = self._tokenizer.convert_tokens_to_ids(list(self.format.mask_tags or ()))
            said = answer_ids(output["completion_ids"], self.format, self._tokenizer)
            masks = inside(said, opening, closing)
            weights = self.reward_weights.to(scored.rewards)
            whole = split_advantages(scored.rewards, weights, self.paid, group, scored.broken)
            output["advantages"] = torch.where(masks, *(self._own(part)[:, None] for part in whole))
        return output

    def _own(self, values: torch.Tensor) -> torch.Tensor:
        """This process's of the `(B, ...)` values of all: a group may lie on two processes, so all are made first."""
        share = len(values) // self.accelerator.num_processes
        return values[self.accelerator.process_index * share :][:share]

    def read(
        self, inputs: list[dict[str, Any]], prompts: list, completion_ids: Sequence[Sequence[int]]
    ) -> tuple[list[tuple[str, bool]], list[Prediction]]:
        """Completions as `text` gives them, and what they say, with its masks."""
        samples = [row["sample"] for row in inputs]
        with profiling_context(self, "parse"), self.timed("parse"):
            texts = [self.text(ids) for ids in completion_ids]
            predictions = [read(*text, s, self.format, self.decoder) for text, s in zip(texts, samples, strict=True)]
        if self.painter:
            images = [row["image"] for row in inputs]
            with profiling_context(self, "decode"), self.timed("decode"):
                predictions = self.painter.paint(predictions, samples, prompts, images, completion_ids, self._seen)
            self._seen = None
        return texts, predictions

    def text(self, completion_ids: Sequence[int]) -> tuple[str, bool]:
        """A completion as written, special tokens kept, up to the one that ends it; and whether that is missing.

        As the engines of evaluation cut it. A padding token that ends nothing (InternVL's) is text like any other.
        """
        ends = (place for place, token in enumerate(completion_ids) if token in self.eos_token_ids)
        end = next(ends, len(completion_ids))
        return self._tokenizer.decode(completion_ids[:end], skip_special_tokens=False), end == len(completion_ids)

    def _log_states(self, predictions: list[Prediction]) -> torch.Tensor:
        """Log the share of each state; `(B,)` bool, which completions of all processes are invalid."""
        mode = "train" if self.model.training else "eval"
        said = [state(prediction) for prediction in predictions]
        shares = torch.tensor([[name == one for name in STATES] for one in said], device=self.accelerator.device)
        everywhere: Any = gather(shares)  # (B, 3)
        for name, share in zip(STATES, everywhere.float().mean(0).tolist(), strict=True):
            self._metrics[mode][f"states/{name}"].append(share)
        return everywhere[:, STATES.index("invalid")]


def _is_reference(model: Any, painter: Painter) -> bool:
    """Whether it is the model that `beta` holds the policy to: another one, or the policy with its adapters off."""
    adapters = (part for part in model.modules() if isinstance(part, BaseTunerLayer))
    return model.model is not painter.backbone.inner or any(part.disable_adapters for part in adapters)


def _adapted(name: str, reward: Reward) -> Reward:
    """A reward of this project as TRL calls it; TRL takes the metric's name from `__name__`."""

    @wraps(reward)
    def call(
        *, prediction: list, sample: list, regions: list, mask: list, text: list, **columns: Any
    ) -> list[float | None]:
        return reward(predictions=prediction, samples=regions, masks=mask, texts=text, **columns)

    call.__name__ = name
    return call

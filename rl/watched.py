"""A GRPOTrainer that is watched: what it logs, when it validates, and what stops it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial, wraps
from typing import Any

import torch
from trl import GRPOTrainer

from rl import finite
from rl.step_log import StepLog
from rl.validation import Validation
from rollouts.deadline import deadline, limit_requests

LOGPS = ("sampling_per_token_logps", "old_per_token_logps", "ref_per_token_logps")  # of TRL's batches, (B, T)


class WatchedTrainer(GRPOTrainer):
    """GRPOTrainer whose rows carry `sample`, and by the time they are paid `prediction`, `mask` and `text`.

    Beside public methods it overrides, each to look at what goes by: `_generate_single_turn`, `_calculate_rewards`,
    `_get_per_token_logps_and_entropies`, `_generate_and_score_completions`, and Trainer's `_get_grad_norm`.

    Args:
        reward_funcs: functions; TRL's metric names are their `__name__`.
        validation: what `evaluate` does.
        time_limit: seconds that a wait for vLLM may take (`rollouts.deadline`).
    """

    def __init__(
        self,
        *args: Any,
        reward_funcs: Sequence[Callable[..., list[float | None]]],
        validation: Validation | None = None,
        time_limit: float = 1800,
        **kwargs: Any,
    ) -> None:
        self.validation = validation
        self.step_log = StepLog([reward.__name__ for reward in reward_funcs])
        self._ids: Sequence[str] = ()  # of the samples whose completions are being written
        self._trained_on: list[str] = []  # ids, since the last update
        self._broken_rewards: list[str] = []
        self._logps = torch.zeros(0)
        self.num_generations: Any
        self.vllm_generation: Any
        self.model: Any
        kwargs["reward_funcs"] = [self._checked(reward) for reward in reward_funcs]
        kwargs["eval_dataset"] = validation.rows if validation else None
        waits = partial(deadline, time_limit)
        with waits("rollouts.time_limit: the start of vLLM") if kwargs["args"].use_vllm else nullcontext():
            super().__init__(*args, **kwargs)
        if self.use_vllm:
            engine = self.vllm_generation
            engine.generate = waits("rollouts.time_limit: vLLM's completions of a batch")(engine.generate)
            sync = waits("rollouts.time_limit: vLLM's new weights")(engine.sync_weights)
            engine.sync_weights = self.timed("sync")(sync)
            if self.vllm_mode == "server" and self.accelerator.is_main_process:
                limit_requests(engine.vllm_client, 0.9 * time_limit)  # an error of its own comes first

    @contextmanager
    def timed(self, section: str) -> Iterator[None]:
        """In training, log how long the block takes as `time/SECTION`."""
        with self.step_log.timed(section) if self.model.training else nullcontext():
            yield

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with self.step_log.timed("update"):
            loss = super().training_step(*args, **kwargs)
        self.step_log.updates += self.accelerator.sync_gradients
        return loss

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self._trained_on += inputs["sample_ids"]
        finite.stop_together(finite.of_loss(loss.detach(), self._logps, inputs["sample_ids"]))
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:  # of training; every process logs it
            total: Any = partial(self.accelerator.reduce, reduction="sum")
            logs |= self.step_log.means(total, self.accelerator.device)
            logged = self._metrics["train"]
            for name in [name for name, values in logged.items() if all(map(math.isnan, values))]:
                del logged[name]  # a reward that applied to nothing: TRL would log None, which trackers complain of
        super().log(logs, start_time)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None beside a checkpoint: TRL's knows neither base nor rewards. `sft.card` writes one for each policy."""

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The validation's figures. A new best is saved; what is best, transformers keeps in its state."""
        assert self.validation is not None, "there is no benchmark to validate on"
        metrics = self.validation.run(self)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        value, best = metrics[f"eval_{self.validation.metric}"], self.state.best_metric
        better = best is None or (value > best if self.args.greater_is_better else value < best)
        self.control.should_save |= better and self.state.global_step > 0
        self.model.train()
        return metrics

    def _generate_single_turn(self, prompt_ids: list, *args: Any, **kwargs: Any) -> tuple:
        if self.use_vllm or self.use_transformers_continuous_batching:  # what samples there is its own business
            with self.timed("generate"):
                return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        policy: Any = self.accelerator.unwrap_model(self.model)
        with self.timed("generate"), finite.watch_logits(policy.get_output_embeddings()) as seen:
            generated = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        finite.stop_together(finite.of_generation(seen, self._ids))
        return generated

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._ids = [row["sample"].id for row in inputs]
        with self.timed("prepare"):
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        written = output["completion_mask"].bool()  # (B, T)
        logps = {key: output[key].where(written, 0.0) for key in LOGPS if key in output}
        finite.stop_together(finite.of_rows(logps, self._ids))
        output["sample_ids"] = self._ids
        return output

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list, completions: list, completion_ids: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        self._broken_rewards.clear()
        with self.timed("rewards"):
            scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids)
        finite.stop_together(self._broken_rewards)
        if self.model.training:
            samples, predictions, masks = ([row[key] for row in inputs] for key in ("sample", "prediction", "mask"))
            self.step_log.add(samples, predictions, masks, completion_ids)
            self.step_log.add_rewards(scores, self.reward_weights, self.num_generations)
        return scores

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple:
        if torch.is_grad_enabled():
            scored = super()._get_per_token_logps_and_entropies(*args, **kwargs)
            self._logps = scored[0].detach()
            return scored
        with self.timed("score"):
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)  # of all processes
        ids, self._trained_on = self._trained_on, []
        if norm is not None:  # DeepSpeed has none where it skips a step
            finite.stop_together(finite.of_gradient(float(norm), ids))
        return norm

    def _checked(self, reward: Callable[..., list[float | None]]) -> Callable[..., list[float | None]]:
        """The reward, whose values that are not finite are kept: they stop the run once all processes have theirs."""

        @wraps(reward)
        def call(*, sample: list, text: list, **columns: Any) -> list[float | None]:
            values = reward(sample=sample, text=text, **columns)
            self._broken_rewards += finite.of_reward(reward.__name__, values, [one.id for one in sample], text)
            return values

        return call

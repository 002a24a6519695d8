"""Validation during training: a fixed part of a benchmark, greedy, by the engine that training uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from omegaconf import DictConfig
from transformers import GenerationConfig
from trl.data_utils import prepare_multimodal_messages

import configs
from evaluation.score import make_protocol
from rl.group_pictures import Ranked, draw_groups, ranked, show
from rollouts.device import whole_models
from rollouts.policy import Processor, image_frame, load_model
from rollouts.rows import prompt_rows
from rollouts.sections import make_samples
from segmentation.figures import figures, ratio, sums
from segmentation.formats import Format
from segmentation.metrics import Evaluator
from segmentation.protocols import Protocol
from segmentation.sample import Sample, prediction_mask
from sft.merge import merge, save_policy

LOGGED = ("gIoU", "cIoU", "box_iou", "N_acc", "T_acc", "invalid_rate", "mean_tokens")  # of `segmentation.figures`
LOWER_IS_BETTER = ("invalid_rate", "mean_tokens")
NO_SAMPLING = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "min_p": None}
NO_SAMPLING |= {"repetition_penalty": 1.0}
FREE = {"temperature": 0.0, "repetition_penalty": 1.0, "structured_outputs_regex": None}  # of vLLM, as evaluation is


class Validation:
    """Answers the same samples every so many updates, scores them as evaluation does, and draws groups of a few.

    Training itself is the same with it and without it: no random number of training's is drawn.

    Args:
        every: updates from one to the next; there is one before the first.
        length: samples, evenly spread over the benchmark.
        metric: a figure of the protocol, whose best checkpoint is kept.
        overlays: how many of the samples get a group of sampled completions, whose best, median and worst are drawn; 0
            for none.
        samples: the benchmark's.
        protocol: how answers are scored.

    Raises:
        ConfigError: a number below one, or a metric that the protocol does not have.
    """

    def __init__(
        self, every: int, length: int, metric: str, overlays: int, *, samples: Sequence[Sample], protocol: Protocol
    ) -> None:
        for name, value, least in (("every", every, 1), ("length", length, 1), ("overlays", overlays, 0)):
            if value < least:
                raise configs.ConfigError(f"validation.{name}={value}: at least {least}; benchmark=none for none.")
        if metric not in figures(protocol):
            raise configs.unknown("value of validation.metric", metric, figures(protocol))
        length = min(length, len(samples))
        self.samples = [samples[index * len(samples) // length] for index in range(length)]
        self.every, self.metric, self.overlays, self.protocol = every, metric, min(overlays, length), protocol
        self.rows: Dataset | None = None

    def arguments(self, first: bool) -> dict[str, Any]:
        """What transformers' arguments must be; `first` for a run that is not resumed."""
        return {
            "eval_strategy": "steps",
            "eval_steps": self.every,
            "eval_on_start": first,
            "num_generations_eval": 1,
            "metric_for_best_model": self.metric,
            "greater_is_better": self.metric not in LOWER_IS_BETTER,
        }

    def prepare(self, format: Format, processor: Processor) -> Dataset:
        """The rows of the samples, in this policy's prompt."""
        self.rows = prompt_rows(self.samples, format, image_frame(processor))
        return self.rows

    def run(self, trainer: Any) -> dict[str, float]:
        """`eval_...`, the same on every process: each answers its share.

        Args:
            trainer: the `SegGRPOTrainer`, whose model is left in evaluation mode.

        Raises:
            ValueError: the metric has no value on these samples, such as gIoU where no decoder makes masks.
        """
        trainer.model.eval()
        with own_randomness(trainer):
            with greedy(trainer):
                scored = self._answer(trainer)
            if self.overlays:
                groups: list[Ranked] = gather_object(self._groups(trainer))
                if trainer.accelerator.is_main_process:
                    self._draw(trainer, groups)
        for kept in (trainer._metrics["eval"], trainer._pending_metrics, trainer._pending_extra_logs):
            kept.clear()  # of completions that are not training's
        terms = sums(scored, self.protocol)
        if terms[self.metric] is None:
            raise ValueError(
                f"validation.metric={self.metric} has no value: a mask or box is missing (no decoder, or a benchmark "
                "without it), or no sample counts for it; choose another metric, benchmark or decoder."
            )
        found = terms["invalid_rate"]
        broken = (ratio(found) or 0.0) if found else 0.0
        if broken > 0.5 and not trainer.state.global_step and trainer.accelerator.is_main_process:
            why = "Was the warm start long enough, and on this format?"
            print(f"warning: {broken:.0%} of the answers are broken before the first update. {why}", flush=True)
        names = dict.fromkeys((self.metric, *LOGGED))
        return {f"eval_{name}": ratio(found) for name in names if (found := terms[name]) is not None}

    def _answer(self, trainer: Any) -> list[Any]:
        """The scores of all samples, from all processes."""
        evaluator = Evaluator(self.protocol)
        size = trainer.args.per_device_train_batch_size * trainer.args.steps_per_generation
        mine, padding = share(len(self.samples), trainer.args.process_index, trainer.args.world_size)
        indices = mine + padding
        for first in range(0, len(indices), size):
            batch = self._rows(indices[first : first + size])
            prompts, completion_ids = complete(trainer, batch)
            texts, predictions = trainer.read(batch, prompts, completion_ids)
            answers = list(zip(batch, predictions, completion_ids, texts, strict=True))
            for row, prediction, ids, (_, truncated) in answers[: max(len(mine) - first, 0)]:
                sample = row["sample"]
                mask = prediction_mask(prediction, sample.height, sample.width)
                evaluator.add(sample, prediction, mask, tokens=len(ids) - (not truncated))  # the end is no token
        return gather_object(evaluator.rows)

    def _groups(self, trainer: Any) -> list[Ranked]:
        """Best, median and worst of a group of completions, of this process's share of the samples that are drawn."""
        size = trainer.num_generations
        mine, padding = share(self.overlays, trainer.args.process_index, trainer.args.world_size)
        made = []
        for place, index in enumerate(mine + padding):
            batch = [dict(row) for row in self._rows([index]) for _ in range(size)]
            prompts, completion_ids = complete(trainer, batch)
            texts, predictions = trainer.read(batch, prompts, completion_ids)
            said = [[{"role": "assistant", "content": text}] for text, _ in texts]
            scores = trainer._calculate_rewards(batch, prompts, said, completion_ids)  # of all processes
            first = trainer.args.process_index * size
            totals = (scores * trainer.reward_weights.to(scores)).nansum(1)[first : first + size].tolist()
            if place < len(mine):
                made.append(ranked(index, totals, predictions, [text for text, _ in texts]))
        return made

    def _draw(self, trainer: Any, groups: Sequence[Ranked]) -> None:
        step = trainer.state.global_step
        path = Path(trainer.args.output_dir) / "overlays" / f"step_{step:05d}.png"
        chosen = sorted(groups, key=lambda group: group.index)
        draw_groups([self.samples[group.index] for group in chosen], chosen, path)
        show(trainer, path)

    def _rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        assert self.rows is not None, "prepare makes them"
        return [self.rows[index] for index in indices]


def make_validation(cfg: DictConfig, format: Format, processor: Processor) -> Validation | None:
    """What the config asks for; None with `benchmark=none`.

    Raises:
        ConfigError: an ill-typed or impossible value, of `validation` even without a benchmark.
    """
    configs.check(Validation, configs.plain(cfg.validation), "validation")
    if not configs.plain(cfg.benchmark):
        return None
    samples = make_samples(cfg.benchmark, "benchmark")
    protocol = make_protocol(cfg.protocol, samples)
    validation = configs.build(Validation, cfg.validation, where="validation", samples=samples, protocol=protocol)
    validation.prepare(format, processor)
    return validation


def share(count: int, process: int, processes: int) -> tuple[list[int], list[int]]:
    """Indices of a process, and others that only keep it as long as the longest: engines and sharded models need all
    processes to generate equally often."""
    mine = list(range(process, count, processes))
    return mine, [0] * (-(-count // processes) - len(mine))


def complete(trainer: Any, rows: Sequence[dict[str, Any]]) -> tuple[list[Any], list[list[int]]]:
    """Prompts with their pictures, and a completion of each, by the engine of training with its weights of now."""
    prompts = [prepare_multimodal_messages(row["prompt"], images=[row["image"]]) for row in rows]
    trainer._ids = [row["sample"].id for row in rows]
    return prompts, trainer._generate(prompts)[1]


@contextmanager
def greedy(trainer: Any) -> Iterator[None]:
    """Let the trainer's engine take the likeliest token, of all that there are."""
    if trainer.use_vllm:
        engine = trainer.vllm_generation
        before = {name: getattr(engine, name) for name in FREE}
        vars(engine).update(FREE)
        try:
            yield
        finally:
            vars(engine).update(before)
        return
    config, values = trainer.generation_config, trainer.generation_kwargs
    trainer.generation_kwargs = {**values, **NO_SAMPLING}
    trainer.generation_config = GenerationConfig(**trainer.generation_kwargs, disable_compile=True)
    try:
        yield
    finally:
        trainer.generation_config, trainer.generation_kwargs = config, values


@contextmanager
def own_randomness(trainer: Any) -> Iterator[None]:
    """Random numbers that training does not miss, the same each time."""
    device = trainer.accelerator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(trainer.args.seed + trainer.args.process_index)
        yield


def save_best(trainer: Any, processor: Processor, output_dir: str | Path) -> None:
    """Write the best checkpoint's policy, merged, to `output_dir/best`."""
    best = trainer.state.best_model_checkpoint
    if best is None or not trainer.accelerator.is_main_process:
        return
    folder = Path(output_dir) / "best"
    with whole_models():
        if (Path(best) / "adapter_config.json").exists():
            merge(best, folder)
        else:
            save_policy(load_model(best), processor, folder)
    metric, step = trainer.args.metric_for_best_model, trainer.state.best_global_step
    start = next((line for line in trainer.state.log_history if f"eval_{metric}" in line and not line["step"]), None)
    before = f", {start[f'eval_{metric}']:.4f} before the first" if start else ""
    print(f"best: {folder}, {metric} {trainer.state.best_metric:.4f} after {step} updates{before}")

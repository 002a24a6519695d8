"""Evaluate a checkpoint: generate greedily, save what was said, score it, draw some of it.

    accelerate launch evaluation/evaluate.py model.path=outputs/grpo/policy format=box benchmark=scenes_val
    accelerate launch --num_processes 8 evaluation/evaluate.py engine=vllm benchmark=refcoco_val benchmark.root=/data
    accelerate launch evaluation/evaluate.py ... decoder=trained decoder.path=outputs/decoder/best
    accelerate launch evaluation/evaluate.py ... refiner=sam2 refiner.path=facebook/sam2.1-hiera-large

Writes predictions.jsonl, metrics.json and overlays.png into output_dir. Run again, it goes on where it stopped.
Several processes share the samples out; none is answered twice or left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import configs
from evaluation.overlay import before_after
from evaluation.predictions import PredictionWriter, Record, read_predictions
from evaluation.score import score_file, write_metrics
from rollouts.answers import Answers
from rollouts.device import use_all_cores
from rollouts.engines import Completion
from rollouts.rows import picture
from rollouts.sections import make_samples
from segmentation.data.check import check
from segmentation.metrics import Evaluator
from segmentation.sample import BrokenImage, Invalid, Sample

ANSWERS = ("generated", "annotated")


@configs.main("evaluate")
def main(cfg: DictConfig) -> None:
    """Generate (each process its share), score (the first process)."""
    use_all_cores()
    state = PartialState()
    if cfg.answers not in ANSWERS:
        raise configs.unknown("value of answers", cfg.answers, ANSWERS)
    policy = Answers(cfg)
    samples = make_samples(cfg.benchmark, "benchmark")
    if cfg.on_broken_image == "stop":
        check(samples)
    output = Path(cfg.output_dir)
    if state.is_main_process:
        configs.record_run(output, cfg, cfg.seed)

    mine = [samples[index] for index in range(state.process_index, len(samples), state.num_processes)]
    part = output / f"predictions-{state.process_index}-of-{state.num_processes}.jsonl"
    run = {"checkpoint": str(cfg.model.path), **{k: configs.plain(cfg[k]) for k in ("format", "benchmark", "decoder")}}
    run["refiner"] = configs.plain(cfg.refiner) or None  # None as in runs from before there was one
    with PredictionWriter(part, run | {k: cfg[k] for k in ("max_tokens", "structured", "answers")}) as writer:
        todo = [sample for sample in mine if sample.id not in writer.finished]
        if todo:
            policy.load()
            answer(policy, todo, writer, cfg, quiet=not state.is_main_process)
    state.wait_for_everyone()
    if state.is_main_process:
        parts = sorted(output.glob(f"predictions-*-of-{state.num_processes}.jsonl"))
        predictions = output / "predictions.jsonl"
        predictions.write_bytes(b"".join(path.read_bytes() for path in parts))
        evaluator = Evaluator(configs.instantiate(cfg.protocol, where="protocol"))
        report(score_file(predictions, samples, evaluator), output, samples, cfg.overlays)


def answer(policy: Answers, samples: Sequence[Sample], writer: PredictionWriter, cfg: DictConfig, quiet: bool) -> None:
    """Write a record for every sample, batch by batch."""
    encode = policy.processor.tokenizer.encode
    columns = (TextColumn("evaluate"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[seen]}"))
    with Progress(*columns, TimeRemainingColumn(), disable=quiet) as progress:
        bar = progress.add_task("evaluate", total=len(samples), seen="")
        for first in range(0, len(samples), cfg.batch_size):
            batch = samples[first : first + cfg.batch_size]
            readable, images = [], []
            for sample in batch:
                try:
                    images.append(picture(sample, policy.frame))
                    readable.append(sample)
                except BrokenImage as error:
                    if cfg.on_broken_image != "count":
                        raise
                    writer.write(Record.of(sample, Invalid(f"broken image: {error}"), "", 0))
            if cfg.answers == "annotated":
                told = [encode(policy.format.encode(sample), add_special_tokens=False) for sample in readable]
                completions = [Completion(tuple(tokens), truncated=False) for tokens in told]
            else:
                completions = policy.generate(readable, images, cfg.max_tokens)
            predictions = policy.read(readable, images, completions)
            for sample, prediction, completion in zip(readable, predictions, completions, strict=True):
                writer.write(Record.of(sample, prediction, policy.text(completion), len(completion.tokens)))
            progress.update(bar, advance=len(batch))


def report(metrics: dict[str, Any], output: Path, samples: Sequence[Sample], overlays: int) -> None:
    """metrics.json, a picture of the first samples, and a table."""
    write_metrics(metrics, output / "metrics.json")
    if overlays:
        drawn = [samples[index] for index in range(min(overlays, len(samples)))]
        said = {record.id: record.prediction for record in read_predictions(output / "predictions.jsonl")}
        before_after(drawn, {"prediction": [said[sample.id] for sample in drawn]}, output / "overlays.png", overlays)
    table = Table("", "", "95% interval", title=f"{output} ({metrics['protocol']})")
    for name, value in metrics.items():
        if not name.endswith(("intervals", "_interval")):
            interval = metrics["intervals"].get(name)
            spread = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
            table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value), spread)
    Console().print(table)


if __name__ == "__main__":
    main()

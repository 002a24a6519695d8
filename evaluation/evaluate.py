"""Evaluate a checkpoint: generate greedily, save what was said, score it, draw some of it.

    accelerate launch evaluation/evaluate.py model.path=outputs/grpo/policy format=box benchmark=scenes_val
    accelerate launch --num_processes 8 evaluation/evaluate.py engine=vllm benchmark=all benchmark.root=/data
    accelerate launch evaluation/evaluate.py ... benchmark=[refcoco_val,grefcoco_val] benchmark.root=/data report=6
    accelerate launch evaluation/evaluate.py ... decoder=trained decoder.path=outputs/decoder/best
    accelerate launch evaluation/evaluate.py ... refiner=sam2 refiner.path=facebook/sam2.1-hiera-large

Writes predictions.jsonl, metrics.json and overlays.png into output_dir; of several benchmarks, into a folder of each,
and one table over them (CSV, Markdown, LaTeX) beside those. The policy is loaded once. Run again, it goes on where it
stopped, whatever the number of processes. They share the samples out; none is answered twice or left out.
"""

from __future__ import annotations

import configs

# Imports take seconds, the command line is checked before them.
command = configs.main("evaluate", several=["benchmark"], script=__name__)

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from evaluation.benchmarks import Benchmark, make_benchmarks
from evaluation.blocks import filled, read_measured
from evaluation.folder import read_folder
from evaluation.overlay import before_after
from evaluation.page import page
from evaluation.predictions import PredictionWriter, Record, gather, read_predictions
from evaluation.progress import RunningScore
from evaluation.score import make_protocol, score_file, write_metrics
from evaluation.table import write_table
from rollouts.answers import Answers
from rollouts.device import processes, use_all_cores
from rollouts.engines import Completion
from rollouts.fingerprint import policy_identity
from rollouts.rows import picture
from rollouts.sections import check_samples
from segmentation.data.samples import Shard
from segmentation.metrics import Evaluator
from segmentation.protocols import Protocol
from segmentation.sample import BrokenImage, Invalid, Sample

ANSWERS = ("generated", "annotated")
BROKEN = "broken image: "  # where the reason of an invalid answer begins, if nothing could be asked
console = Console()


@command
def main(cfg: DictConfig) -> None:
    """Look everything over, then answer and score one benchmark after the other."""
    use_all_cores()
    state = processes()
    if cfg.answers not in ANSWERS:
        raise configs.unknown("value of answers", cfg.answers, ANSWERS)
    policy = Answers(cfg)
    output = Path(cfg.output_dir)
    benchmarks, absent = make_benchmarks(cfg.benchmark, output)
    protocols = [make_protocol(cfg.protocol, benchmark.samples) for benchmark in benchmarks]
    if cfg.on_broken_image == "stop":
        for benchmark in benchmarks:
            check_samples(benchmark.samples, f"benchmark {benchmark.folder.name}")
    if state.is_main_process:
        configs.record_run(output, cfg, cfg.seed)
        for missing in dict.fromkeys(absent.values()):
            names = ", ".join(name for name, lacks in absent.items() if lacks == missing)
            console.print(f"left out, {names}: {missing}", highlight=False, markup=False, soft_wrap=True)
    made_by = policy_identity(cfg) | settings(cfg)  # reads of the weights: once, not for each benchmark
    for benchmark, protocol in zip(benchmarks, protocols, strict=True):
        answer_all(policy, benchmark, protocol, cfg, state, made_by | {"benchmark": benchmark.section})
        if state.is_main_process:
            metrics = score_file(benchmark.folder / "predictions.jsonl", benchmark.samples, Evaluator(protocol))
            write_metrics(metrics, benchmark.folder / "metrics.json")
            draw(benchmark, cfg.overlays)
            if len(benchmarks) == 1:
                print_metrics(metrics, benchmark.folder)
    if state.is_main_process:
        summarise(benchmarks, output, cfg.report)


def settings(cfg: DictConfig) -> dict[str, Any]:
    """What answers depend on besides the policy and the samples."""
    sections = {key: configs.plain(cfg[key]) for key in ("format", "decoder", "refiner")}
    return sections | {key: cfg[key] for key in ("max_tokens", "structured", "answers")}


def answer_all(
    policy: Answers,
    benchmark: Benchmark,
    protocol: Protocol,
    cfg: DictConfig,
    state: PartialState,
    run: Mapping[str, Any],
) -> None:
    """Answer, each process its share, what has no answer yet; all answers are in `predictions.jsonl` afterwards.

    What had a broken image is asked again: it may have been mended.

    Args:
        run: all that the answers depend on, so that none of another run is taken for one of this.

    Raises:
        ConfigError: broken images are to be counted, and a sample cannot be made without its own.
    """
    path = benchmark.folder / "predictions.jsonl"
    if state.is_main_process:
        gather(benchmark.folder, run, without=is_broken)
    state.wait_for_everyone()
    number, count = state.process_index, state.num_processes
    mine = Shard(benchmark.samples, number, count)  # each made when it is needed: RefCOCO-M's hold their pictures
    said = {record.id: record for record in read_predictions(path)}
    done, todo = [], []
    try:
        for index, sample in enumerate(mine):
            if sample.id in said:
                said[sample.id].check_answers(sample, path)
                done.append(index)
            else:
                todo.append(index)
    except BrokenImage as error:
        why = f"{error} Only the image says how large a sample of {benchmark.folder.name} is: none is scored without."
        raise configs.ConfigError(why) from error
    if len(said) < len(benchmark.samples):
        policy.load()  # every process, also one that has nothing left to answer
    part = benchmark.folder / f"predictions-{number}-of-{count}.jsonl"
    running = RunningScore(benchmark.folder.name, len(mine), protocol, quiet=not state.is_main_process)
    with PredictionWriter(part, run) as writer, running as score:
        for sample in (mine[index] for index in done):
            score.add(sample, said[sample.id].prediction)
        for first in range(0, len(todo), cfg.batch_size):
            batch = [mine[index] for index in todo[first : first + cfg.batch_size]]
            for sample, record in answer(policy, batch, cfg):
                writer.write(record)
                score.add(sample, record.prediction)
    state.wait_for_everyone()
    if state.is_main_process:
        gather(benchmark.folder, run)


def is_broken(row: Mapping[str, Any]) -> bool:
    """Whether a line of predictions.jsonl is no answer but the note of a broken image."""
    return str(row.get("reason")).startswith(BROKEN)


def answer(policy: Answers, samples: Sequence[Sample], cfg: DictConfig) -> list[tuple[Sample, Record]]:
    """The records of a batch."""
    made, readable, images = [], [], []
    for sample in samples:
        try:
            images.append(picture(sample, policy.frame))
            readable.append(sample)
        except BrokenImage as error:
            if cfg.on_broken_image != "count":
                raise
            made.append((sample, Record.of(sample, Invalid(f"{BROKEN}{error}"), "", 0)))
    policy.load()
    if cfg.answers == "annotated":
        encode = policy.processor.tokenizer.encode
        told = [encode(policy.format.encode(sample), add_special_tokens=False) for sample in readable]
        completions = [Completion(tuple(tokens), truncated=False) for tokens in told]
    else:
        completions = policy.generate(readable, images, cfg.max_tokens)
    predictions = policy.read(readable, images, completions)
    for sample, prediction, completion in zip(readable, predictions, completions, strict=True):
        made.append((sample, Record.of(sample, prediction, policy.text(completion), len(completion.tokens))))
    return made


def draw(benchmark: Benchmark, overlays: int) -> None:
    """overlays.png: the first samples, ground truth beside the answers."""
    drawn = benchmark.samples[:overlays]
    if drawn:
        said = {record.id: record.prediction for record in read_predictions(benchmark.folder / "predictions.jsonl")}
        answers = {"prediction": [said[sample.id] for sample in drawn]}
        before_after(drawn, answers, benchmark.folder / "overlays.png", overlays)


def print_metrics(metrics: dict[str, Any], folder: Path) -> None:
    """Every figure with its interval."""
    table = Table("", "", "95% interval", title=f"{folder} ({metrics['protocol']})")
    for name, value in metrics.items():
        if not name.endswith(("intervals", "_interval")):
            interval = metrics["intervals"].get(name)
            spread = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
            shown = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
            table.add_row(name, shown, spread)
    console.print(table)


def summarise(benchmarks: Sequence[Benchmark], output: Path, shown: int) -> None:
    """Of several benchmarks one table, beside the papers'; where it was asked for, the report."""
    folders = [benchmark.folder for benchmark in benchmarks]
    if len(benchmarks) > 1 and (blocks := filled(read_measured(folders))):
        write_table(blocks, output)
    if shown:
        evaluations = [read_folder(benchmark.folder, benchmark.samples) for benchmark in benchmarks]
        names = [folder.name for folder in folders]
        report = output / "report.html"
        report.write_text(page(str(output), evaluations, names, "", shown, side=320), encoding="utf-8")
        console.print(f"{report}: {report.stat().st_size / 1e6:.1f} MB", highlight=False)


if __name__ == "__main__":
    main()

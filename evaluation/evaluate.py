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

import torch
from accelerate import PartialState
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import configs
from evaluation.overlay import before_after
from evaluation.predictions import PredictionWriter, Record, read_predictions
from evaluation.score import score_file, write_metrics
from rollouts.device import prepare_vllm, use_all_cores
from rollouts.engines import ENGINES, Completion, Engine, require_vllm
from rollouts.painter import Painter
from rollouts.policy import check_tokens, family, image_frame, load_model, load_processor
from rollouts.reading import read
from rollouts.rows import chat, picture
from rollouts.sections import make_decoder, make_format, make_samples
from segmentation.data.check import check
from segmentation.decoders import Decoder, MaskDecoder, Sam2Refiner
from segmentation.formats import Format
from segmentation.metrics import Evaluator
from segmentation.sample import BrokenImage, Invalid, Sample

ANSWERS = ("generated", "annotated")


@configs.main("evaluate")
def main(cfg: DictConfig) -> None:
    """Generate (each process its share), score (the first process)."""
    use_all_cores()
    state = PartialState()
    if cfg.engine not in ENGINES:
        raise configs.unknown("engine", cfg.engine, ENGINES)
    if cfg.answers not in ANSWERS:
        raise configs.unknown("value of answers", cfg.answers, ANSWERS)
    if cfg.structured and cfg.engine != "vllm":
        raise configs.ConfigError(f"structured={cfg.structured} is vLLM's: choose engine=vllm, or structured=0.")
    if cfg.engine == "vllm":
        require_vllm()
        prepare_vllm()
    processor = load_processor(cfg.model.path)
    format = make_format(cfg.format, family(cfg.model.path), processor)
    check_tokens(processor, format.new_tokens, cfg.model.path)
    decoder = make_decoder(cfg.decoder)
    refiner = configs.instantiate(cfg.refiner, where="refiner") if cfg.refiner else None
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
            options = {"regex": format.regex(cfg.structured)} if cfg.structured else {}
            engine = ENGINES[cfg.engine](cfg.model.path, processor, cfg.model.dtype, **options)
            painter = None
            device = "cuda" if torch.cuda.is_available() else "cpu"
            if refiner:
                refiner.model.to(device)
            if isinstance(decoder, MaskDecoder):  # it reads features of the engine's own model, if that is at hand
                model = engine.model or load_model(cfg.model.path, cfg.model.dtype).to(device).eval()
                painter, decoder = Painter(decoder, model, processor, format), None
            answer(engine, todo, format, painter or decoder, refiner, writer, cfg, quiet=not state.is_main_process)
    state.wait_for_everyone()
    if state.is_main_process:
        parts = sorted(output.glob(f"predictions-*-of-{state.num_processes}.jsonl"))
        predictions = output / "predictions.jsonl"
        predictions.write_bytes(b"".join(path.read_bytes() for path in parts))
        evaluator = Evaluator(configs.instantiate(cfg.protocol, where="protocol"))
        report(score_file(predictions, samples, evaluator), output, samples, cfg.overlays)


def answer(
    engine: Engine,
    samples: Sequence[Sample],
    format: Format,
    decoder: Decoder | Painter | None,
    refiner: Sam2Refiner | None,
    writer: PredictionWriter,
    cfg: DictConfig,
    quiet: bool,
) -> None:
    """Write a record for every sample, batch by batch."""
    tokenizer = engine.processor.tokenizer
    frame = image_frame(engine.processor)
    columns = (TextColumn("evaluate"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[seen]}"))
    with Progress(*columns, TimeRemainingColumn(), disable=quiet) as progress:
        bar = progress.add_task("evaluate", total=len(samples), seen="")
        for first in range(0, len(samples), cfg.batch_size):
            batch = samples[first : first + cfg.batch_size]
            readable, images = [], []
            for sample in batch:
                try:
                    images.append(picture(sample, frame))
                    readable.append(sample)
                except BrokenImage as error:
                    if cfg.on_broken_image != "count":
                        raise
                    writer.write(Record.of(sample, Invalid(f"broken image: {error}"), "", 0))
            chats = [chat(format.prompt(sample.expression)) for sample in readable]
            if cfg.answers == "annotated":
                told = [tokenizer.encode(format.encode(sample), add_special_tokens=False) for sample in readable]
                completions = [Completion(tuple(tokens), truncated=False) for tokens in told]
            else:
                completions = engine.generate(chats, images, cfg.max_tokens) if readable else []
            texts = [completion.text(tokenizer) for completion in completions]
            inside = None if isinstance(decoder, Painter) else decoder
            predictions = [
                read(text, completion.truncated, sample, format, inside)
                for text, completion, sample in zip(texts, completions, readable, strict=True)
            ]
            if isinstance(decoder, Painter) and readable:
                said = [completion.tokens for completion in completions]
                predictions = decoder.paint(predictions, readable, chats, images, said)
            if refiner:
                predictions = refiner.refine(predictions, readable)
            for sample, prediction, text, completion in zip(readable, predictions, texts, completions, strict=True):
                writer.write(Record.of(sample, prediction, text, len(completion.tokens)))
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

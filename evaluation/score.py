"""Score saved predictions again: metrics.json from predictions.jsonl, to the last digit, without model or images.

python evaluation/score.py predictions=outputs/eval/predictions.jsonl benchmark=scenes_val
python evaluation/score.py predictions=... benchmark=... protocol=rela protocol.empty_pixels=50 output=rela.json
"""

from __future__ import annotations

import configs

# Imports take seconds, the command line is checked before them.
command = configs.main("score", script=__name__)

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from evaluation.intervals import figure_intervals
from evaluation.predictions import BadPredictions, Record, read_predictions, read_run
from segmentation.metrics import Evaluator
from segmentation.protocols import Protocol
from segmentation.published import Published
from segmentation.sample import Sample


def make_protocol(section: Mapping[str, Any], samples: Sequence[Sample]) -> Protocol:
    """The protocol that the section names; of `published`, that of the dataset of the first sample.

    Raises:
        ConfigError: a wrong option.
    """
    made = configs.instantiate(section, where="protocol")
    try:
        return made.of(samples[0].dataset) if isinstance(made, Published) else made
    except ValueError as error:
        raise configs.ConfigError(f"protocol: {error}") from error


def score_file(predictions: Path, samples: Iterable[Sample], evaluator: Evaluator) -> dict[str, Any]:
    """Score every line of a predictions file against the sample of its id.

    Args:
        samples: the benchmark, whole and in any order; no image is opened.
        evaluator: a fresh one; its rows are there afterwards, for intervals and comparisons.

    Returns:
        What `summarise` makes of the evaluator; and `answers`, whether the policy's own were scored (`generated`) or a
        decoder on the right ones (`annotated`).

    Raises:
        BadPredictions: an unreadable line, a sample without prediction or of another expression, or a prediction
            without sample.
    """
    fill(predictions, samples, evaluator)
    answers = read_run(predictions).get("answers")
    return summarise(evaluator) | ({"answers": answers} if answers else {})


def fill(predictions: Path, samples: Iterable[Sample], evaluator: Evaluator) -> dict[str, Record]:
    """Add every line of a predictions file to a fresh evaluator, in the order of the samples; returns them by id.

    Raises:
        BadPredictions: see `score_file`.
    """
    records = {record.id: record for record in read_predictions(predictions)}
    missing = []
    for expected, sample in enumerate(samples, 1):
        evaluator.expect(expected)
        record = records.get(sample.id)
        if record is None:
            missing.append(sample.id)
        else:
            record.check_answers(sample, predictions)
            evaluator.add(sample, record.prediction, record.mask, record.tokens)
    scored = {row.id for row in evaluator.rows}
    foreign = [id for id in records if id not in scored]
    for ids, problem in ((missing, "have no prediction"), (foreign, "are predicted and not in the dataset")):
        if ids:
            raise BadPredictions(
                f"{predictions}: {len(ids)} samples {problem}, the first is {ids[0]}. Is it this data?"
            )
    return records


def summarise(evaluator: Evaluator) -> dict[str, Any]:
    """What metrics.json holds: the evaluator's result and the 95% bootstrap interval of each of its figures.

    `intervals` has `[low, high]` by figure, null for a figure without value; `gIoU_interval` is that of gIoU.
    """
    made = figure_intervals(evaluator.rows, evaluator.protocol)
    intervals = {name: [interval.low, interval.high] if interval else None for name, interval in made.items()}
    return evaluator.result() | {"gIoU_interval": intervals["gIoU"], "intervals": intervals}


def write_metrics(metrics: dict[str, Any], path: Path) -> None:
    """Write metrics.json; equal metrics give equal bytes."""
    path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


@command
def main(cfg: DictConfig) -> None:
    """Read, score, write."""
    predictions = Path(cfg.predictions)
    samples = configs.instantiate(cfg.benchmark, where="benchmark")
    metrics = score_file(predictions, samples, Evaluator(make_protocol(cfg.protocol, samples)))
    write_metrics(metrics, predictions.parent / cfg.output)
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()

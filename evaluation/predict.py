"""Answer expressions about pictures: a mask, a picture of it, and what was said, for each.

    python evaluation/predict.py model.path=outputs/grpo/policy format=box image=photo.jpg expression="the left cup"
    python evaluation/predict.py model.path=... image=photos expression="the left cup"     # every picture of a folder
    python evaluation/predict.py model.path=... batch=asked.csv                            # columns image, expression
    python evaluation/predict.py model.path=... decoder=trained decoder.path=outputs/decoder/best refiner=sam2 ...

Writes NAME.mask.png (255 is foreground), NAME.overlay.png and NAME.json into output_dir. A picture that cannot be read
is named, the others are done, and the exit status is 1.
"""

from __future__ import annotations

import configs

# Imports take seconds, the command line is checked before them.
command = configs.main("predict", texts=("image", "expression", "batch", "output_dir"), script=__name__)

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.text import Text

from evaluation.jobs import RESULTS, Job, due, make_jobs
from evaluation.predictions import Record, to_row
from rollouts.answers import STATE_STYLES, Answers
from rollouts.device import use_all_cores
from rollouts.rows import picture, question
from segmentation import masks
from segmentation.panels import Tile, answered, gallery
from segmentation.sample import BrokenImage, Found, Sample, state

SHOWN = 4  # boxes in a line of the terminal
console = Console(highlight=False, soft_wrap=True)


@command
def main(cfg: DictConfig) -> None:
    """Find out what to do, check, load, answer batch by batch."""
    use_all_cores()
    output = Path(cfg.output_dir)
    asked = make_jobs(cfg.image, cfg.expression, cfg.batch)
    jobs = due(asked, output, cfg.existing)
    if cfg.batch_size < 1:
        raise configs.ConfigError(f"batch_size={cfg.batch_size}: at least 1.")
    policy = Answers(cfg)
    configs.record_run(output, cfg, seed=0)  # nothing is drawn

    broken = 0
    for first in range(0, len(jobs), cfg.batch_size):
        batch = jobs[first : first + cfg.batch_size]
        broken += predict(policy, batch, output, cfg.max_tokens, str(cfg.model.path))
    if kept := len(asked) - len(jobs):
        console.print(f"{kept} of {len(asked)} were there already, and kept")
    if broken:
        sys.exit(f"predict.py: error: {broken} of {len(jobs)} pictures could not be read; they are named above.")


def predict(policy: Answers, jobs: Sequence[Job], output: Path, max_tokens: int, checkpoint: str) -> int:
    """Do some jobs together and write their results. Returns how many had pictures that cannot be read."""
    readable, images = [], []
    for job in jobs:
        try:
            sample = question(job.image, job.expression, job.name)
            images.append(picture(sample, policy.frame))
            readable.append((job, sample))
        except BrokenImage as error:
            console.print(Text(str(error), "bold red"))
        except ValueError as error:  # 200 times longer than wide
            console.print(Text(f"{job.image}: {error}", "bold red"))
    samples = [sample for _, sample in readable]
    completions = policy.generate(samples, images, max_tokens) if samples else []
    predictions = policy.read(samples, images, completions)
    for (job, sample), prediction, completion in zip(readable, predictions, completions, strict=True):
        record = Record.of(sample, prediction, policy.text(completion), len(completion.tokens))
        write(job, sample, record, output, checkpoint)
        console.print(line(job, sample, record, output))
    return len(jobs) - len(readable)


def write(job: Job, sample: Sample, record: Record, output: Path, checkpoint: str) -> None:
    """The files of a job. The .json comes last: where it is, the others are."""
    answer, mask, overlay = (output / f"{job.name}{end}" for end in RESULTS)
    for old in (answer, mask, overlay):  # an answer without a mask leaves no old one beside it
        old.unlink(missing_ok=True)
    if record.mask is not None:
        Image.fromarray(masks.decode(record.mask)).convert("L").save(mask)
    drawn = answered(record.prediction, sample.height, sample.width)
    assert isinstance(sample.image, Image.Image), "question has read it"
    gallery(sample.expression, [Tile("", sample.image, drawn)], overlay, columns=1, width=5.5)
    row = {key: value for key, value in to_row(record).items() if key not in ("id", "dataset", "split")}
    about: dict[str, Any] = {"image": str(job.image), "height": sample.height, "width": sample.width}
    files = {"mask_file": mask.name if record.mask is not None else None, "overlay_file": overlay.name}
    unfinished = answer.with_suffix(".part")
    unfinished.write_text(json.dumps(about | row | files | {"checkpoint": checkpoint}, indent=2) + "\n")
    unfinished.replace(answer)


def line(job: Job, sample: Sample, record: Record, output: Path) -> Text:
    """What the terminal shows of a job."""
    said = state(record.prediction)
    words = [said.replace("_", " ")]
    if isinstance(record.prediction, Found):
        boxes = [instance.box for instance in record.prediction.instances if instance.box is not None]
        words += ["[" + " ".join(f"{edge:.0f}" for edge in box) + "]" for box in boxes[:SHOWN]]
        words += [f"and {len(boxes) - SHOWN} more"] if len(boxes) > SHOWN else []
        if record.mask is not None:
            words.append(f"{masks.area(record.mask) / (sample.height * sample.width):.1%} of the picture")
    if said == "invalid":
        words.append(getattr(record.prediction, "reason", ""))
    return Text.assemble(
        (str(job.image), "bold"),
        "  ",
        sample.expression,
        "  ",
        (" ".join(words), STATE_STYLES[said]),
        "  ",
        (str(output / f"{job.name}.overlay.png"), "dim"),
    )


if __name__ == "__main__":
    main()

"""One prompt, G completions: text, state, every reward and the advantage of each, and a picture of them all.

    python -m rollouts.inspect model.path=outputs/grpo/policy format=box data=scenes index=3
    python -m rollouts.inspect ... id=scenes-val-0-7-plural trainer.num_generations=8 trainer.temperature=1.2
    python -m rollouts.inspect ... image=photo.jpg expression="the left cup" boxes='[[10,20,110,90]]'

It takes the model, format, data, decoder, rewards and trainer of an rl/grpo.py command as they are, samples as that
would, and pays as that would: what one looks at first when a reward looks wrong.
"""

from __future__ import annotations

import configs

# Imports take seconds, the command line is checked before them.
command = configs.main("inspect", texts=("id", "image", "expression"), several=["data"], script=__name__)

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text
from trl import GRPOConfig

from configs import strict
from rollouts.answers import STATE_STYLES, Answers
from rollouts.device import use_all_cores
from rollouts.engines import Completion, Sampling
from rollouts.group import Paid, make_advantages, pay, score
from rollouts.rows import picture, question
from rollouts.sections import make_rewards, make_samples
from segmentation.panels import BAD, GOOD, MUTED, Tile, annotated, answered, gallery
from segmentation.sample import Found, Invalid, Prediction, Sample, Target, open_image, state

PARTS = ";\nwhat pays a part of a text does not apply to a broken one"
NO_NAME = r"[^\w.-]+"  # what a file's name had better not have
console = Console(highlight=False, soft_wrap=True)


@command
def main(cfg: DictConfig) -> None:
    """Check, load, sample, read, pay, show."""
    use_all_cores()
    rewards, weights, tokens = make_rewards(cfg.rewards)
    settings = trainer_settings(cfg.trainer)
    group = settings["num_generations"]
    if group < 2:
        raise configs.ConfigError(f"trainer.num_generations={group}: a group has at least 2 completions.")
    sample, known = asked(cfg)
    policy = Answers(cfg)
    advantages = make_advantages(cfg.advantages, policy, weights, tokens, settings)
    rows, images = [sample] * group, [picture(sample, policy.frame)] * group

    drawn = {field.name: settings[field.name] for field in fields(Sampling) if field.name != "seed"}
    sampling = Sampling(**drawn, seed=cfg.seed)
    completions = policy.generate(rows, images, settings["max_completion_length"], sampling)
    predictions = policy.read(rows, images, completions)
    paid = None
    if known:
        scores = score(policy, sample, completions, predictions, rewards)
        paid = pay(policy, completions, predictions, scores, weights, tokens, advantages)
    show(policy, sample, known, completions, predictions, paid, dict(zip(rewards, weights, strict=True)))
    path = Path(cfg.output_dir) / f"{re.sub(NO_NAME, '-', sample.id)}.png"
    draw(path, sample, known, predictions, paid, list(rewards))
    console.print(f"\n{path}")


def trainer_settings(section: DictConfig) -> dict[str, Any]:
    """The fields of `trl.GRPOConfig` as the section and TRL's defaults give them; names and types are checked.

    Raises:
        ConfigError: an unknown or ill-typed key.
    """
    defaults = {field.name: field.default for field in fields(GRPOConfig)}
    settings = defaults | strict.check(GRPOConfig, configs.plain(section), "trainer")
    if isinstance(settings["scale_rewards"], bool):  # as TRL reads it
        settings["scale_rewards"] = "group" if settings["scale_rewards"] else "none"
    return settings


def asked(cfg: DictConfig) -> tuple[Sample, bool]:
    """The sample that the config asks about, and whether it is known what is meant.

    Raises:
        ConfigError: no such sample; a picture without expression or the other way round, or one that cannot be read; a
            box that is none.
    """
    if (cfg.image is None) != (cfg.expression is None) or (cfg.boxes is not None and cfg.image is None):
        raise configs.ConfigError("image, expression: give both, and boxes only with them; or neither, for a sample.")
    try:
        if cfg.image is not None:
            image = Path(cfg.image).expanduser()
            sample = question(image, cfg.expression, image.stem)
            return replace(sample, targets=_targets(cfg.boxes or (), sample)), cfg.boxes is not None
        sample = _of_data(make_samples(cfg.data), cfg.index, cfg.id)
        return replace(sample, image=open_image(sample)), True
    except configs.ConfigError:
        raise
    except ValueError as error:  # BrokenImage, or a line that is no sample
        raise configs.ConfigError(str(error)) from error


def _of_data(samples: Sequence[Sample], index: int, id: str | None) -> Sample:
    if id is not None:
        with console.status(f"looking for {id}"):
            found = next((sample for sample in samples if sample.id == id), None)
        if found is None:
            raise configs.ConfigError(
                f"id={id}: none of the {len(samples)} samples of data; the first is {samples[0].id}."
            )
        return found
    if not 0 <= index < len(samples):
        raise configs.ConfigError(f"index={index}: data has {len(samples)} samples; choose 0 to {len(samples) - 1}.")
    return samples[index]


def _targets(boxes: Sequence[Sequence[float]], sample: Sample) -> tuple[Target, ...]:
    for box in boxes:
        edges = list(box)
        x1, y1, x2, y2 = edges if len(edges) == 4 else (0, 0, 0, 0)
        if not (0 <= x1 < x2 <= sample.width and 0 <= y1 < y2 <= sample.height):
            size = f"{sample.width}x{sample.height}"
            raise configs.ConfigError(f"boxes: {edges} is no [x1, y1, x2, y2] in pixels of a picture of {size}.")
    return tuple(Target((float(x1), float(y1), float(x2), float(y2))) for x1, y1, x2, y2 in boxes)


def show(
    policy: Answers,
    sample: Sample,
    known: bool,
    completions: Sequence[Completion],
    predictions: Sequence[Prediction],
    paid: Paid | None,
    weights: dict[str, float],
) -> None:
    """The prompt, each text, and a table of what it earned."""
    meant = ", ".join(_box(target.box) for target in sample.targets) or "nothing"
    console.print(Text.assemble((sample.id, "bold"), f"  {sample.width}x{sample.height}  {sample.expression}"))
    console.print(Text(f"meant: {meant if known else 'not known, so there are no rewards; boxes=[[...]] says it'}"))
    console.print(Text(f"prompt: {policy.format.prompt(sample.expression)}", "dim"))
    for number, (completion, prediction) in enumerate(zip(completions, predictions, strict=True), 1):
        said = state(prediction)
        more = f": {prediction.reason}" if isinstance(prediction, Invalid) else ""
        if isinstance(prediction, Found):
            more = " " + ", ".join(_box(one.box) if one.box else "a mask" for one in prediction.instances)
        tokens = f"  {len(completion.tokens)} tokens{', cut off' if completion.truncated else ''}"
        if paid is not None and paid.mask_tokens[number - 1]:
            tokens += f", {paid.mask_tokens[number - 1]} of masks"
        console.print(
            Text.assemble(f"\n#{number}  ", (said.replace("_", " ") + more, STATE_STYLES[said]), (tokens, "dim"))
        )
        console.print(Text(policy.text(completion)))
    if paid is None:
        return
    parts = not paid.of_masks.isnan().all()
    table = Table(caption="- does not apply; total by weight" + (PARTS if parts else ""))
    table.add_column("#", justify="right")
    for name, weight in weights.items():
        words = name.replace("_", "_\n")  # so that a dozen rewards fit into a terminal
        table.add_column(f"{words}\nx {weight:g}" if weight else f"{words}\nlogged only", justify="right")
    ends = ["total", *(["advan-\ntage of\nmasks", "advan-\ntage of\nthe rest"] if parts else ["advantage"])]
    for name in ends:
        table.add_column(name, justify="right", style="bold")
    for row in range(len(completions)):
        cells = [_number(value) for value in paid.rewards[row]]
        gains = [paid.of_masks[row], paid.of_rest[row]] if parts else [paid.of_rest[row]]
        table.add_row(str(row + 1), *cells, _number(paid.total[row]), *(_signed(gain) for gain in gains))
    console.print()
    console.print(table, soft_wrap=False)
    if not paid.of_rest.nan_to_num().any() and not paid.of_masks.nan_to_num().any():
        console.print("All were paid alike: this group teaches nothing.", style="yellow")


def draw(
    path: Path, sample: Sample, known: bool, predictions: Sequence[Prediction], paid: Paid | None, names: Sequence[str]
) -> None:
    """A page of what was meant and every answer, with its rewards under it."""
    image = open_image(sample)
    tiles = [Tile("meant", image, annotated(sample))] if known else []
    for row, prediction in enumerate(predictions):
        panel, heading = answered(prediction, sample.height, sample.width), f"#{row + 1}"
        if paid is not None:
            gain = paid.of_rest[row]
            apart = "" if paid.of_masks[row].isnan() else f"\nof its masks {_signed(paid.of_masks[row]).plain}"
            heading += f"  advantage {_signed(gain).plain}{apart}"
            scores = [f"{name}\u00a0{_number(value)}" for name, value in zip(names, paid.rewards[row], strict=True)]
            caption = f"{panel.caption}\n{', '.join(scores)}\ntotal {_number(paid.total[row])}"
            panel = replace(panel, caption=caption, ink=GOOD if gain > 0 else BAD if gain < 0 else MUTED)
        tiles.append(Tile(heading, image, panel))
    gallery(sample.expression, tiles, path)


def _box(box: Sequence[float]) -> str:
    return "[" + " ".join(f"{edge:.0f}" for edge in box) + "]"


def _number(value: torch.Tensor) -> str:
    return "-" if value.isnan() else f"{value:.2f}"


def _signed(value: torch.Tensor) -> Text:
    if value.isnan():
        return Text("-")
    return Text(f"{value:+.2f}", "green" if value > 0 else "red" if value < 0 else "")


if __name__ == "__main__":
    main()

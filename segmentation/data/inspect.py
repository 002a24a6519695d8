"""Random samples of a dataset as a policy is taught them: picture and masks, prompt, target, tokens.

    python -m segmentation.data.inspect data=scenes format=box
    python -m segmentation.data.inspect benchmark=refcoco_val benchmark.root=/data count=12 seed=3
    python -m segmentation.data.inspect data=scenes model.path=Qwen/Qwen2.5-VL-3B-Instruct

`data`, `benchmark` and `format` are the groups in `configs/`; `--config-dir FOLDER` adds choices of
one's own. With `model.path` texts are in that model's frame of coordinates and their tokens are
counted; without, coordinates are relative (0..1000) unless format.convention says otherwise.
`index=7` shows one sample, `output=FILE` names the picture (outputs/inspect/NAME.png).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from rich.console import Console
from rich.text import Text

from segmentation import masks
from segmentation.boxes import Relative
from segmentation.data.export import dataset, fail, help_text, own_choices, run, section
from segmentation.data.resize import fit
from segmentation.formats import Format, Reasoning
from segmentation.panels import Tile, annotated, gallery
from segmentation.sample import Found, Invalid, Prediction, Question, Sample, open_image, prediction_mask, state

USAGE = (
    "python -m segmentation.data.inspect (data|benchmark)=NAME [data.KEY=VALUE ...] [format=NAME]\n"
    "[format.KEY=VALUE ...] [model.path=PATH] [count=8] [seed=0] [index=N] [output=FILE]"
)
OWN = {"format": "box", "model.path": "", "count": "8", "seed": "0", "index": "", "output": ""}
console = Console(highlight=False, soft_wrap=True)

if TYPE_CHECKING:
    from segmentation.processor import Processor


def main(arguments: Sequence[str]) -> None:
    """The command."""
    if "--help" in arguments:
        print(help_text(__doc__, USAGE, ("data", "benchmark", "format")))
        return
    arguments, beside = own_choices(arguments)
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    groups = [group for group in ("data", "benchmark") if group in given]
    strange = [argument for argument in arguments if "=" not in argument and not argument.startswith("~")]
    if len(groups) != 1 or strange:
        fail(f"usage: {USAGE}")
    group, own = groups[0], OWN | given
    rest = [argument for argument in arguments if argument.split("=", 1)[0] not in (group, *OWN)]
    of_format = [argument for argument in rest if argument.lstrip("+~").startswith("format.")]
    try:
        samples, _ = dataset(group, given[group], [*beside, *(one for one in rest if one not in of_format)])
        format, processor = make_format(own["format"], [*beside, *of_format], own["model.path"])
        count, seed = (number(key, own[key]) for key in ("count", "seed"))
        chosen = choose(len(samples), number("index", own["index"]) if own["index"] else None, count, seed)
        path = Path(own["output"] or f"outputs/inspect/{given[group]}.png")
        broken = show(samples, chosen, format, processor, path)
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, HydraException) and error.__cause__ else error
        fail(f"inspect: error: {cause}")
    sys.exit(1 if broken else 0)


def make_format(name: str, overrides: list[str], model: str) -> tuple[Format, Processor | None]:
    """The format in the frame of the model, and its processor with the format's tokens; without a model, no processor.

    Raises:
        FileNotFoundError, OSError: there is no such model.
    """
    values = section("format", name, overrides)
    thoughts = values.pop("reasoning", False)
    processor: Any = None
    given: dict[str, Any] = {"convention": Relative(1000)} if values.get("convention", "") is None else {}
    if model:
        from segmentation.processor import (  # here: seconds that a look without it saves
            family,
            load_processor,
            own_frame,
        )

        processor = load_processor(model)
        given = own_frame(values, family(model), processor)
    target = get_object(values.pop("_target_"))
    try:
        format = target(**(values | given))
    except TypeError as error:  # an unknown option, added with a plus
        raise ValueError(f"format={name}: {error}.") from error
    if processor:
        processor.tokenizer.add_tokens(list(format.new_tokens))  # as the warm start does
    return Reasoning(format) if thoughts else format, processor


def number(key: str, text: str) -> int:
    """A whole number, 0 or more, off the command line. Raises ValueError."""
    if not text.isdecimal():
        raise ValueError(f"{key}={text}: a whole number was expected.")
    return int(text)


def choose(length: int, index: int | None, count: int, seed: int) -> list[int]:
    """Indices to show: that one, or so many at random, in order. Raises ValueError."""
    if index is not None and index >= length:
        raise ValueError(f"index={index}: the dataset has {length} samples; choose 0 to {length - 1}.")
    if not count:
        raise ValueError("count=0: show at least 1.")
    return sorted(random.Random(seed).sample(range(length), min(count, length))) if index is None else [index]


def show(
    samples: Sequence[Sample], chosen: Sequence[int], format: Format, processor: Processor | None, path: Path
) -> int:
    """Print and draw the samples of those indices. Returns how many cannot be shown; they are named."""
    tiles = []
    for index in chosen:
        try:
            sample = samples[index]
            image = open_image(sample)
        except ValueError as error:  # BrokenImage, or a line that is no sample
            console.print(Text(f"index {index}: {error}", "bold red"))
            continue
        describe(index, sample, image, format, processor)
        about = annotated(sample)
        labels = ", ".join(dict.fromkeys(target.label for target in sample.targets if target.label))
        caption = f"{about.caption}{f': {labels}' if labels else ''}\nindex {index}\n{sample.id}"
        tiles.append(Tile(sample.expression, image, replace(about, caption=caption)))
    if tiles:
        gallery("", tiles, path)
        console.print(f"\n{len(tiles)} of {len(samples)} samples: {path}")
    return len(chosen) - len(tiles)


def describe(index: int, sample: Sample, image: Image.Image, format: Format, processor: Processor | None) -> None:
    """Print a sample: what is meant, the prompt, the target, and what the format reads out of that."""
    console.print(
        Text.assemble(
            f"\nindex {index}  ", (sample.id, "bold"), f"  {sample.width}x{sample.height}  {sample.expression}"
        )
    )
    for target in sample.targets:
        edges = " ".join(f"{edge:g}" for edge in target.box)
        painted = f"{masks.area(target.mask)} pixels" if target.mask else "no mask"
        console.print(f"  [{edges}]  {painted}  {target.label or ''}".rstrip(), markup=False)
    if isinstance(sample, Question):
        for turn, text in enumerate([*sample.before, sample.expression, sample.answer]):
            _field(("asked", "answer")[turn % 2], text)
        return
    prompt = format.prompt(sample.expression)
    _field("prompt", prompt)
    try:
        text = format.encode(sample)
    except ValueError as error:  # boxes alone, for a format that writes masks
        _field("target", f"cannot be written in this format: {error}", "red")
        return
    console.print(Text.assemble(("target  ", "cyan"), text))
    console.print(
        Text.assemble(("reads   ", "cyan"), reads_back(sample, format.parse(text, sample.height, sample.width)))
    )
    if processor:
        from segmentation.processor import chat, image_frame

        turn = processor.apply_chat_template([chat(prompt)], tokenize=False, add_generation_prompt=True)
        frame = image_frame(processor)
        seen = processor(images=[fit(image, frame) if frame else image], text=turn)["input_ids"][0]
        said = processor.tokenizer.encode(text, add_special_tokens=False)
        console.print(
            Text.assemble(("tokens  ", "cyan"), f"{len(seen)} prompt and picture, {len(said)} target, and the end")
        )


def _field(name: str, text: str, style: str = "") -> None:
    console.print(Text.assemble((f"{name:8}", "cyan"), (text, style)))


def reads_back(sample: Sample, prediction: Prediction) -> str:
    """What a target text says when it is read, which shows what the format loses of a mask."""
    said = state(prediction).replace("_", " ")
    if isinstance(prediction, Invalid):
        return f"{said}: {prediction.reason}"
    drawn, meant = prediction_mask(prediction, sample.height, sample.width), sample.mask
    if not isinstance(prediction, Found) or drawn is None or meant is None:
        return said
    return f"{said}, mask IoU {masks.iou_matrix([drawn], [meant])[0, 0]:.3f}"


if __name__ == "__main__":
    run(main)

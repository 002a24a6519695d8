"""Reward presets as a run makes them, and what a preset pays a text: for the tests of rewards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from PIL import Image

from rollouts.reading import read, read_parts
from rollouts.sections import make_rewards
from segmentation.boxes import Box
from segmentation.decoders.filled_box import FilledBox
from segmentation.formats import BoxFormat, BrickFormat, Format, Reasoning
from segmentation.masks import from_box
from segmentation.sample import Invalid, Sample, Target, prediction_mask

FOLDER = Path(__file__).parents[1] / "configs" / "rewards"
SIZE = 128  # of the picture: bricks of two pixels, so that boxes at even pixels are written exactly


def asked(*boxes: Box, size: int = SIZE) -> Sample:
    """A sample whose targets are filled boxes."""
    targets = tuple(Target(box, from_box(box, size, size)) for box in boxes)
    return Sample("s", Image.new("RGB", (size, size)), size, size, "the red cup", targets)


@dataclass(frozen=True, slots=True)
class Preset:
    """`configs/rewards/<name>.yaml`, and a format that it is meant for."""

    rewards: dict[str, Callable]
    weights: list[float]
    paid: list[str]
    format: Format

    def values(self, text: str, sample: Sample, truncated: bool = False) -> dict[str, float | None]:
        """What each reward pays a completion, as the trainer would ask it."""
        prediction = read(text, truncated, sample, self.format, FilledBox())
        mask = prediction_mask(prediction, sample.height, sample.width)
        meant = self.format.regions(sample)
        columns = {
            "texts": [text],
            "parts": [read_parts(text, truncated, sample, self.format)],
            "completion_ids": [list(text.encode(errors="replace"))],
        }
        paid = {name: reward([prediction], [meant], [mask], **columns)[0] for name, reward in self.rewards.items()}
        return paid if not isinstance(prediction, Invalid) else self._broken(paid)

    def _broken(self, paid: dict[str, float | None]) -> dict[str, float | None]:
        """Of a broken text, only what pays all tokens applies (`rl.credit`)."""
        return {name: paid[name] if tokens == "all" else None for name, tokens in zip(paid, self.paid, strict=True)}

    def total(self, text: str, sample: Sample, truncated: bool = False) -> float:
        """The weighted sum that tokens outside masks are paid: they are where objects are chosen."""
        values = self.values(text, sample, truncated)
        return sum(
            weight * value
            for value, weight, tokens in zip(values.values(), self.weights, self.paid, strict=True)
            if value is not None and tokens != "mask"
        )


def preset(name: str, format: Format | None = None, *changes: str) -> Preset:
    """The preset of that name, with the format it is meant for unless another is given, and changes such as `a.b=1`."""
    section = OmegaConf.merge(OmegaConf.load(FOLDER / f"{name}.yaml"), OmegaConf.from_dotlist(list(changes)))
    assert isinstance(section, DictConfig)
    return Preset(
        *make_rewards({str(key): value for key, value in section.items()}), format or FORMATS.get(name, BoxFormat)()
    )


def _thinking() -> Format:
    return Reasoning(BoxFormat())


def _pointing() -> Format:
    return Reasoning(BoxFormat(point=True))


FORMATS: dict[str, Callable[[], Format]] = {
    "default": BoxFormat,
    "by_part": BrickFormat,
    "seg_zero": _pointing,
    "vision_reasoner": _pointing,
    "vlm_r1": _thinking,
    "lens": _thinking,
    "coprs": _thinking,
    "seg_r1": _thinking,
    "visual_rft": _thinking,
}

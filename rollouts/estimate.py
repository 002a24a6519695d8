"""An estimate of a GPU's memory, part by part, and its table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table

GIB = 2**30
Phase = Literal["always", "writing", "training"]


@dataclass(frozen=True, slots=True)
class Part:
    """Something that takes memory: its bytes on one GPU, when it is there, and how it was counted."""

    name: str
    bytes: int
    phase: Phase
    how: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """The parts, the card they are to fit (bytes, None where no card is known), and what else is wrong."""

    parts: tuple[Part, ...]
    card: int | None
    notes: tuple[str, ...]

    def of(self, phase: Phase) -> int:
        """Bytes that are there in a phase alone."""
        return sum(part.bytes for part in self.parts if part.phase == phase)

    @property
    def peak(self) -> int:
        """Writing completions and training on them take turns: what is always there, and the larger of the two."""
        return self.of("always") + max(self.of("writing"), self.of("training"))

    @property
    def fits(self) -> bool:
        return self.card is None or self.peak <= self.card


def show(said: Estimate, console: Console) -> None:
    """The table, and a warning for what will not work."""
    table = Table(title="memory of each GPU, estimated", title_justify="left", box=None, pad_edge=False)
    for name in ("part", "GiB", "when", "how"):
        table.add_column(name, justify="right" if name == "GiB" else "left")
    for part in said.parts:
        table.add_row(part.name, f"{part.bytes / GIB:.1f}", part.phase, part.how)
    card = "" if said.card is None else f"of {said.card / GIB:.1f}"
    table.add_row(
        "peak", f"{said.peak / GIB:.1f}", card, "always, and the larger of writing and training", style="bold"
    )
    console.print(table)
    if not said.fits:
        console.print(
            f"warning: {said.peak / GIB:.1f} GiB will not fit a card of {(said.card or 0) / GIB:.1f}. Lower "
            "trainer.per_device_train_batch_size (raising gradient_accumulation_steps), trainer.steps_per_generation, "
            "model.max_pixels or rollouts.vllm_gpu_memory_utilization; or take rollouts=transformers, LoRA, more GPUs.",
            style="yellow",
        )
    for note in said.notes:
        console.print(f"warning: {note}", style="yellow")

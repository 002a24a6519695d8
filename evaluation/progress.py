"""The bar of a running evaluation: how many samples are answered, and the cIoU so far."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segmentation.metrics import Evaluator
from segmentation.protocols import Protocol
from segmentation.sample import Prediction, Sample, prediction_mask


class RunningScore:
    """A bar over the samples that one process answers, with their cIoU under the protocol; use it as a context manager.

    The cIoU is of this process's answers until now, those of a run before this one included.

    Args:
        title: stands before the bar.
        total: how many samples there are.
        quiet: show nothing.
    """

    def __init__(self, title: str, total: int, protocol: Protocol, quiet: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[seen]}"), disable=quiet)
        self._bar = self._progress.add_task(title, total=total, seen="")
        self._evaluator = Evaluator(protocol)
        self._intersection = self._union = 0
        self._masks = True

    def add(self, sample: Sample, prediction: Prediction) -> None:
        """Count an answer."""
        mask = prediction_mask(prediction, sample.height, sample.width)
        row = self._evaluator.add(sample, prediction, mask)
        if row.intersection is None or row.union is None:
            self._masks = False  # of the rest alone it would be of a chosen part (`segmentation.figures`)
        else:
            self._intersection, self._union = self._intersection + row.intersection, self._union + row.union
        seen = f"cIoU {self._intersection / self._union:.4f}" if self._masks and self._union else ""
        self._progress.update(self._bar, advance=1, seen=seen)

    def __enter__(self) -> RunningScore:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

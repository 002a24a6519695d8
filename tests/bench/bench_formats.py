"""What each format costs and keeps on real masks: the oracle table and the frontier of tokens against mask quality.

    REFSEG_DATA=/data python tests/bench/bench_formats.py --plot frontier.png

For each format: tokens of the whole completion and of the mask alone (between `<seg>` and `</seg>`), with the real
tokenizers of Qwen2.5 and Qwen3 and the format's own tokens added; mIoU and cIoU of the masks read back; objects that
vanished; and the mIoU that is left when one random brick is replaced by another of its kind.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[2]))

from segmentation import masks
from segmentation.decoders import FilledBox
from segmentation.formats import BoxFormat, BrickFormat, DescriptorFormat, Format
from segmentation.metrics import Overlap, overlap
from segmentation.sample import Sample, prediction_mask
from tests.real_objects import SETS, real_objects

TOKENIZERS = {"Qwen2.5": "tokenizers/qwen2_5", "Qwen3": "tokenizers/qwen3"}
TRIMMED = "rows over the box, trimmed"  # no such format exists: its text is only counted, to see what it would cost
FORMATS: dict[str, dict[int, Format]] = {
    "box, filled": {0: BoxFormat()},
    "Text4Seg, R-RLE": {n: DescriptorFormat(n) for n in (16, 24, 32, 64)},
    "Text4Seg, I-RLE": {n: DescriptorFormat(n, "image") for n in (16, 32)},
    "Text4Seg, no RLE": {16: DescriptorFormat(16, "none")},
    "Text4Seg++, bricks": {n: BrickFormat(n) for n in (16, 24, 32, 48, 64, 80)},
    "Text4Seg++, wrapped": {n: BrickFormat(n, code="wrapped") for n in (32, 64)},
    "rows over the box": {n: BrickFormat(n, scope="box") for n in (8, 12, 16, 24, 32, 40)},
    TRIMMED: {n: BrickFormat(n, scope="box") for n in (8, 12, 16, 24, 32, 40)},
    "columns of 32": {n: BrickFormat(32, scope="box", code="columns", columns=n) for n in (8, 12, 16, 24)},
    "columns of 64 (bricks_box)": {
        n: BrickFormat(scope="box", code="columns", columns=n) for n in (6, 8, 10, 12, 16, 20, 24, 32)
    },
}
FRONTIER = ("Text4Seg, R-RLE", *list(FORMATS)[4:])  # plotted
BRICK = re.compile(r"<(?:fg|bg)[0-9]+>")
DRAWN = re.compile(r"<seg>(.*?)</seg>", re.DOTALL)


@dataclass(frozen=True)
class Kept:
    """One format of one size on one set. Tokens are means; quality in percent."""

    name: str
    size: int
    whole: dict[str, float]
    drawn: dict[str, float]
    drawn_95: float
    miou: float
    ciou: float
    vanished: int
    damaged: float | None


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    data = Path(os.environ["REFSEG_DATA"])
    results = {}
    for name, path in SETS.items():
        samples = list(real_objects(data / path))
        pairs = [(kind, size, form) for kind, sizes in FORMATS.items() for size, form in sizes.items()]
        results[name] = [measure(kind, size, form, samples, data) for kind, size, form in track(pairs, name)]
        Console(width=140).print(table(name, results[name]))
    if args.plot:
        plot(results, args.plot)


def table(name: str, rows: list[Kept]) -> Table:
    """A line a format and size."""
    out = Table(title=f"{name}: tokens with Qwen2.5 / Qwen3")
    for title in ("format", "N", "completion", "mask", "p95", "mIoU", "cIoU", "vanished", "mIoU, one brick wrong"):
        out.add_column(title, justify="left" if title == "format" else "right")
    for r in rows:
        tokens = [" / ".join(f"{count:.1f}" for count in part.values()) for part in (r.whole, r.drawn)]
        quality = f"{r.drawn_95:.0f}", f"{r.miou:.2f}", f"{r.ciou:.2f}", str(r.vanished)
        out.add_row(r.name, str(r.size or ""), *tokens, *quality, "" if r.damaged is None else f"{r.damaged:.2f}")
    return out


def measure(name: str, size: int, form: Format, samples: list[Sample], data: Path) -> Kept:
    """A format on every sample."""
    rng = random.Random(0)
    texts = [form.encode(sample) for sample in samples]
    drawn = [DRAWN.search(text) for text in texts]
    bodies = [body[1] if body else "" for body in drawn]
    whole, parts, longest = {}, {}, 0.0
    for key, path in TOKENIZERS.items():
        tokenizer = AutoTokenizer.from_pretrained(data / path)
        tokenizer.add_tokens(list(form.new_tokens))
        completions = [len(ids) for ids in tokenizer(texts)["input_ids"]]
        lengths = [len(ids) for ids in tokenizer(bodies)["input_ids"]]
        if name == TRIMMED:
            shorter = [trimmed(body) for body in bodies]
            completions = [c - n + s for c, n, s in zip(completions, lengths, shorter, strict=True)]
            lengths = shorter
        whole[key] = float(np.mean(completions))
        parts[key], longest = float(np.mean(lengths)), max(longest, float(np.percentile(lengths, 95)))
    seen = [score(form, text, sample) for text, sample in zip(texts, samples, strict=True)]
    damaged = None
    if isinstance(form, BrickFormat) and name != TRIMMED:
        damaged = miou([score(form, broken(form, t, rng), s) for t, s in zip(texts, samples, strict=True)])
    ciou = 100 * sum(one.intersection for one in seen) / sum(one.union for one in seen)
    vanished = sum(one.predicted == 0 for one in seen)
    return Kept(name, size, whole, parts, longest, miou(seen), ciou, vanished, damaged)


def miou(seen: list[Overlap]) -> float:
    """Mean IoU, in percent."""
    return 100 * float(np.mean([one.intersection / one.union for one in seen]))


def trimmed(body: str) -> int:
    """Tokens of rows without the background at their ends, rows like the one before as one token for all of them."""
    count, before, repeating = 0, "", False
    for row in [re.sub(r"<bg[0-9]+>$", "", row) for row in body.split("<row>")]:
        if row == before:
            count += not repeating
        else:
            count += row.count("<") + 1
        before, repeating = row, row == before
    return count


def score(form: Format, text: str, sample: Sample) -> Overlap:
    """What a text's mask covers; one that is Invalid covers nothing."""
    height, width = sample.height, sample.width
    prediction = FilledBox().fill(form.parse(text, height, width), height, width)
    seen = overlap(sample, prediction_mask(prediction, height, width) or masks.empty(height, width))
    assert seen is not None
    return seen


def broken(form: BrickFormat, text: str, rng: random.Random) -> str:
    """One brick replaced by another of its kind, as a policy errs."""
    brick = rng.choice(list(BRICK.finditer(text)))
    kind = brick[0][:3]
    others = [token for token in form.new_tokens if token.startswith(kind) and token != brick[0]]
    return text[: brick.start()] + rng.choice(others) + text[brick.end() :]


def plot(results: dict[str, list[Kept]], path: Path) -> None:
    """Tokens on x, mIoU on y, a line a format."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(5.5 * len(results), 4), layout="constrained")
    for axis, (name, rows) in zip(axes, results.items(), strict=True):
        for kind in FRONTIER:
            line = [(r.drawn["Qwen2.5"], r.miou, r.size) for r in rows if r.name == kind]
            axis.plot([x for x, _, _ in line], [y for _, y, _ in line], "o-", markersize=4, label=kind)
        for x, y, size in [(r.drawn["Qwen2.5"], r.miou, r.size) for r in rows if r.name == FRONTIER[-1]]:
            axis.annotate(str(size), (x, y), (2, 5), textcoords="offset points", fontsize=7)
        axis.set(title=name, xlabel="tokens of a mask", ylabel="mIoU of the mask read back", xlim=(0, 200))
        axis.grid(alpha=0.25)
    axes[0].set_ylim(bottom=86)
    axes[-1].legend(fontsize=8, loc="center right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

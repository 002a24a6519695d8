"""What each brick code costs and keeps on real masks.

    REFSEG_DATA=/data python tests/bench/bench_bricks.py --plot bricks.png

For each code and size: mean and 95th percentile of the tokens between `<seg>` and `</seg>`, mIoU and cIoU of the masks
read back, objects that vanished, and the mIoU that is left when one random brick is replaced by another of its kind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))

from segmentation import masks
from segmentation.formats import BrickFormat
from segmentation.sample import Found, Sample, Target

SETS = {
    "refer_mini": "refer_mini/refcoco/instances.json",
    "coco128": "coco128/annotations/instances_train2017.json",
}
CODES = {
    "rows over the image (Text4Seg++)": [BrickFormat(n) for n in (16, 24, 32, 48, 64, 80)],
    "rows over the box": [BrickFormat(n, scope="box") for n in (8, 12, 16, 24, 32, 40)],
    "columns over the box": [
        BrickFormat(64, scope="box", code="columns", columns=n) for n in (6, 8, 10, 12, 16, 20, 24, 32)
    ],
    "columns of 32 cells": [
        BrickFormat(32, scope="box", code="columns", columns=n) for n in (6, 8, 10, 12, 16, 20, 24, 32)
    ],
}
BRICK = re.compile(r"<(?:fg|bg|row|col)[0-9]*>")


@dataclass(frozen=True)
class Kept:
    """One code on one set."""

    code: str
    size: int
    tokens: float
    tokens_95: float
    miou: float
    ciou: float
    vanished: int
    damaged: float


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    data = Path(os.environ["REFSEG_DATA"])
    results = {name: list(measure(list(real_objects(data / path)))) for name, path in SETS.items()}
    for name, rows in results.items():
        table = Table(title=name)
        for title in ("code", "size", "tokens", "p95", "mIoU", "cIoU", "vanished", "mIoU, one brick wrong"):
            table.add_column(title, justify="left" if title == "code" else "right")
        for r in rows:
            figures = f"{r.tokens:.1f}", f"{r.tokens_95:.0f}", f"{r.miou:.2f}", f"{r.ciou:.2f}", str(r.vanished)
            table.add_row(r.code, str(r.size), *figures, f"{r.damaged:.2f}")
        Console(width=120).print(table)
    if args.plot:
        plot(results, args.plot)


def real_objects(annotations: Path) -> Iterator[Sample]:
    """A sample for each polygon annotation with a pixel."""
    content = json.loads(annotations.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for annotation in content["annotations"]:
        if annotation["iscrowd"]:
            continue
        height, width = sizes[annotation["image_id"]]
        rle = masks.from_polygons(annotation["segmentation"], height, width)
        box = masks.box(rle)
        if box:
            target = Target(box, rle)
            yield Sample(str(annotation["id"]), Image.new("RGB", (1, 1)), height, width, "it", (target,))


def measure(samples: list[Sample]) -> Iterator[Kept]:
    """Every code of every size."""
    for code, forms in CODES.items():
        for form in forms:
            rng = random.Random(0)
            tokens, areas, damaged = [], [], []
            for sample in samples:
                text = form.encode(sample)
                tokens.append(len(BRICK.findall(text)))
                areas.append(overlap(form, text, sample))
                damaged.append(overlap(form, broken(form, text, rng), sample))
            seen = np.array(areas)  # (objects, 3): intersection, union, predicted
            yield Kept(
                code,
                form.columns,
                float(np.mean(tokens)),
                float(np.percentile(tokens, 95)),
                100 * float(np.mean(seen[:, 0] / seen[:, 1])),
                100 * float(seen[:, 0].sum() / seen[:, 1].sum()),
                int((seen[:, 2] == 0).sum()),
                100 * float(np.mean([i / u for i, u, _ in damaged])),
            )


def overlap(form: BrickFormat, text: str, sample: Sample) -> tuple[int, int, int]:
    """Intersection, union and predicted pixels; a text that is Invalid predicts none."""
    prediction = form.parse(text, sample.height, sample.width)
    truth = sample.mask
    assert truth is not None
    if not isinstance(prediction, Found):
        return 0, masks.area(truth), 0
    mask = prediction.instances[0].mask
    assert mask is not None
    predicted, wanted = masks.area(mask), masks.area(truth)
    union = masks.area(masks.union([mask, truth], sample.height, sample.width))
    return predicted + wanted - union, union, predicted


def broken(form: BrickFormat, text: str, rng: random.Random) -> str:
    """One brick replaced by another of its kind, as a policy errs."""
    bricks = [brick for brick in BRICK.finditer(text) if brick[0] not in ("<row>", "<col>")]
    brick = rng.choice(bricks)
    kind = brick[0][1:3]
    others = [token for token in form.new_tokens if token[1:3] == kind and token != brick[0] and token != "<col>"]
    return text[: brick.start()] + rng.choice(others) + text[brick.end() :]


def plot(results: dict[str, list[Kept]], path: Path) -> None:
    """Tokens on x, mIoU on y, a line a code."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(5.5 * len(results), 4), layout="constrained")
    for axis, (name, rows) in zip(axes, results.items(), strict=True):
        for code in CODES:
            line = [row for row in rows if row.code == code]
            axis.plot([r.tokens for r in line], [r.miou for r in line], "o-", markersize=4, label=code)
            for r in line:
                axis.annotate(str(r.size), (r.tokens, r.miou), (3, -9), textcoords="offset points", fontsize=7)
        axis.set(title=name, xlabel="tokens of a mask", ylabel="mIoU of the mask read back")
        axis.set_xlim(0, 180)
        axis.grid(alpha=0.25)
    axes[0].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

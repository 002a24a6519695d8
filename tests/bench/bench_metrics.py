"""How fast a benchmark as large as RefCOCO's val is scored, on one core:

    OMP_NUM_THREADS=1 python tests/bench/bench_metrics.py

Writes 10,834 predictions of 480x640, scores them as evaluation/score.py does under each protocol, every figure with its
interval, and prints processor seconds and the peak memory of the process. The comparison is a loop over pixels.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from evaluation.compare import compare
from evaluation.predictions import PredictionWriter, Record
from evaluation.score import score_file
from segmentation import masks
from segmentation.metrics import Evaluator
from segmentation.protocols import Lisa, named
from segmentation.sample import Found, Instance, Invalid, NoTarget, Sample, Target

H, W, COUNT, SHAPES = 480, 640, 10_834, 100
NAMES = ("lisa", "rela", "gsva", "rmsin", "vision_reasoner", "muse", "ors")


def shapes(seed: int) -> list[Instance]:
    """Objects with a wavy outline, about as large as RefCOCO's; the same seed gives the same."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W]
    made = []
    for _ in range(SHAPES):
        dy, dx = y - rng.uniform(100, H - 100), x - rng.uniform(100, W - 100)
        wave = 1 + 0.15 * np.sin(rng.integers(3, 20) * np.arctan2(dy, dx))
        rle = masks.encode((dy / rng.uniform(30, 200)) ** 2 + (dx / rng.uniform(20, 150)) ** 2 < wave)
        made.append(Instance(masks.box(rle), rle))
    return made


def benchmark() -> list[Sample]:
    """One target each, three in a tenth of the samples, none in another, ignored pixels in a third."""
    truths = [Target(one.box, one.mask) for one in shapes(0) if one.box]
    ignored = [one.mask for one in shapes(1)]
    image, samples = Image.new("RGB", (1, 1)), []
    for i in range(COUNT):
        targets = () if i % 10 == 0 else tuple(truths[(i + j) % SHAPES] for j in range(3 if i % 10 == 1 else 1))
        out = ignored[i * 7 % SHAPES] if i % 3 == 0 else None
        samples.append(Sample(str(i), image, H, W, "the dog on the left", targets, ignore=out))
    return samples


def write(folder: Path, samples: list[Sample]) -> None:
    said = shapes(2)
    print(f"masks of {np.mean([len(one.mask['counts']) for one in said if one.mask]):.0f} characters on average")
    with PredictionWriter(folder / "predictions.jsonl", {}) as writer:
        for i, sample in enumerate(samples):
            answer = Invalid("no box") if i % 50 == 2 else NoTarget() if i % 20 == 0 else None
            count = 3 if i % 10 == 1 else 1
            answer = answer or Found(tuple(said[(i * 3 + j) % SHAPES] for j in range(count)))
            writer.write(Record.of(sample, answer, "[{...}]", 30))


def score(folder: Path) -> None:
    """In a process of its own, so that its memory is that of scoring alone."""
    samples = benchmark()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name in NAMES:
        start = time.process_time()
        metrics = score_file(folder / "predictions.jsonl", samples, Evaluator(named(name)))
        seconds = time.process_time() - start
        print(f"{name:16} {seconds:6.2f} s, gIoU {metrics['gIoU']:.6f}, {metrics['n_scored']:,} samples")
    start = time.process_time()
    compare(folder / "predictions.jsonl", folder / "predictions.jsonl", samples, Lisa())
    print(f"{'compare':16} {time.process_time() - start:6.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:,.0f} MB (with the samples and before scoring: {before:,.0f} MB)")


def dense() -> None:
    """I and U of one pair, by a loop over pixels and by arrays, for every sample of a benchmark of that size."""
    truth, mask = (masks.decode(shapes(seed)[0].mask) for seed in (0, 2))  # type: ignore[arg-type]
    start = time.process_time()
    for _ in range(3):
        inter = union = 0
        for row, other in zip(truth.tolist(), mask.tolist(), strict=True):
            for meant, painted in zip(row, other, strict=True):
                inter += meant and painted
                union += meant or painted
    seconds = (time.process_time() - start) / 3 * COUNT
    print(f"loop over pixels {seconds:6.0f} s, intersection and union alone, extrapolated from 3 pairs")
    rles = [masks.encode(truth), masks.encode(mask)]
    start = time.process_time()
    for _ in range(200):
        first, second = (masks.decode(rle) for rle in rles)
        inter, union = np.logical_and(first, second).sum(), np.logical_or(first, second).sum()
    seconds = (time.process_time() - start) / 200 * COUNT
    print(f"arrays           {seconds:6.1f} s, intersection and union alone, extrapolated from 200 pairs")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        score(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), benchmark())
            subprocess.run([sys.executable, __file__, folder], check=True)
        dense()

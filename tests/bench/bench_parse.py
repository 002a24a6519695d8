"""How fast completions are read, on one core: `OMP_NUM_THREADS=1 python tests/bench/bench_parse.py`.

Prints completions per second of processor time for what a reward does with a completion, the median time of a parse of
4,000 characters, and the time of a parse by its length, which must grow in proportion.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from segmentation import boxes, masks
from segmentation.decoders import FilledBox
from segmentation.formats import BoxFormat, BrickFormat
from segmentation.formats.base import Format
from segmentation.matching import matched_mean
from segmentation.sample import Found, Sample, Target

H, W = 480, 640


def drawings(objects: int, count: int = 40) -> list[Sample]:
    """Samples of elliptic objects with a wavy outline, about as large as RefCOCO's."""
    rng = np.random.default_rng(objects)
    y, x = np.mgrid[:H, :W]
    samples = []
    for number in range(count):
        targets = []
        for _ in range(objects):
            dy, dx = y - rng.uniform(150, H - 150), x - rng.uniform(150, W - 150)
            wave = 1 + 0.15 * np.sin(rng.integers(3, 9) * np.arctan2(dy, dx))
            rle = masks.encode((dy / rng.uniform(90, 220)) ** 2 + (dx / rng.uniform(60, 160)) ** 2 < wave)
            box = masks.box(rle)
            assert box is not None
            targets.append(Target(box, rle))
        samples.append(Sample(str(number), Image.new("RGB", (1, 1)), H, W, "the dog on the left", tuple(targets)))
    return samples


def rate(work: Callable[[str, Sample], object], texts: Sequence[str], samples: Sequence[Sample]) -> float:
    """Completions per second of processor time, the best of seven rounds."""
    best = float("inf")
    for _ in range(7):
        start = time.process_time()
        for _ in range(5):
            for text, sample in zip(texts, samples, strict=True):
                work(text, sample)
        best = min(best, time.process_time() - start)
    return 5 * len(texts) / best


def read(form: Format, text: str) -> Found:
    prediction = form.parse(text, H, W)
    assert isinstance(prediction, Found), prediction
    return prediction


def box_reward(form: Format, text: str, sample: Sample) -> float:
    return matched_mean(boxes.iou_matrix(read(form, text).boxes, [target.box for target in sample.targets]))


def mask_reward(form: Format, text: str, sample: Sample) -> float:
    mask, truth = read(form, text).instances[0].mask, sample.targets[0].mask
    assert mask and truth
    return float(masks.iou_matrix([mask], [truth])[0, 0])


def filled_reward(form: Format, text: str, sample: Sample) -> float:
    filled = FilledBox().fill(read(form, text), H, W)
    assert isinstance(filled, Found)
    mask, truth = filled.instances[0].mask, sample.targets[0].mask
    assert mask and truth
    return float(masks.iou_matrix([mask], [truth])[0, 0])


def throughput() -> None:
    one, three = drawings(1), drawings(3)
    box, image, local = BoxFormat(), BrickFormat(), BrickFormat(scope="box")
    columns = BrickFormat(scope="box", code="columns")
    rows = [
        ("boxes, 3 objects: parsed", box, three, lambda text, sample: read(box, text)),
        ("boxes, 3 objects: parsed and matched", box, three, lambda text, sample: box_reward(box, text, sample)),
        ("box: parsed, filled and scored", box, one, lambda text, sample: filled_reward(box, text, sample)),
        ("bricks, image 64: parsed and decoded", image, one, lambda text, sample: read(image, text)),
        ("bricks, image 64: and scored", image, one, lambda text, sample: mask_reward(image, text, sample)),
        ("bricks, box 24: parsed and decoded", local, one, lambda text, sample: read(local, text)),
        ("bricks, box 24: and scored", local, one, lambda text, sample: mask_reward(local, text, sample)),
        ("bricks, columns: parsed and decoded", columns, one, lambda text, sample: read(columns, text)),
        ("bricks, columns: and scored", columns, one, lambda text, sample: mask_reward(columns, text, sample)),
    ]
    for name, form, samples, work in rows:
        texts = [form.encode(sample) for sample in samples]
        print(f"{name:40} {rate(work, texts, samples):8,.0f}/s")


def by_length() -> None:
    box, image, local = BoxFormat(), BrickFormat(max_instances=10**6), BrickFormat(scope="box", max_instances=10**6)
    many = BoxFormat(max_instances=10**6)
    kinds = {
        "valid boxes": (many, '[{"bbox_2d": [1, 2, 3, 4]}', ', {"bbox_2d": [100, 200, 300, 400]}', "]"),
        "valid bricks, image 64": (image, "", image.encode(drawings(1, 1)[0]), ""),
        "valid bricks, box 24": (local, "", local.encode(drawings(1, 1)[0]), ""),
        "one long broken row": (image, "<ref>roi0</ref><box>[[0 0 64 64]]</box><seg>", "<fg1>", "</seg>"),
        "blanks": (box, "[", " ", "x"),
        "prose": (box, "", "The dog is in the middle. ", ""),
    }
    print(f"\n{'time of a parse, in ms, of characters:':40} {'1,000':>8} {'4,000':>8} {'100,000':>8} {'1,000,000':>9}")
    for name, (form, head, body, tail) in kinds.items():
        cells = []
        for length in (1_000, 4_000, 100_000, 1_000_000):
            text = head + body * max(1, round((length - len(head) - len(tail)) / len(body))) + tail
            times = []
            for _ in range(200 if length <= 4_000 else 3):
                start = time.process_time()
                form.parse(text, H, W)
                times.append(time.process_time() - start)
            cells.append(1000 * statistics.median(times))
        print(f"{name:40} {cells[0]:8.3f} {cells[1]:8.3f} {cells[2]:8.2f} {cells[3]:9.1f}")


if __name__ == "__main__":
    throughput()
    by_length()

"""How fast datasets are read, on one core: `OMP_NUM_THREADS=1 python tests/bench/bench_data.py`.

Writes files of RefCOCO's true size (50,000 refs, 142,210 sentences, 196,771 annotations; the pickle in protocol 0, the
slowest to read) and the same refs as gRefCOCO's JSON, and prints seconds of processor time and the peak of memory for
what a command does with them, each in a process of its own. No image exists: none is opened.
"""

import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

REFS, SENTENCES, ANNOTATIONS, IMAGES = 50_000, 142_210, 196_771, 19_994
WORDS = ("man", "woman", "left", "right", "red", "shirt", "in", "of", "with", "dog", "giraffe", "chair", "middle")

MEASURE = """
import re, sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from segmentation.data.export import export
from segmentation.data.grefcoco import GRefCOCO
from segmentation.data.jsonl import Jsonl
from segmentation.data.mixture import Mixture
from segmentation.data.refer import Refer
root = Path(sys.argv[1])
start = time.process_time()
done = {}
seconds = time.process_time() - start
# Not getrusage: its peak includes the process that started this one.
print(done, round(seconds, 2), int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""
WORK = {
    "RefCOCO: files to a dataset": "len(Refer(root, split='train'))",
    "RefCOCO: and every sample with its mask": "sum(1 for _ in Refer(root, split='train'))",
    "gRefCOCO: files to a dataset": "len(GRefCOCO(root, 'train'))",
    "mixture of both, leaks dropped": "len(Mixture({'a': Refer(root, split='train'), 'b': GRefCOCO(root, 'train')}))",
    "RefCOCO: exported as JSONL": "export(Refer(root, split='train'), root / 'all.jsonl', root)",
    "JSONL: file to a dataset": "len(Jsonl(root, 'all.jsonl'))",
    "JSONL: and every sample": "sum(1 for _ in Jsonl(root, 'all.jsonl'))",
}


def write_full_size(root: Path) -> None:
    """A refs/instances pair of RefCOCO's true size, and the same refs as gRefCOCO's. All of it is `train`."""
    rng = np.random.default_rng(0)
    images = [
        {
            "id": i,
            "file_name": f"COCO_train2014_{i:012d}.jpg",
            "height": 480,
            "width": 640,
            "date_captured": "2013-11-14",
        }
        for i in range(IMAGES)
    ]
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    ring = np.stack([320 + 100 * np.cos(angles), 240 + 90 * np.sin(angles)], 1).ravel()
    annotations = [
        {
            "id": i,
            "image_id": i % IMAGES,
            "category_id": 1,
            "bbox": [220.5, 150.25, 200.0, 180.5],
            "area": 28274.33,
            "iscrowd": 0,
            "segmentation": [np.round(ring + rng.normal(0, 3, 60), 2).tolist() for _ in range(1 + (i % 5 == 0))],
        }
        for i in range(ANNOTATIONS)
    ]
    refs, numbers = [], iter(range(SENTENCES))
    for i in range(REFS):
        sentences = []
        for number in [next(numbers) for _ in range(3 if i < SENTENCES - 2 * REFS else 2)]:
            tokens = rng.choice(WORDS, rng.integers(1, 7)).tolist()
            text = " ".join(tokens)
            sentences.append({"tokens": tokens, "raw": text, "sent": text, "sent_id": number})
        ids = {"ref_id": i, "ann_id": 3 * i, "image_id": 3 * i % IMAGES, "category_id": 1}
        refs.append({**ids, "split": "train", "file_name": f"COCO_{i}.jpg", "sentences": sentences})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cup"}]}
    for name in ("refcoco", "grefcoco"):
        (root / name).mkdir()
        (root / name / "instances.json").write_text(json.dumps(content))
    (root / "refcoco/refs(unc).p").write_bytes(pickle.dumps(refs, 0))
    grefs = [{**ref, "ann_id": [ref["ann_id"]]} for ref in refs]
    (root / "grefcoco/grefs(unc).json").write_text(json.dumps(grefs))


def measure(root: Path, work: str) -> tuple[int, float, int]:
    """What the work counts, its seconds of processor time, and the process's peak of memory in MiB."""
    command = [sys.executable, "-c", MEASURE.replace("{}", work), str(root), str(Path(__file__).parents[2])]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    count, seconds, mebibytes = said.split()
    return int(count), float(seconds), int(mebibytes)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_full_size(Path(folder))
        for name, work in WORK.items():
            count, seconds, mebibytes = measure(Path(folder), work)
            print(f"{name:42} {count:8,} {seconds:7.2f} s {mebibytes:6,} MiB", flush=True)


if __name__ == "__main__":
    main()

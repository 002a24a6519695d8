"""predictions.jsonl: lossless, resumable after a kill, strict about bad lines; and scored from it to the last digit."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluation.predictions import BadPredictions, PredictionWriter, Record, read_predictions, read_run
from evaluation.score import score_file, summarise, write_metrics
from segmentation import masks
from segmentation.data.scenes import Scenes
from segmentation.metrics import Evaluator
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample, prediction_mask

RUN = {"format": {"_target_": "BoxFormat"}, "checkpoint": "outputs/sft", "sizes": (1, 2)}


def answers(samples: list[Sample], seed: int = 0) -> list[Prediction]:
    """Answers of every state, with boxes that no short decimal can write."""
    rng = np.random.default_rng(seed)
    made: list[Prediction] = []
    for index in range(len(samples)):
        if index % 5 == 0:
            made.append(Invalid('position 3: "]" expected\n, found é\ud800'))
        elif index % 5 == 1:
            made.append(NoTarget())
        else:
            corners = [(x, y, x + w, y + h) for x, y, w, h in rng.uniform(1, 31, size=(index % 5 - 1, 4)).tolist()]
            named = (
                Instance(box, masks.from_box(box, 64, 64), f"thing {index}" if index % 2 else None, index / 7)
                for box in corners
            )
            made.append(Found(tuple(named)))
    return made


def records(count: int) -> tuple[list[Sample], list[Record]]:
    samples = list(Scenes("val", length=count))
    made = [
        Record.of(asked, answer, f"text {index} \u2028\n", index)
        for index, (asked, answer) in enumerate(zip(samples, answers(samples), strict=True))
    ]
    return samples, made


def write(path: Path, items: list[Record]) -> None:
    with PredictionWriter(path, RUN) as writer:
        for record in items:
            writer.write(record)


def test_what_is_written_is_read(tmp_path: Path):
    _, made = records(40)
    write(tmp_path / "out" / "predictions.jsonl", made)
    assert list(read_predictions(tmp_path / "out" / "predictions.jsonl")) == made
    assert read_run(tmp_path / "out" / "predictions.jsonl") == json.loads(json.dumps(RUN))


def test_boxes_without_masks_are_read_without_masks(tmp_path: Path):
    (asked,) = Scenes("val", length=1)
    answer = Found((Instance((0.0, 0.0, 4.0, 4.0)), Instance((1.0, 0.0, 4.0, 4.0))))
    write(tmp_path / "p.jsonl", [Record.of(asked, answer, "", 0)])
    (record,) = read_predictions(tmp_path / "p.jsonl")
    assert (record.prediction, record.mask) == (answer, None)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path):
    path = tmp_path / "predictions.jsonl"
    _, made = records(9)
    write(path, made)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in [0, 1, *(end + shift for end in ends for shift in (-1, 0, 1) if end + shift < len(whole))]:
        path.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends)
        with PredictionWriter(path, RUN) as writer:
            assert writer.finished == {record.id for record in made[:kept]}
            for record in made:
                if record.id not in writer.finished:
                    writer.write(record)
        assert path.read_bytes() == whole


def test_each_line_is_with_the_system_once_written(tmp_path: Path):
    path = tmp_path / "predictions.jsonl"
    _, made = records(3)
    writer = PredictionWriter(path, RUN)
    for number, record in enumerate(made, 1):
        writer.write(record)
        assert list(read_predictions(path)) == made[:number]  # nothing waits for close


def test_a_sample_is_written_once(tmp_path: Path):
    _, made = records(2)
    with PredictionWriter(tmp_path / "p.jsonl", RUN) as writer:
        writer.write(made[0])
        with pytest.raises(ValueError, match=f"sample {made[0].id} is already in it"):
            writer.write(made[0])


def test_a_folder_belongs_to_one_run(tmp_path: Path):
    _, made = records(2)
    write(tmp_path / "predictions-0-of-2.jsonl", made[:1])
    write(tmp_path / "predictions-1-of-2.jsonl", made[1:])
    for name in ("predictions-0-of-2.jsonl", "predictions.jsonl"):
        with pytest.raises(BadPredictions, match=r"checkpoint differ; checkpoint was 'outputs/sft', is 'outputs/grpo'"):
            PredictionWriter(tmp_path / name, RUN | {"checkpoint": "outputs/grpo"})


def spoil(**changes) -> bytes:
    """A sound line of two boxes with some of its values changed."""
    (asked,) = Scenes("val", length=1)
    box = masks.from_box((0, 0, 4, 4), 64, 64)
    row = {"id": asked.id, "dataset": "scenes", "split": "val", "expression": "it", "text": "t", "tokens": 3}
    row |= {"state": "found", "reason": None, "boxes": [[0, 0, 4, 4], [1, 0, 4, 4]], "labels": None, "scores": None}
    row |= {"mask": box, "masks": [box, box]} | changes
    return json.dumps({key: value for key, value in row.items() if value != "gone"}).encode() + b"\n"


def test_the_sound_line_is_read(tmp_path: Path):
    (tmp_path / "p.jsonl").write_bytes(spoil())
    assert len(list(read_predictions(tmp_path / "p.jsonl"))) == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{\n", "Expecting property name"),
        (b"[1]\n", "this is a list"),
        (spoil()[:-1], "half-written"),
        (spoil(id="gone"), "'id' is None, not a str"),
        (spoil(tokens="3"), "'tokens' is '3', not a int"),
        (spoil(state="seen"), "state 'seen' with 2 boxes"),
        (spoil(state="found", boxes=[]), "state 'found' with 0 boxes"),
        (spoil(state="no_target"), "state 'no_target' with 2 boxes"),
        (spoil(state="invalid", boxes=[]), "'reason' is None"),
        (spoil(boxes=[[0, 0, 4]]), "a box is 4 numbers"),
        (spoil(boxes=[[0, 0, 4, float("nan")]]), "not finite"),
        (spoil(masks=[None]), "one value for each of 2 boxes"),
        (spoil(mask=[1, 2]), "a mask is"),
        (spoil(mask={"size": [64, 64], "counts": "0"}), "runs cover 0 of the 4096 pixels"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, problem: str):
    path = tmp_path / "p.jsonl"
    path.write_bytes(spoil(id="first") + line)
    with pytest.raises(BadPredictions, match=r"p\.jsonl, line 2: ") as error:
        list(read_predictions(path))
    assert problem in str(error.value)


def test_an_id_twice_is_named(tmp_path: Path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(spoil(id="a") + spoil(id="b") + spoil(id="a"))
    with pytest.raises(BadPredictions, match="line 3: sample a was on an earlier line"):
        list(read_predictions(path))


def test_metrics_come_back_to_the_last_digit(tmp_path: Path):
    samples, made = records(50)
    evaluator = Evaluator(n_expected=50)
    for asked, record in zip(samples, made, strict=True):
        evaluator.add(
            asked, record.prediction, prediction_mask(record.prediction, asked.height, asked.width), record.tokens
        )
    write(tmp_path / "p.jsonl", made[::-1])
    again = score_file(tmp_path / "p.jsonl", Scenes("val", length=50), Evaluator())
    write_metrics(summarise(evaluator), tmp_path / "direct.json")
    write_metrics(again, tmp_path / "again.json")
    assert (tmp_path / "direct.json").read_bytes() == (tmp_path / "again.json").read_bytes()
    assert again["n_expected"] == again["n_scored"] == 50
    assert again["mean_tokens"] == 24.5
    low, high = again["gIoU_interval"]
    assert low < again["gIoU"] < high


def test_missing_and_foreign_samples_are_errors(tmp_path: Path):
    samples, made = records(6)
    write(tmp_path / "p.jsonl", made[1:])
    with pytest.raises(BadPredictions, match=f"1 samples have no prediction, the first is {samples[0].id}"):
        score_file(tmp_path / "p.jsonl", samples, Evaluator())
    with pytest.raises(BadPredictions, match="3 samples are predicted and not in the dataset"):
        score_file(tmp_path / "p.jsonl", samples[1:3], Evaluator())


def test_score_is_a_command(tmp_path: Path):
    _, made = records(12)
    write(tmp_path / "predictions.jsonl", made)
    command = [sys.executable, "evaluation/score.py", f"predictions={tmp_path}/predictions.jsonl"]
    root = Path(__file__).parent.parent
    (tmp_path / "elsewhere").mkdir()
    expected = score_file(tmp_path / "predictions.jsonl", Scenes("val", length=12), Evaluator())
    for output, told in (("metrics.json", ()), ("elsewhere/m.json", (f"output={tmp_path}/elsewhere/m.json",))):
        subprocess.run([*command, "benchmark.length=12", *told], cwd=root, env={"PYTHONPATH": str(root)}, check=True)
        assert json.loads((tmp_path / output).read_text()) == expected

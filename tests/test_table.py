"""evaluation/table.py: the papers' columns, the papers' lines as they print them, and this project's beside them."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs import ConfigError
from evaluation.blocks import BLOCKS, filled, read_measured, read_reported
from evaluation.predictions import PredictionWriter, Record
from evaluation.score import score_file, write_metrics
from evaluation.table import to_csv, to_latex, to_markdown, to_terminal
from segmentation.data.scenes import Scenes
from segmentation.metrics import Evaluator
from segmentation.protocols import Protocol, Rela
from tests.runs import ROOT
from tests.test_compare import answer

# The averages that the papers print beside the figures; for GRES and ReasonSeg, of gIoU and cIoU (Text4Seg++).
AVERAGES = {
    "RES": [68.3, 74.2, 69.9, 71.4, 69.2, 75.6, 76.4, 73.6, 71.4, 75.4, 79.3, 78.9, 76.7, 78.9, None, None],
    "REC": [79.8, 80.3, 86.6, 89.7, 87.1, 91.1, 89.1, 91.0],
    "GRES": [64.4, 62.9, 65.6, 69.1, 67.6, 71.1, 69.8, None, None],
    "ReasonSeg": [50.9, 53.1, 56.2, 54.5],
}


def evaluated(folder: Path, dataset: str, split: str, protocol: str | Protocol = "lisa", **run: object) -> Path:
    """A folder as evaluate.py leaves it: 20 samples, half of them answered rightly."""
    samples = [dataclasses.replace(one, dataset=dataset, split=split) for one in Scenes("val", length=20)]
    path = folder / "predictions.jsonl"
    with PredictionWriter(path, run) as writer:
        for index, asked in enumerate(samples):
            writer.write(Record.of(asked, answer(asked, (2, 1, 2, 0)[index % 4]), "text", 3))
    write_metrics(score_file(path, samples, Evaluator(protocol)), folder / "metrics.json")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("evaluated")
    made = [evaluated(root / split, "refcoco", split, checkpoint="out/my_policy|1") for split in ("testB", "val")]
    made.append(evaluated(root / "g", "grefcoco", "testA", "rela", checkpoint="out/my_policy|1"))
    return [*made, evaluated(root / "s", "scenes", "val", checkpoint="other")]


def test_lines_of_papers_average_to_what_the_papers_print():
    reported = read_reported()
    assert {name: len(lines) for name, lines in reported.items()} == {key: len(row) for key, row in AVERAGES.items()}
    for block in BLOCKS:
        for line, printed in zip(reported[block.name], AVERAGES[block.name], strict=True):
            assert all(value is None or 30 < value < 100 for value in line.values)
            pairs = zip(block.columns, line.values, strict=True)
            known = [value for column, value in pairs if column.figure != "N_acc" and value is not None]
            if printed is not None:
                assert sum(known) / len(known) == pytest.approx(printed, abs=0.0501), line


def test_what_was_measured_stands_in_its_column_below_the_papers(folders):
    blocks = {block.name: (block, lines) for block, lines in filled(read_measured(folders))}
    assert list(blocks) == ["RES", "REC", "GRES", "other"]
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    _, lines = blocks["RES"]
    assert [line.measured for line in lines] == [False] * 16 + [True]
    assert lines[-1].values == (100 * metrics[1]["cIoU"], None, 100 * metrics[0]["cIoU"], None, None, None, None, None)
    assert lines[-1].average is None and lines[0].average == pytest.approx(68.275)
    assert lines[-1].source == "measured here: lisa, refcoco testB: 20 of 5095, refcoco val: 20 of 10834"
    assert lines[0].source == "reported: Text4Seg++, Table II"
    _, lines = blocks["GRES"]
    assert lines[-1].values[3:6] == tuple(100 * metrics[2][name] for name in ("gIoU", "cIoU", "N_acc"))
    assert lines[-1].source == "measured here: rela"
    block, lines = blocks["other"]
    assert block.columns == (("scenes", "val", "gIoU"), ("scenes", "val", "cIoU"))
    assert [line.method for line in lines] == ["other"]
    assert all(line.measured for _, lines in filled(read_measured(folders), reported=False) for line in lines)


def test_one_checkpoint_in_two_ways_is_two_lines(tmp_path):
    box, sam = {"_target_": "segmentation.decoders.filled_box.FilledBox"}, {"_target_": "x.Sam", "size": "l"}
    first = evaluated(tmp_path / "a", "refcoco", "val", checkpoint="c", decoder=box, max_tokens=9)
    second = evaluated(tmp_path / "b", "refcoco", "val", checkpoint="c", decoder=sam, max_tokens=9)
    assert [one.method for one in read_measured([first, second])] == ["c decoder=FilledBox()", "c decoder=Sam(size=l)"]
    with pytest.raises(
        ConfigError, match=r"/a and .*/c both hold refcoco val by c decoder=FilledBox\(\); leave one out"
    ):
        read_measured([first, second, evaluated(tmp_path / "c", "refcoco", "val", **{**run_of(first)})])


def run_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_a_test_split_of_several_is_not_called_by_the_first_of_them(tmp_path):
    asked = {"name": "refclef", "split": "test"}
    whole = evaluated(tmp_path / "test", "refclef", "testB", checkpoint="c", benchmark=asked)
    part = evaluated(tmp_path / "B", "refclef", "testB", checkpoint="c", benchmark=asked | {"split": "testB"})
    assert [(one.dataset, one.split) for one in read_measured([whole, part])] == [
        ("refclef", "test"),
        ("refclef", "testB"),
    ]


def test_options_of_a_protocol_stand_beside_its_name(tmp_path):
    folder = evaluated(tmp_path, "refcoco", "val", Rela(empty_pixels=50), checkpoint="c")
    (_, lines), *_ = filled(read_measured([folder]), reported=False)
    assert lines[-1].source == "measured here: rela empty_pixels=50, refcoco val: 20 of 10834"


def test_another_partition_of_a_dataset_does_not_stand_in_the_papers_column(tmp_path):
    google = evaluated(
        tmp_path, "refcocog", "val", checkpoint="c", benchmark={"name": "refcocog", "split_by": "google"}
    )
    ((block, lines),) = filled(read_measured([google]))
    assert (block.name, block.columns[0][:2], len(lines)) == ("other", ("refcocog google", "val"), 1)


def test_every_form_holds_every_value(folders):
    blocks = filled(read_measured(folders))
    metrics = json.loads((folders[1] / "metrics.json").read_text())
    sheet = list(csv.DictReader(to_csv(blocks).splitlines()))
    assert len(sheet) == sum(len(lines) for _, lines in blocks)
    ours = next(row for row in sheet if row["table"] == "RES" and row["source"].startswith("measured"))
    assert float(ours["RefCOCO val cIoU"]) == pytest.approx(100 * metrics["cIoU"], rel=1e-5)
    assert (ours["method"], ours["RefCOCO testA cIoU"]) == ("out/my_policy|1", "")
    markdown, latex = to_markdown(blocks), to_latex(blocks)
    rows = [line.replace("\\|", "") for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == sum(len(lines) + 2 for _, lines in blocks)
    assert "| **out/my\\_policy\\|1** |" in markdown
    assert "\\textbf{out/my\\_policy|1}" in latex
    assert "\\multicolumn{3}{c}{RefCOCO}" in latex and "\\multicolumn{9}{c}{gRefCOCO}" in latex
    start = 0
    for (block, lines), table in zip(blocks, to_terminal(blocks), strict=True):
        width = 3 + len(block.columns) + block.average
        assert {row.count("|") - 1 for row in rows[start : start + len(lines) + 2]} == {width}
        start += len(lines) + 2
        assert (len(table.columns), table.row_count) == (width, len(lines))
    for part, (block, lines) in zip(latex.split("\n\n"), blocks, strict=True):
        rows = [line.count(" & ") for line in part.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
        assert rows[-len(lines) :] == [2 + len(block.columns) + block.average] * len(lines)
    for text in (markdown, latex):
        assert text.count("reported: ") == 16 + 8 + 9 and "not measured here" in text
        assert f"{100 * metrics['cIoU']:.1f}" in text


def test_a_wrong_line_of_the_data_file_is_named(tmp_path):
    (tmp_path / "r.yaml").write_text("ReasonSeg:\n  - [LISA, Vicuna, here, 1.0, 2.0, 3.0]\n")
    with pytest.raises(ValueError, match=r"r\.yaml: ReasonSeg, LISA has 3 values for 4 columns"):
        read_reported(tmp_path / "r.yaml")


def test_table_is_a_command(folders, tmp_path):
    named = f"folders=[{','.join(map(str, folders))}]"
    run = subprocess.run(
        [sys.executable, "evaluation/table.py", named, f"output={tmp_path}/out"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "60"},  # narrower than the table
        check=True,
        capture_output=True,
        text=True,
    )
    blocks = filled(read_measured(folders))
    forms = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
    assert {name: (tmp_path / f"out/table.{name}").read_text() for name in forms} == {
        name: form(blocks) for name, form in forms.items()
    }
    assert "71.4" in run.stdout and "68.3" in run.stdout and "measured" in run.stdout
    wrong = [sys.executable, "evaluation/table.py", f"folders=[{tmp_path}]"]
    failed = subprocess.run(
        wrong, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert failed.returncode == 2 and "has no predictions.jsonl" in failed.stderr

"""What a sweep found: intervals and gains, the table in its forms, the report, the pictures, what is tried next."""

import math
from html.parser import HTMLParser

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from scipy import stats

from configs import ConfigError
from evaluation.curves import to_svg
from evaluation.intervals import student
from rl.ablate import next_cells
from rl.ablation import plots
from rl.ablation.cells import Cell, grid, random
from rl.ablation.plan import Sweep
from rl.ablation.report import commands, write_report
from rl.ablation.results import Result, tabulated, value
from rl.ablation.tables import to_csv, to_latex, to_markdown
from tests.runs import ROOT
from tests.test_ablate import shipped
from tests.test_overlay import history

EVIL = '<script>document.title="hit"</script>&_%|'


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_students_interval_is_scipys():
    values = [0.5, 0.52, 0.57]
    made = student(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (made.mean, made.low, made.high) == pytest.approx((0.53, low, high))
    assert made.high - made.mean == pytest.approx(4.302653 * np.std(values, ddof=1) / math.sqrt(3))
    assert math.isnan(student([1.0]).low)


SCORES = {  # gIoU and invalid rate by cell and seed
    ("boxes", "4"): [(0.50, 0.10), (0.60, 0.10), (0.40, 0.10)],
    ("boxes", "8"): [(0.53, 0.30), (0.64, 0.20), (0.45, 0.10)],
    ("masks", "4"): [(0.90, 0.00), (0.80, 0.00), None],
    ("masks", "8"): [(0.40, 0.10), (0.50, 0.10), (0.30, 0.10)],
}


def results(sweep: Sweep) -> list[Result]:
    made = []
    for cell in grid(sweep.axes):
        for run, scores in zip(sweep.runs(cell, 3), SCORES[cell.labels], strict=True):  # type: ignore[index]
            if scores is None:
                made.append(Result(run, None, None, [], "", f"grpo-1: {EVIL}"))
                continue
            metrics = {"gIoU": scores[0], "invalid_rate": scores[1], "intervals": {"gIoU": None, "invalid_rate": None}}
            made.append(Result(run, metrics, {"gIoU": 0.45, "invalid_rate": 0.2}, history(40), "the same"))
    return made


@pytest.fixture
def several() -> Sweep:
    over = "trainer.num_generations=4,8"
    return shipped("tiny", over, baseline={"reward": "boxes"}, metrics={"gIoU": "max", "invalid_rate": "min"})


def test_cells_are_compared_by_seed_and_the_best_is_of_whole_ones(several):
    found = tabulated(several, results(several), 3)
    lines = {line.cell.labels: line for line in found.lines}
    value, gain = lines["masks", "4"].values["gIoU"], lines["masks", "4"].gains["gIoU"]
    assert value and gain
    assert (value.mean, gain.mean) == pytest.approx((0.85, 0.30))  # of seeds 0 and 1 alone: 0.40 and 0.20
    assert gain.high - gain.mean == pytest.approx(stats.t.ppf(0.975, 1) * 0.1)
    assert lines["boxes", "4"].gains["gIoU"] is None and lines["boxes", "4"].baseline
    lower = lines["masks", "8"].gains["gIoU"]
    assert lower and lower.mean == pytest.approx(np.mean([0.40 - 0.53, 0.50 - 0.64, 0.30 - 0.45]))
    assert [found.lines[n].cell.labels for n in found.best["gIoU"]] == [("boxes", "8")]
    assert {found.lines[n].cell.labels for n in found.best["invalid_rate"]} == {("boxes", "4"), ("masks", "8")}
    assert "Student-t" in found.note and "failed: 1" in found.note


def test_the_table_in_its_forms(several):
    found = tabulated(several, results(several), 3)
    rows = [line.split(",") for line in to_csv(found).splitlines()]
    assert len({len(row) for row in rows}) == 1 and len(rows) == 5
    cells = dict(zip(rows[0], rows[3], strict=True))
    assert (cells["reward"], cells["seeds"], cells["failed"]) == ("masks", "0 1", "1")
    assert float(cells["gIoU"]) == pytest.approx(0.85) and float(cells["gIoU gain"]) == pytest.approx(0.30)
    markdown = to_markdown(found)
    assert "| boxes | 8 (baseline) | 3 | **0.540 ± 0.237** |" in markdown
    assert "| masks | 4 | 2 of 3 | 0.850 ± 0.635 (+0.300 ± 1.271) |" in markdown
    latex = to_latex(found)
    assert r"\textbf{0.540 $\pm$ 0.237}" in latex and latex.count(r"\midrule") == 2


def test_runs_evaluated_on_different_data_are_not_compared(several):
    made = results(several)
    other = Result(made[0].run, made[0].metrics, None, [], "other data")
    with pytest.raises(ConfigError, match="evaluated on different data"):
        tabulated(several, [other, *made[1:]], 3)


def test_the_report_holds_all_and_lets_nothing_run(several, tmp_path):
    made = results(several)
    found = tabulated(several, made, 3)
    files = {path.name for path in write_report("A <title>", found, made, tmp_path)}
    names = {"table.csv", "table.md", "table.tex", "runs.csv", "commands.sh", "report.html"}
    assert files == names | {"metrics.png", "gains.png", "hacking.png", "curves.png"}
    page = (tmp_path / "report.html").read_text()

    class Tags(HTMLParser):
        seen: list[str] = []  # noqa: RUF012, one parser

        def handle_starttag(self, tag, attrs):
            assert not any(name.startswith("on") or name in ("src", "srcset") for name, _ in attrs)
            self.seen.append(tag)

    Tags().feed(page)
    assert Tags.seen.count("svg") == 4 and "script" not in Tags.seen
    assert Tags.seen.count("details") == 4 and Tags.seen.count("tr") == 5
    told = commands(made, tmp_path)
    steps = {step.id: step for one in made for step in one.run.steps}
    assert sum(line.startswith("accelerate launch") for line in told.splitlines()) == len(steps)
    assert all(f"output_dir={step.folder(tmp_path)}" in told for step in steps.values())


def test_pictures_do_with_one_axis_and_nothing_logged(tmp_path):
    sweep = shipped("tiny", metrics={"gIoU": "max"}, baseline={})
    made = [
        Result(run, {"gIoU": 0.5, "intervals": {}}, None, [], "") for c in grid(sweep.axes) for run in sweep.runs(c, 1)
    ]
    found = tabulated(sweep, made, 1)
    assert "no intervals" in found.note and found.lines[0].gains["gIoU"] is None
    assert plots.curves(made) is None and plots.hacking(found, made) is None
    assert "<svg" in to_svg(plots.bars(found))


def test_cells_are_done_at_once_but_where_optuna_learns_from_them(several):
    def cfg(search: str, trials: int) -> DictConfig:
        return OmegaConf.create({"search": search, "trials": trials, "seeds": 3})

    assert next_cells(several, cfg("grid", 0), [], [], 8) == grid(several.axes)
    assert next_cells(several, cfg("random", 3), [], [], 8) == random(several.axes, 3)
    assert next_cells(several, cfg("grid", 0), grid(several.axes), [], 8) == []
    made, tried = results(several), []
    counts = []
    while chosen := next_cells(several, cfg("optuna", 5), tried, made, 8):  # room for two cells of three seeds
        tried += chosen
        counts.append(len(chosen))
    assert counts == [2, 2, 1] and set(tried) <= set(grid(several.axes))
    assert value(made, Cell(("boxes", "8")), "gIoU") == pytest.approx(0.54)
    assert value(made, Cell(("masks", "4")), "gIoU") is None  # a seed failed

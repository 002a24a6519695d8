"""rl/ablate.py: which cells are tried, which steps they take and share, and what the table says of the results."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from scipy import stats

from configs import ConfigError, plain
from configs.entry import config_dir
from evaluation.curves import to_svg
from evaluation.intervals import student
from rl import quickstart
from rl.ablate import check_numbers, next_cells
from rl.ablation import plots
from rl.ablation.cells import Cell, grid, merged, random, suggested, typed_axes
from rl.ablation.devices import devices
from rl.ablation.estimate import Clock, duration
from rl.ablation.made import check_made
from rl.ablation.plan import Sweep, check_configs, check_metrics, read_sweep
from rl.ablation.report import commands, write_report
from rl.ablation.results import Result, tabulated, value
from rl.ablation.tables import to_csv, to_latex, to_markdown
from tests.runs import ROOT
from tests.test_overlay import history

STEPS = ("warm_start", "grpo", "evaluate")
EVIL = '<script>document.title="hit"</script>&_%|'


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def shipped(name: str, over: str = "", **changes) -> Sweep:
    """A sweep of configs/sweep, with changes."""
    section = OmegaConf.load(ROOT / "configs" / "sweep" / f"{name}.yaml")
    assert isinstance(section, DictConfig)
    return read_sweep({**plain(section), **changes}, over)


@pytest.mark.parametrize(
    ("over", "labels"),
    [
        ("trainer.num_generations=4,8", ["4", "8"]),
        ("trainer.num_generations=choice(4,8)", ["4", "8"]),
        ("trainer.max_steps=range(40,121,40)", ["40", "80", "120"]),
        ("rewards=default,[default,mask_dice]", ["default", "[default,mask_dice]"]),
        ("+rewards.length={_target_:rewards.length.length,weight:0},{_target_:rewards.count.count,weight:1}", None),
        ("every:format=box,bricks", ["box", "bricks"]),
    ],
)
def test_axes_are_typed_in_hydras_grammar(over, labels):
    (axis,) = typed_axes(over, STEPS)
    step = "every" if over.startswith("every") else "grpo"
    assert labels is None or list(axis.choices) == labels
    for label in axis.choices:
        assert axis.told(label) == {step: (f"{axis.name}={label}",)}
    assert [cell.labels for cell in grid([axis])] == [(label,) for label in axis.choices]


def test_choices_of_ones_own_reach_every_step(tmp_path, monkeypatch):
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "mine.yaml").write_text("box_iou: {_target_: rewards.box_iou.box_iou, weight: 2.0}\n")
    section = OmegaConf.load(ROOT / "configs" / "sweep" / "scenes.yaml")
    assert isinstance(section, DictConfig)
    told = plain(section)
    with pytest.raises(ConfigError, match="unknown choice of rewards 'mine'"):
        check_configs(read_sweep(told, "rewards=default,mine").runs(Cell(("mine",)), 1))
    rest, beside = config_dir(["over=rewards=default,mine", "--config-dir", str(tmp_path), "seeds=1"])
    assert (rest, beside) == (["over=rewards=default,mine", "seeds=1"], str(tmp_path))
    assert config_dir(["seeds=1"]) == (["seeds=1"], None)
    (run,) = read_sweep(told, "rewards=default,mine", beside).runs(Cell(("mine",)), 1)
    check_configs([run])
    assert all(step.command(tmp_path)[-2:] == ["--config-dir", str(tmp_path)] for step in run.steps)
    monkeypatch.setenv("PYTHONPATH", "a place/of mine")
    assert "export PYTHONPATH='a place/of mine'\n" in commands([], tmp_path)


def test_a_step_is_not_gone_on_with_once_its_files_say_something_else(tmp_path):
    mine = tmp_path / "mine" / "rewards" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("box_iou: {_target_: rewards.box_iou.box_iou, weight: 2.0}\n")
    section = OmegaConf.load(ROOT / "configs" / "sweep" / "scenes.yaml")
    assert isinstance(section, DictConfig)
    sweep = read_sweep(plain(section), "rewards=default,mine", str(tmp_path / "mine"))
    root, runs = tmp_path / "sweep", [run for cell in grid(sweep.axes) for run in sweep.runs(cell, 2)]
    check_made(check_configs(runs), root)
    begun, late = (run.step("grpo") for run in runs if run.cell.labels == ("mine",))
    assert begun and late and begun != late
    begun.folder(root).mkdir(parents=True)
    check_made(check_configs(runs[::-1]), root)  # in whatever order, and with other seeds first
    mine.write_text("box_iou: {_target_: rewards.box_iou.box_iou, weight: 3.0}\n")
    said = rf"{begun.id} was begun with another config \(rewards\.box_iou\.weight differ; .* was 2\.0, is 3\.0\)"
    with pytest.raises(ConfigError, match=said):
        check_made(check_configs(runs), root)
    begun.folder(root).rmdir()
    check_made(check_configs(runs), root)
    late.folder(root).mkdir()
    check_made(check_configs(runs), root)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ("trainer.beta=0.1", "has one value; vary it"),
        ("trainer.beta=[1", "over: trainer.beta="),
        ("warm_strat:trainer.max_steps=1,2", "the nearest valid one is 'warm_start'"),
        ("trainer.beta=interval(1,1)", "no interval to draw from"),
        ("trainer.beta=tag(log,interval(0,1))", "no interval to draw from"),
    ],
)
def test_what_is_no_axis_is_said(over, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[").replace("(", r"\(")):
        typed_axes(over, STEPS)


def test_random_cells_are_different_within_bounds_and_more_begin_with_fewer():
    over = "a=interval(0.5,2) b=tag(log,interval(1e-5,1e-1)) c=int(interval(3,5)) d=x,y"
    axes = typed_axes(over, STEPS)
    cells = random(axes, 200)
    assert len(set(cells)) == 200 and random(axes, 20) == cells[:20]
    a, b, c = (np.array([float(cell.labels[n]) for cell in cells]) for n in range(3))
    assert 0.5 <= a.min() < 0.6 and 1.9 < a.max() <= 2
    assert b.min() >= 1e-5 and b.max() <= 1e-1 and 0.3 < (b < 1e-3).mean() < 0.7
    assert set(c) == {3, 4, 5} and {cell.labels[3] for cell in cells} == {"x", "y"}
    assert len(random(typed_axes("c=int(interval(3,5)) d=x,y", STEPS), 50)) == 6
    with pytest.raises(ConfigError, match="search=random"):
        grid(axes)


def test_optuna_nears_the_best_and_asks_the_same_again():
    axes = typed_axes("a=interval(0,1) b=x,y c=int(interval(1,9))", STEPS)
    tried: list[tuple[Cell, float | None]] = []
    for number in range(40):
        asked = suggested(axes, tried, 1, maximise=True)
        assert asked == suggested(axes, tried, 1, maximise=True)
        a, b, c = asked[0].labels
        failed = number == 5
        tried.append((asked[0], None if failed else (b == "y") - (float(a) - 0.3) ** 2 - abs(int(c) - 4) / 9))
    first, last = tried[:10], tried[-10:]
    assert sum(cell.labels[1] == "y" for cell, _ in last) > 7
    assert np.mean([value or 0 for _, value in last]) > np.mean([value or 0 for _, value in first]) + 0.2
    assert len(suggested(axes, tried, 3, maximise=False)) == 3


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


def test_of_two_overrides_for_one_key_the_later_counts():
    told = ["rewards=default", "trainer.beta=0", "model.path={warm_start}/policy", "rewards=by_part", "+trainer.beta=1"]
    assert merged(told, "x") == (
        "trainer.beta=0",
        "model.path={warm_start}/policy",
        "rewards=by_part",
        "+trainer.beta=1",
    )


def test_the_papers_ablation_shares_what_its_cells_share():
    sweep = shipped("rewards")
    cells = grid(sweep.axes)
    runs = [run for cell in cells for run in sweep.runs(cell, 3)]
    steps = {step.id: step for run in runs for step in run.steps}
    counts = {name: sum(step.name == name for step in steps.values()) for name in sweep.steps}
    assert counts == {"warm_start": 2 * 3, "decoder": 3, "before": 3 * 3, "grpo": 15 * 3, "evaluate": 15 * 3}
    for run in runs:
        masks, seed = run.cell.labels[0], run.seed
        form = "bricks" if masks == "bricks" else "box"
        warm, grpo = run.step("warm_start"), run.step("grpo")
        assert warm and grpo
        said = quickstart.FORMATS[form]
        assert {*said, f"trainer.max_steps={quickstart.WARM_STEPS[form]}", f"data.seed={seed}"} <= set(warm.overrides)
        assert {*said, f"trainer.max_steps={quickstart.GRPO_STEPS[form]}"} <= set(grpo.overrides)
        assert f"data.seed={seed + 1000}" in grpo.overrides
        if run.cell.labels[1] == "+ mask":  # everything: what the quickstart trains with
            assert set(quickstart.GRPO[form]) <= set(grpo.overrides)
        assert ("decoder=trained" in grpo.overrides) == (masks == "decoder") == (run.step("decoder") is not None)
    assert sweep.baseline_of(Cell(("bricks", "mask only"))) == Cell(("bricks", "box IoU"))


def test_each_cell_of_the_papers_ablation_pays_what_it_says():
    sweep = shipped("rewards")
    runs = [run for cell in grid(sweep.axes) for run in sweep.runs(cell, 1)]
    composed = check_configs(runs)
    paid = {
        "box IoU": {"box_iou"},
        "+ format": {"box_iou", "format"},
        "+ no-target": {"box_iou", "format", "no_target"},
    }
    paid |= {"+ mask": paid["+ no-target"] | {"mask_iou"}, "mask only": {"mask_iou"}}
    for run in runs:
        masks, rewards = run.cell.labels
        section = composed[run.steps[-2].id].rewards
        weighted = {str(name) for name, entry in section.items() if entry.weight}
        shape = {"shape_iou"} if masks == "bricks" and "mask" in rewards else set()
        assert weighted == paid[rewards] | shape


def test_a_folder_is_known_by_what_its_steps_do(tmp_path):
    sweep = shipped("tiny")
    one, other = (sweep.runs(cell, 2) for cell in grid(sweep.axes))
    assert one[0].step("warm_start") == other[0].step("warm_start") != one[1].step("warm_start")
    again = shipped("tiny", steps={**sweep.steps, "warm_start": [*sweep.steps["warm_start"], "trainer.max_steps=3"]})
    changed = again.runs(Cell(("boxes",)), 1)[0]
    assert {step.id for step in changed.steps}.isdisjoint(step.id for step in one[0].steps)
    command = one[0].steps[1].command(tmp_path)
    assert f"model.path={one[0].steps[0].folder(tmp_path)}/policy" in command
    assert command[-1] == f"output_dir={one[0].steps[1].folder(tmp_path)}"


def test_exceptions_change_cells_and_leave_them_out():
    told = [{"when": {"reward": "masks"}, "grpo": ["trainer.beta=0.1"]}, {"when": {"reward": ["boxes"]}, "skip": True}]
    sweep = shipped("tiny", exceptions=told, over="trainer.num_generations=2,4", baseline={"reward": "masks"})
    boxes, *_, masks = grid(sweep.axes)
    assert sweep.skips(boxes) and not sweep.skips(masks)
    step = sweep.runs(masks, 1)[0].step("grpo")
    assert step and "trainer.beta=0.1" in step.overrides and "trainer.num_generations=4" in step.overrides


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": {"reward": "box"}}, "the nearest valid one is 'boxes'"),
        ({"baseline": {"rewards": "boxes"}}, "the nearest valid one is 'reward'"),
        ({"exceptions": [{"when": {"reward": "x"}, "skip": True}]}, "unknown label of reward in sweep.exceptions"),
        ({"axes": {"a": {"b": {"gpro": ["x=1"]}}}}, "the nearest valid one is 'grpo'"),
        ({"axes": {"a": {"b": ["x=1"]}}}, "expected lists of overrides by step"),
        ({"axes": {}}, "nothing is varied"),
        ({"steps": {"grpo": ["rl/gpro.py"], "evaluate": ["evaluation/evaluate.py"]}}, "no file here"),
    ],
)
def test_a_wrong_sweep_is_said(changes, message):
    with pytest.raises(ConfigError, match=message):
        shipped("tiny", **{"baseline": {}, **changes})


def test_a_misspelt_key_ends_the_sweep_before_it_starts():
    sweep = shipped("tiny", over="trainer.learnin_rate=1e-4,1e-3")
    with pytest.raises(ConfigError, match=r"boxes \| 0.0001, grpo: .*'trainer.learning_rate'"):
        check_configs([run for cell in grid(sweep.axes) for run in sweep.runs(cell, 1)])


def test_a_metric_that_is_none_ends_the_sweep_before_it_starts():
    sweep = shipped("tiny", metrics={"gIuo": "max"})
    run = sweep.runs(grid(sweep.axes)[0], 1)[0]
    with pytest.raises(ConfigError, match="the nearest valid one is 'gIoU'"):
        check_metrics(sweep, check_configs([run])[run.steps[-1].id])


def test_without_a_baseline_named_the_first_of_each_axis_is():
    sweep = shipped("scenes", over="trainer.beta=0.1,0 trainer.num_generations=4,8")
    assert sweep.baseline_of(Cell(("0", "8"))) == Cell(("0.1", "4"))
    assert shipped("scenes", over="trainer.beta=interval(0,1)").baseline == {}


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


def test_time_is_estimated_from_the_done_steps_most_like_it(tmp_path):
    sweep = shipped("tiny", over="trainer.max_steps=2,4")
    runs = [run for cell in grid(sweep.axes) for run in sweep.runs(cell, 2)]
    first = runs[0]
    for step, seconds in zip(first.steps, (10.0, 30.0, 5.0), strict=True):
        step.folder(tmp_path).mkdir(parents=True)
        ended = {"seconds": seconds, "starts": 1, "problem": ""}
        (step.folder(tmp_path) / "outcome.json").write_text(json.dumps(ended))
    clock = Clock(runs, check_configs(runs), tmp_path)
    assert clock.finished == {step.id for step in first.steps}
    seconds = [clock.estimate(run.steps[1]) for run in runs]
    assert seconds[1] == (30.0, "done ones")  # another seed of the same
    assert seconds[2] == (60.0, "the done ones most like it")  # twice the updates
    assert clock.estimate(runs[2].steps[2]) == (5.0, "done ones")
    assert [duration(time) for time in (45, 700, 12_000)] == ["45 s", "12 min", "3 h 20 min"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": "rand"}, "the nearest valid one is 'random'"),
        ({"seeds": 0}, "seeds=0: at least 1"),
        ({"search": "random"}, "trials=0: how many cells"),
        ({"trials": 3}, "trials=3: how many cells"),
    ],
)
def test_numbers_out_of_range_are_said(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_numbers(OmegaConf.create({"search": "grid", "seeds": 1, "trials": 0, "measure": 0, **changes}))


def test_jobs_share_the_cores_out():
    with pytest.raises(ConfigError, match="jobs=0"):
        devices(0)
    shared = devices(1)
    assert len(shared) == 1 and (shared[0].gpu is not None or shared[0].cores)


def test_every_sweep_says_what_it_is_and_where_it_leads():
    for path in sorted(Path("configs/sweep").glob("*.yaml")):
        assert path.read_text().startswith(f"# python rl/ablate.py sweep={path.stem}")
        sweep = shipped(path.stem, over="trainer.beta=0,0.1")
        runs = sweep.runs(grid(sweep.axes)[0], 1)
        check_metrics(sweep, check_configs(runs)[runs[0].steps[-1].id])

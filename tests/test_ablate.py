"""rl/ablate.py: which cells are tried, which steps they take and share, and what the table says of the results."""

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from configs import ConfigError, plain
from configs.entry import config_dir
from rl import quickstart
from rl.ablate import check_numbers
from rl.ablation.cells import Cell, grid, merged, random, suggested, typed_axes
from rl.ablation.devices import devices
from rl.ablation.estimate import Clock, duration
from rl.ablation.made import check_made
from rl.ablation.plan import Sweep, check_configs, check_metrics, read_sweep
from rl.ablation.report import commands
from tests.runs import ROOT

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

"""Configs: what is misspelt or ill-typed is an error naming the nearest valid key, and a run records what it was."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from trl import GRPOConfig

import configs
from configs.record import git_state
from configs.strict import locate, nearest
from rewards.boundary_iou import boundary_iou
from rewards.mask_dice import mask_dice
from rollouts.sections import make_rewards

ROOT = Path(configs.__file__).parents[1]

APP = """
from dataclasses import dataclass
import configs

@dataclass
class Trainer:
    learning_rate: float = 1e-4
    steps: int = 1

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}; give 1 or more.")

class Square:
    def __init__(self, side: int = 1):
        self.side = side

@configs.main("app")
def main(cfg):
    trainer = configs.build(Trainer, cfg.training, where="training")
    shape = configs.instantiate(cfg.shape, where="shape")
    configs.record_run(cfg.output_dir, cfg, cfg.seed)
    print("ran with", trainer.learning_rate, shape.side)
    if cfg.seed == 13:
        raise RuntimeError("a bug")

if __name__ == "__main__":
    main()
"""
FILES = {
    "app.yaml": """
        defaults: [base, shape: square, _self_]
        seed: 0
        output_dir: ${oc.env:PWD}/out
        resume: null
        training: {learning_rate: 1e-5}
    """,
    "shape/square.yaml": "{_target_: app.Square, side: 2}",
    "shape/round.yaml": "{_target_: app.Round}",
    "launch/many.yaml": "{processes: 8}",
}


@dataclass
class Inner:
    grid: int = 8


@dataclass
class Outer:
    name: str
    inner: Inner | None = None
    scope: Literal["image", "box"] = "image"
    size: tuple[int, int] = (1, 1)
    root: Path = Path()
    raw: dict | None = None


class Upstream:
    def __init__(self, count: int = cast(int, None), **rest: float):  # as some libraries still write it
        self.count, self.rest = count, rest


@pytest.fixture
def app(tmp_path):
    """Runs a command of its own, with a config tree of its own, as any entry point is run."""
    (tmp_path / "app.py").write_text(APP)
    for name, text in FILES.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "app.py", "--config-dir", "conf", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PWD": str(tmp_path)} | environment,
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("sede=1", "unknown key 'sede'; the nearest valid one is 'seed'"),
        ("learnign_rate=1", "the nearest valid one is 'training.learning_rate'"),
        ("training.lerning_rate=1", "the nearest valid one is 'training.learning_rate'"),
        ("+training.stepz=1", "unknown key 'training.stepz'; the nearest valid one is 'training.steps'"),
        ("+shpe=round", "unknown key 'shpe'; the nearest valid one is 'shape'"),
        ("+shape.sied=3", "unknown key 'shape.sied'; the nearest valid one is 'shape.side'"),
        ("shape=3", "Config group override must be a string or a list"),
        ("shape=sqare", "unknown choice of shape 'sqare'; the nearest valid one is 'square' (of round, square)"),
        ("shape=zzz", "unknown choice of shape 'zzz'; valid are round, square."),
        ("+launch=mny", "unknown choice of launch 'mny'; the nearest valid one is 'many'"),
        ("seed=abc", "seed: expected int, got 'abc' (str)"),
        ("training=3", "training: expected dict, got 3 (int)"),
        ("training.learning_rate=fast", "training.learning_rate: expected float, got 'fast' (str)"),
        ("shape.side=1.5", "shape.side: expected int, got 1.5 (float)"),
        ("shape=round", "shape._target_: cannot get 'app.Round'"),
        ("+training.steps=0", "training: steps=0; give 1 or more."),
        ("seed=???", "seed: no value; give one: seed=..."),
        ("resume=${sed}", "'sed' not found"),
        ("~shape", "shape: needed, it cannot be removed"),
        ("seed=[1", "no viable alternative"),
    ],
)
def test_a_wrong_argument_ends_the_run_with_one_clear_message(app, argument, message):
    done = app(argument)
    assert done.returncode == 2
    assert done.stderr.startswith("app.py: error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_run_records_its_config_and_versions(app, tmp_path):
    done = app("training.learning_rate=1", "+training.steps=2", "+launch=many", "resume=yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran with 1.0 2\n", "")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["app.py", "conf", "out"]
    record = OmegaConf.load(tmp_path / "out" / "run.yaml")
    assert record.training == {"learning_rate": 1, "steps": 2}
    assert record.output_dir == f"{tmp_path}/out"

    again = app("--config-dir", "out", "--config-name", "run", "seed=7")
    assert (again.returncode, again.stdout) == (0, "ran with 1.0 2\n"), again.stderr
    starts = [json.loads(line) for line in (tmp_path / "out" / "versions.jsonl").read_text().splitlines()]
    assert [start["seed"] for start in starts] == [0, 7]
    assert starts[1]["command"] == "app.py --config-dir conf --config-dir out --config-name run seed=7"
    assert starts[0]["packages"]["trl"]


def test_only_the_first_rank_speaks_and_writes(app, tmp_path):
    assert app("sede=1", RANK="1").stderr == ""
    assert app(RANK="1").returncode == 0
    assert not (tmp_path / "out").exists()


def test_a_bug_keeps_its_traceback(app):
    done = app("seed=13")
    assert done.returncode == 1
    assert "RuntimeError: a bug" in done.stderr
    assert "hydra" not in done.stderr


def test_a_config_error_shows_its_traceback_on_demand(app):
    assert "Traceback" in app("sede=1", HYDRA_FULL_ERROR="1").stderr


def test_cfg_job_prints_the_config(app):
    done = app("--cfg", "job", "seed=5")
    assert done.returncode == 0
    assert OmegaConf.create(done.stdout).seed == 5
    assert "hydra" not in done.stdout


def test_build_makes_what_the_annotations_ask_for():
    values = {"name": "a", "inner": {"grid": 3}, "size": [2, 3], "root": "data", "raw": {"_target_": "kept.as.it.is"}}
    made = configs.build(Outer, OmegaConf.create(values))
    assert made == Outer("a", Inner(3), "image", (2, 3), Path("data"), {"_target_": "kept.as.it.is"})


def test_run_time_arguments_take_the_place_of_null_and_of_nothing_else():
    assert configs.build(Outer, {"raw": None}, name="b", raw={1: 2}) == Outer("b", raw={1: 2})
    assert configs.build(Outer, {"name": "b"}, name="b") == Outer("b")
    with pytest.raises(configs.ConfigError, match=r"o\.name: the command sets it itself, to 'b'; leave it out"):
        configs.build(Outer, {"name": "a"}, where="o", name="b")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "o: missing a required argument: 'name'"),
        ({"nam": "a"}, "unknown key 'o.nam'; the nearest valid one is 'o.name'"),
        ({"name": 3}, "o.name: expected str, got 3 (int)"),
        ({"name": "a", "scope": "imag"}, "o.scope: expected Literal['image', 'box'], got 'imag'"),
        ({"name": "a", "size": [1, 2, 3]}, "o.size: expected tuple[int, int], got [1, 2, 3] (list)"),
        ({"name": "a", "inner": {"gird": 3}}, "unknown key 'o.inner.gird'; the nearest valid one is 'o.inner.grid'"),
        ({"name": "a", "inner": {"grid": True}}, "o.inner.grid: expected int, got True (bool)"),
        ({"name": "a", "inner": 3}, "o.inner: expected"),
    ],
)
def test_build_names_the_key(values, message):
    with pytest.raises(configs.ConfigError) as raised:
        configs.build(Outer, values, where="o")
    assert message in str(raised.value)


def test_build_reads_upstream_signatures():
    made = configs.build(Upstream, {"count": None, "any_other": "x"})
    assert (made.count, made.rest) == (None, {"any_other": "x"})


def test_build_holds_trl_configs_to_their_fields(tmp_path):
    section = {"output_dir": str(tmp_path), "learning_rate": 1, "beta": 0, "report_to": "none", "use_cpu": True}
    made = configs.build(GRPOConfig, section, where="trainer", bf16=False)
    assert (made.learning_rate, made.beta, made.bf16) == (1.0, 0.0, False)
    with pytest.raises(configs.ConfigError, match=r"'trainer.num_generation'; the nearest valid one is 'trainer.num_g"):
        configs.build(GRPOConfig, {"num_generation": 8}, where="trainer")
    with pytest.raises(configs.ConfigError, match=r"trainer.beta: expected float, got '0.1' \(str\)"):
        configs.build(GRPOConfig, {"beta": "0.1"}, where="trainer")


def test_instantiate_builds_the_sections_inside():
    inner = {"_target_": f"{__name__}.Inner", "grid": 3}
    outer = {"_target_": f"{__name__}.Upstream", "one": inner, "many": [inner, {"deep": inner}]}
    made = configs.instantiate(outer, where="x")
    assert made.rest == {"one": Inner(3), "many": [Inner(3), {"deep": Inner(3)}]}


def test_instantiate_takes_a_class_method():
    assert configs.instantiate({"_target_": "fractions.Fraction.from_float", "f": 0.5}, where="x") == Fraction(1, 2)


def test_names_are_matched_by_their_last_part_too():
    assert nearest("beat", ["seed", "trainer.beta"]) == "trainer.beta"


def test_git_state_outside_a_checkout(tmp_path):
    assert git_state(tmp_path) is None


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_starts_with_the_command_that_uses_it(path):
    first = path.read_text().removeprefix("# @package _global_\n").splitlines()[0]  # hydra wants that line first
    assert first.startswith("# ")
    assert f"{path.parent.name}={path.stem}" in first or "python " in first or "accelerate launch " in first


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs").glob("*.yaml") if path.stem != "base"))
def test_every_choice_of_every_group_composes_and_names_what_exists(name):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        hydra = compose(name, return_hydra_config=True).hydra
        assert (hydra.run.dir, hydra.output_subdir) == (".", None)
        for group in (choice for choice in hydra.runtime.choices if not choice.startswith("hydra/")):
            for path in (ROOT / "configs" / group).glob("*.yaml"):
                for target in _targets(OmegaConf.to_container(compose(name, [f"{group}={path.stem}"]))):
                    locate(target, f"{group}={path.stem}")


def test_a_reward_of_no_preset_joins_one():
    chosen = ["rewards=[default,mask_dice,boundary_iou]", "rewards.mask_dice.weight=0.5", "rewards.mask_iou.weight=0"]
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        default, joined = compose("grpo").rewards, compose("grpo", chosen).rewards
    rewards, weights, paid = make_rewards(joined)
    assert [*rewards] == [*default, "mask_dice", "boundary_iou"] and set(paid) == {"all"}
    assert rewards["mask_dice"] is mask_dice and rewards["boundary_iou"] is boundary_iou
    assert dict(zip(rewards, weights, strict=True))["mask_dice"] == 0.5
    assert dict(zip(rewards, weights, strict=True))["mask_iou"] == 0


def test_no_refiner_is_the_default_and_one_needs_a_path():
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        assert compose("evaluate").refiner == {}
        assert OmegaConf.missing_keys(compose("evaluate", ["refiner=sam2"])) == {"refiner.path"}


def _targets(section: Any) -> Iterator[str]:
    for key, value in section.items() if isinstance(section, dict) else ():
        if key == "_target_":
            yield value
        yield from _targets(value)

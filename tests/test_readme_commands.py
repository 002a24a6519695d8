"""Every command of every README.md is one: its files, modules, keys, choices and targets exist. Links lead somewhere.

That they run is `tests/test_readme_runs.py`'s business.
"""

import argparse
import ast
import importlib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.launch import launch_command_parser
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from configs.entry import CONFIGS, _quoted
from configs.several import expanded
from rl.ablation.plan import read_sweep
from segmentation.data import export
from tests.ones_own import write_mine
from tests.readme_commands import Command, commands, parsed, readmes
from tests.runs import ROOT

COMMANDS = commands()
OWN_CHOICES = {
    "segmentation.data.inspect",
    "segmentation.data.export",
    "segmentation.data.check",
}  # compose single sections, by themselves
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
ENTRY = re.compile(r"^command = (configs\.main\(.*\))$", re.MULTILINE)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mine(tmp_path_factory.mktemp("readmes"))


@pytest.fixture(autouse=True)
def where_they_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    GlobalHydra.instance().clear()


def test_the_readmes_are_read():
    assert readmes()[0] == "README.md" and {"rewards/README.md", "sft/small_base/README.md"} <= set(readmes())
    assert len(COMMANDS) > 50 and {command.readme for command in COMMANDS} == set(readmes())
    with pytest.raises(ValueError, match=r"README\.md: 'pyhton a\.py' is no command"):
        parsed("README.md", "pyhton a.py", ())
    again = parsed("README.md", "... data=b  # and so on", ("python", "a.py"))
    assert (again.words, again.open) == (("python", "a.py", "data=b"), True)


@pytest.mark.parametrize("readme", readmes())
def test_links_lead_somewhere(readme):
    for link in LINK.findall((ROOT / readme).read_text()):
        name, _, anchor = link.partition("#")
        path = ((ROOT / readme).parent / name) if name else ROOT / readme
        assert path.exists(), link
        path = path / "README.md" if path.is_dir() else path
        assert not anchor or anchor in {slug(heading) for heading in HEADING.findall(path.read_text())}, link


def slug(heading: str) -> str:
    """A heading as GitHub links to it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_one(command, mine):
    words = command.words
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        target, *variables = words[1:]
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
        assert all(f"$({name.partition('=')[0]})" in makefile for name in variables)
    elif "install" in words:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert words[-2] == "-e" and words[-1].removeprefix(".[").removesuffix("]") in extras
    elif words[:2] == ("python", "-c"):
        check_code(words[2])
    elif words[0] == "pytest":
        assert re.search(rf"^def test_\w*{words[-1]}", (ROOT / command.script).read_text(), re.MULTILINE)
    else:
        if words[0] == "accelerate":
            check_launch(command)
        check_arguments(command, mine)


def check_code(code: str) -> None:
    """What is imported is public where it comes from."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            assert node.module and {one.name for one in node.names} <= {*importlib.import_module(node.module).__all__}


def check_launch(command: Command) -> None:
    """accelerate takes what stands before the script."""
    launched = launch_command_parser().parse_args(command.words[2:])
    assert launched.training_script == command.script
    assert launched.config_file is None or Path(launched.config_file).is_file()


def check_arguments(command: Command, mine: Path) -> None:
    """What stands behind the script, by what reads it there."""
    arguments, beside = export.own_choices(command.arguments)
    beside = [one.replace(str(ROOT), str(mine.parent)) for one in beside]
    if command.script in OWN_CHOICES:
        check_sections(arguments, beside)
        return
    module = command.words[1] == "-m"
    source = (ROOT / (f"{command.script.replace('.', '/')}.py" if module else command.script)).read_text()
    if command.script == "rollouts.memory":
        check_config("grpo" if "=" in arguments[0] else arguments.pop(0), arguments, command.open)
    elif entry := ENTRY.search(source):
        name, texts, several = entry_point(entry[1])
        overrides = expanded([_quoted(argument, texts) for argument in arguments], several)
        cfg = check_config(name, [*overrides, *beside], command.open)
        if name == "ablate":
            read_sweep(cfg["sweep"], cfg["over"])
    elif command.script == "sft/card.py":
        keys = {argument.partition("=")[0] for argument in arguments[1:]}
        assert keys <= set(re.findall(r'"(\w+)" in options', source))
    else:
        check_parser(source, arguments)


def entry_point(call: str) -> tuple[str, Sequence[str], Sequence[str]]:
    """Of `configs.main(...)`: the config's name, keys that are text, groups that take several choices."""
    made = ast.parse(call, mode="eval").body
    assert isinstance(made, ast.Call)
    given = {one.arg: ast.literal_eval(one.value) for one in made.keywords if one.arg != "script"}
    return ast.literal_eval(made.args[0]), given.get("texts", ()), given.get("several", ())


def check_sections(arguments: list[str], beside: list[str]) -> None:
    """The groups compose, each with the keys that are its own."""
    given = dict(argument.split("=", 1) for argument in arguments)
    chosen = [group for group in ("data", "benchmark", "format") if group in given]
    assert chosen
    for group in chosen:
        export.section(group, given[group], [*beside, *(one for one in arguments if one.startswith(f"{group}."))])
    keys = {key for key in given if key.partition(".")[0] not in chosen}
    assert keys <= {"model.path", "count", "seed", "index", "output", "root"}


def check_config(name: str, overrides: list[str], open_: bool) -> dict[str, Any]:
    """Hydra composes it, and no value is missing; some may be, where a command is not printed whole."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        cfg = compose(name, overrides)
    assert open_ or not OmegaConf.missing_keys(cfg)
    return OmegaConf.to_container(cfg, resolve=not open_)  # pyright: ignore[reportReturnType]


def check_parser(source: str, arguments: list[str]) -> None:
    """The statements that make its argparse.ArgumentParser, without the imports of seconds above them, take these."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    lines = [ast.unparse(line) for function in functions for line in function.body]
    names: dict[str, Any] = {"argparse": argparse, "Path": Path, "__doc__": None}
    exec("\n".join(line for line in lines if line.startswith(("parser = ", "parser.add_argument"))), names)
    names["parser"].parse_args(arguments)

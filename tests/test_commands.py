"""What every command owes to who types it: help on one screen, quick and clear refusals, a clean end by Ctrl-C."""

import importlib.util
import logging
import os
import re
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from configs.entry import CONFIGS
from configs.help import help_text
from configs.terminal import IDLE, one_gpu, tidy
from tests.runs import ROOT

HYDRA = {
    "ablate": ["rl/ablate.py"],
    "evaluate": ["evaluation/evaluate.py"],
    "predict": ["evaluation/predict.py"],
    "score": ["evaluation/score.py"],
    "serve": ["evaluation/serve.py"],
    "compare": ["evaluation/compare.py"],
    "report": ["evaluation/report.py"],
    "table": ["evaluation/table.py"],
    "grpo": ["rl/grpo.py"],
    "inspect": ["-m", "rollouts.inspect"],
    "train_decoder": ["sft/train_decoder.py"],
    "vqa": ["evaluation/vqa.py"],
    "warm_start": ["sft/warm_start.py"],
}
OTHERS = [["sft/merge.py"], ["sft/card.py"], ["rl/quickstart.py"]]
OTHERS += [["-m", f"segmentation.data.{name}"] for name in ("export", "inspect", "inventory")] + [
    ["-m", "rollouts.parity"]
]
SECONDS = 6  # of a processor that is shared; about 1 on an idle one, where what GRPO imports takes 7 and more


def told(command: list[str], *arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """What a command says and how it ends, and the seconds of a processor that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *command, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        text=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def check_help(text: str) -> None:
    lines = text.splitlines()
    assert 8 <= len(lines) <= 50 and max(map(len, lines)) <= 100
    assert "\x1b" not in text


@pytest.mark.parametrize("command", [*HYDRA.values(), *OTHERS], ids=lambda command: command[-1])
def test_help_fits_a_screen_and_comes_at_once(command):
    done, seconds = told(command, "--help", FORCE_COLOR="1", NO_COLOR="1")
    assert (done.returncode, done.stderr) == (0, "")
    check_help(done.stdout)
    assert command[-1] in done.stdout
    assert seconds < SECONDS


def test_every_hydra_command_is_listed_here():
    files = {path.stem for path in CONFIGS.glob("*.yaml")} - {"base"}
    sources = [path for folder in ("evaluation", "rl", "rollouts", "sft") for path in (ROOT / folder).glob("*.py")]
    named = re.findall(r'= configs\.main\(\s*"(\w+)"', "\n".join(path.read_text() for path in sources))
    assert sorted(named) == sorted(HYDRA) and set(named) <= files


@pytest.mark.parametrize("name", HYDRA)
def test_help_names_every_group_and_key_of_the_yaml(name):
    text = help_text(name, "What it does.\n\nMore.", CONFIGS)
    check_help(text)
    assert text.startswith("What it does.\n\n  ") and "More." not in text
    listed = (CONFIGS / f"{name}.yaml").read_text()
    for group, choice in re.findall(r"^  - (\w+): (\w+)", listed, re.MULTILINE):
        assert choice == "null" or re.search(rf"^  {group} +{choice}\*", text, re.MULTILINE)
        words = re.split(r"[\s,*()]+", text)
        assert {path.stem for path in (CONFIGS / group).glob("*.yaml")} <= set(words)
    for key in re.findall(r"^(\w+):", listed, re.MULTILINE):
        assert key == "defaults" or re.search(rf"^  {key}=", text, re.MULTILINE)
    for comment in re.findall(r"^\w+:.* # (.*)$", listed, re.MULTILINE):
        assert comment in " ".join(text.split())


@pytest.mark.parametrize("command", HYDRA.values(), ids=lambda command: command[-1])
def test_a_misspelt_key_is_refused_before_anything_slow_is_imported(command):
    done, seconds = told(command, "sede=1")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert re.search(r"error: unknown key 'sede'; (the nearest valid one is|valid are) ", line)
    assert seconds < SECONDS


def test_text_in_a_numbers_place_is_refused_before_anything_slow_is_imported():
    done, seconds = told(["rl/grpo.py"], "trainer.max_steps=many")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "grpo.py: error: trainer.max_steps: expected int, got 'many' (str).\n"
    assert seconds < SECONDS


WRONG = {
    "rl/grpo.py model.path=/nowhere": "model.path=/nowhere: no such folder",
    "rl/grpo.py model.path=sft/small_base/model format=bricks": "its vocabulary lacks 136 tokens of the format",
    "rl/grpo.py trainer=sft": "trainer: has no num_generations",
    "rl/grpo.py rewards=[default,mask_dic]": "choice of rewards 'mask_dic'; the nearest valid one is 'mask_dice'",
    "rl/grpo.py rewards.box_iou.weight=two": "rewards.box_iou.weight: expected float, got 'two' (str)",
    "rl/grpo.py model.path=sft/small_base/model validation.every=often": "validation.every: expected int, got 'often'",
    "sft/warm_start.py model.lora=64": "model.lora: expected dict",
    "evaluation/evaluate.py decoder=dsff": "DSFFDecoder is to be trained first",
    "evaluation/score.py predictions=/nowhere/p.jsonl": "/nowhere/p.jsonl: no such file",
}


@pytest.mark.parametrize("command", WRONG)
def test_a_value_that_cannot_be_is_said_in_one_line(command, tmp_path):
    script, *arguments = command.split()
    output = [f"output_dir={tmp_path}"] if "score" not in script else []
    done, _ = told([script], *arguments, *output)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert WRONG[command] in done.stderr.splitlines()[-1]


def test_the_config_is_printed_before_anything_slow_is_imported():
    done, seconds = told(["rl/grpo.py"], "--cfg", "job", "seed=5")
    assert (done.returncode, done.stderr) == (0, "") and "seed: 5" in done.stdout
    assert seconds < SECONDS


@pytest.mark.parametrize("command", OTHERS, ids=lambda command: command[-1])
def test_a_strange_argument_is_refused(command):
    done, _ = told(command, "--strange")
    assert done.returncode == 2 and "usage: " in done.stderr and "Traceback" not in done.stderr


def test_a_terminal_is_told_at_once_that_it_goes_on(tmp_path):
    ours, theirs = os.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "evaluation/table.py", f"folders=[{tmp_path}]"]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    first, second = os.read(ours, 1 << 16).decode().splitlines()
    os.close(ours)
    assert (done.returncode, first) == (2, "table.py: the config is checked; loading")
    assert second.startswith("table.py: error: folders: ")


@pytest.mark.parametrize(
    ("world", "given", "seen"),
    [(None, None, "0"), ("1", "2,3", "2"), (None, "", ""), ("2", "2,3", "2,3"), ("2", None, None)],
)
def test_a_process_on_its_own_sees_one_gpu(world, given, seen, monkeypatch):
    for name, value in (("WORLD_SIZE", world), ("CUDA_VISIBLE_DEVICES", given)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    one_gpu()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == seen


@pytest.mark.parametrize(("no_color", "coloured"), [("1", False), ("", True)])
def test_colours_are_left_out_where_they_are_not_wanted(no_color, coloured, tmp_path):
    environment = {"FORCE_COLOR": "1", "NO_COLOR": no_color, "TERM": "xterm-256color"}
    done, _ = told(
        ["-m", "segmentation.data.inspect"], "data=scenes", "count=1", f"output={tmp_path}/x.png", **environment
    )
    assert done.returncode == 0, done.stderr
    assert bool(re.search(r"\x1b\[(\d+;)*3\dm", done.stdout)) == coloured


def test_messages_are_left_out_that_libraries_still_have_and_no_others(monkeypatch, caplog):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    tidy()
    for name, message in IDLE.items():
        file = {"DeepSpeed": "deepspeed.accelerator.real_accelerator"}.get(name, name)
        package, _, rest = file.partition(".")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            assert package == "vllm"  # an extra
            continue
        source = Path(spec.submodule_search_locations[0], *rest.split(".")).with_suffix(".py").read_text()
        assert message in source  # else it can go from the list
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "propagate", True)
        monkeypatch.setattr(logger, "disabled", False)
        logger.error("%s and so on", message)
        logger.error("Something else than %s", message)
    said = [record.getMessage() for record in caplog.records]
    assert said and all(line.startswith("Something else than ") for line in said)


@pytest.mark.parametrize(("rank", "line"), [("0", "\napp.py: interrupted\n"), ("1", "")])
def test_ctrl_c_ends_a_program_with_one_line_and_as_a_shell_knows_it(rank, line, tmp_path):
    app = tmp_path / "app.py"
    app.write_text("import configs, time\nconfigs.tidy()\nprint('ready', flush=True)\ntime.sleep(600)\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RANK": rank}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # What a shell starts in the background ignores Ctrl-C, and so do its children: these tests may be such a thing.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    program = subprocess.Popen([sys.executable, str(app)], env=environment, preexec_fn=heard, **pipes)
    assert program.stdout and program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGINT)
    assert program.communicate(timeout=60) == ("", line)
    assert program.returncode == -signal.SIGINT  # to a shell: 128 + SIGINT, 130

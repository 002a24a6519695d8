"""The READMEs' commands run, in the order in which they are read, in one folder; or it is said why one cannot here.

    pytest tests/test_readme_runs.py -m slow

Each is run as it is printed, with more overrides behind it that make it short. /data are small files in the official
layouts, and the small base model stands in for a released one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from segmentation.data.refer import DATASETS
from segmentation.data.scenes import Scenes
from segmentation.sample import open_image
from tests.official import (
    HEIGHT,
    WIDTH,
    photo,
    write,
    write_grefcoco,
    write_llava,
    write_muse,
    write_pope,
    write_reasonseg,
)
from tests.ones_own import write_mine
from tests.readme_commands import Command, commands, readmes
from tests.runs import ROOT, environment
from tests.test_refer import write_refer

CANNOT = {  # what in a command says that it cannot be run here: why
    r"make quickstart": "15 minutes, of the five commands printed below it, which are run",
    r"make (test|setup)": "it runs these tests, or has made the environment that does",
    r"install -e": "it would change the environment of these tests",
    r"--num_processes 8|zero2\.yaml": "several GPUs; tests/test_distributed.py runs ZeRO-2 on two processes",
    r"nodes2\.yaml": "two nodes",
    r"trainer=decoder_released": "17 M parameters on a released model; tests/test_train_decoder.py trains small ones",
    r"push_to_hub=": "it uploads to the hub; tests/test_card.py looks at what it would",
    r"serve\.py": "it waits for someone who asks; tests/test_serve_browser.py does",
    r"rollouts\.parity": "two engines of vLLM; tests/test_parity.py runs it",
    r"make check-data": "official data: small ones are broken to it; tests/test_inventory.py",
    r"bench_formats": "real masks, for minutes; tests/test_formats_real.py holds formats to its figures",
}
SHORTENED = {  # what in a command: what is typed behind it
    r"sft/warm_start\.py": "++trainer.max_steps=2 ++trainer.per_device_train_batch_size=4",
    r"rl/grpo\.py": "rollouts=transformers ++trainer.max_steps=2 ++trainer.per_device_train_batch_size=8 "
    "++trainer.num_generations=4 ++trainer.max_completion_length=16",
    r"rl/grpo\.py(?!.*grpo_lora)": "++trainer.steps_per_generation=1",
    r"(rl|sft)/.*(trainer=\w+_lora|recipe=)": "++trainer.gradient_accumulation_steps=1",
    r"sft/train_decoder\.py": "++trainer.max_steps=2 ++trainer.per_device_train_batch_size=4 ++trainer.eval_steps=2 "
    "++trainer.save_steps=2 val_samples=8",
    r"evaluate\.py|predict\.py": "max_tokens=16",
    r"vqa\.py": "max_tokens=4",
    r"rollouts\.inspect": "++trainer.max_completion_length=16",
    r"benchmark=scenes_val": "benchmark.length=8",
    r"parts\.scenes_val\.length": "benchmark.parts.scenes_val.length=8",
    r"engine=vllm": "engine=transformers",
    r"(rl|sft|evaluation)/.*(model|recipe)=qwen": "model.max_pixels=null",
    r"(rl|sft|evaluation)/.*(model|recipe)=qwen(?!.*model\.path=)": "model.path=sft/small_base/model",
    r"rl/ablate\.py": "dry_run=true measure=0",  # what it starts is tests/test_ablate_sweep.py's
    r"pretrain\.py": "--steps 2 --vision-steps 2 --batch 2",
    # short as they are
    r"(score|compare|report|table|draw_formats)\.py|rollouts\.memory|segmentation\.data|python -c|pytest ": "",
}
REST = {  # of a command that is not printed whole
    "sft/warm_start.py": [],
    "rl/grpo.py": ["model.path=outputs/warm_start/policy", "format=box", "data=scenes"],
    "evaluation/evaluate.py": ["model.path=outputs/grpo/policy", "format=box"],
    "evaluation/score.py": ["predictions=outputs/eval/predictions.jsonl", "benchmark=scenes_val", "benchmark.length=8"],
}
COMMANDS = commands()


def reasons(command: Command) -> list[str]:
    """The patterns of CANNOT that a command fits."""
    return [pattern for pattern in CANNOT if re.search(pattern, str(command))]


def shortened(command: Command) -> list[str]:
    """The patterns of SHORTENED that it fits."""
    return [pattern for pattern in SHORTENED if re.search(pattern, str(command))]


def test_every_command_is_run_or_it_is_said_why_not():
    for command in COMMANDS:
        assert reasons(command) or shortened(command), f"{command.readme}: {command}: in neither table"
        assert not command.open or reasons(command) or command.script in REST
    run = [command for command in COMMANDS if not reasons(command)]
    used = {pattern for command in COMMANDS for pattern in reasons(command)}
    used |= {pattern for command in run for pattern in shortened(command)}
    assert used == {*CANNOT, *SHORTENED}
    assert len(run) > len(COMMANDS) / 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the repository's files, one's own ones, a photo and data, and no outputs."""
    folder = tmp_path_factory.mktemp("home")
    for path in ROOT.iterdir():
        if path.name not in ("outputs", ".git"):
            (folder / path.name).symlink_to(path)
    write_mine(folder)
    open_image(Scenes("val", 1)[0]).convert("RGB").save(folder / "photo.jpg")
    write_data(folder / "data")
    return folder


def write_data(root: Path) -> None:
    """Every official file that a README names, small: train, val and test are of different images."""

    def one_split_an_image(refs: list, _: Any) -> None:
        splits = {100: "val", 101: "testA"}
        refs[:] = [ref for ref in refs if ref["split"] == splits.get(ref["image_id"], "train")]

    def other_images(content: list) -> None:
        content[0]["file_name"] = "COCO_train2014_000000000011.jpg"
        content[1]["coco_url"] = "http://images.cocodataset.org/train2017/000000000013.jpg"

    write_refer(root, edit=one_split_an_image)
    assert {"refcoco+", "refcocog"} < set(DATASETS)
    shutil.copytree(root / "refcoco", root / "refcoco+")
    shutil.copytree(root / "refcoco", root / "refcocog")
    (root / "refcocog/refs(unc).p").rename(root / "refcocog/refs(umd).p")
    write_grefcoco(root)
    shutil.copytree(write_reasonseg(root) / "ReasonSeg/val", root / "ReasonSeg/train")
    write_muse(root, other_images)
    (root / "muse/MUSE_train.json").rename(root / "muse/MUSE_val.json")
    write_llava(root / "llava")
    (root / "llava/llava.json").rename(root / "llava/llava_v1_5_mix665k.json")
    write_pope(root)
    (root / "coco_pope_random.json").rename(root / "coco_pope_popular.json")
    asked = {"imageId": "n1", "question": "What is it?", "answer": "cup"}
    write(root / "testdev_balanced_questions.json", {"201": asked})
    photo(root / "gqa/images/n1.jpg")
    mine = {
        "id": "1",
        "image": "gqa/images/n1.jpg",
        "height": HEIGHT,
        "width": WIDTH,
        "expression": "cup",
        "targets": [],
    }
    (root / "mine.jsonl").write_text(json.dumps(mine) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("readme", readmes())
def test_the_commands_of_a_readme_run(readme, home):
    if readme != "README.md" and not (home / "outputs/grpo").is_dir():
        run_all("README.md", home)  # what the others go on from
    run_all(readme, home)


def run_all(readme: str, home: Path) -> None:
    """Its commands that can be run, one after another; the first that fails ends it."""
    for number, command in enumerate(COMMANDS):
        if command.readme == readme and not reasons(command):
            run(command, number, home)


def run(command: Command, number: int, home: Path) -> None:
    """The command, filled in and short. What it printed is shown if it fails."""
    words = list(command.words)
    if command.open:
        words += REST[command.script]
    if command.open and command.script != "evaluation/score.py" and "output_dir" not in str(command):
        words.append(f"output_dir=outputs/open-{number}")
    words += " ".join(SHORTENED[pattern] for pattern in shortened(command)).split()
    words = [re.sub(r"(?<==)/data\b", str(home / "data"), word) for word in words]
    programs = Path(sys.executable).parent
    words[0] = {"python": sys.executable}.get(words[0], str(programs / words[0]))
    path = os.pathsep.join([str(home), str(ROOT)])
    done = subprocess.run(words, cwd=home, env=environment() | {"PYTHONPATH": path}, text=True, capture_output=True)
    said = json.dumps(words) + "\n" + done.stdout[-3000:] + done.stderr[-6000:]
    assert done.returncode == 0, f"{command.readme}: {command}\n{said}"

"""TROUBLESHOOTING.md quotes what is printed: every text is one of the sources', this project's or its libraries'."""

import ast
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from configs.entry import CONFIGS, check_config, explained
from configs.strict import build
from evaluation.predictions import claim
from rewards.format_reasoning import format_reasoning
from segmentation.data import safe_pickle
from segmentation.data.check import check
from segmentation.data.jsonl import Jsonl
from segmentation.data.mixture import Mixture
from segmentation.data.order import Order
from segmentation.data.refer import Refer
from segmentation.data.scenes import Scenes
from segmentation.masks import empty
from segmentation.sample import Found, Instance
from tests.official import HEIGHT, LEFT, WIDTH, photo
from tests.runs import ROOT
from tests.test_refer import write_refer

PAGE = (ROOT / "TROUBLESHOOTING.md").read_text()
LIBRARIES = "## From the libraries"
OURS, THEIRS = (
    re.findall(r"^```text\n(.*?)\n```$", part, re.MULTILINE | re.DOTALL) for part in PAGE.split(LIBRARIES, 1)
)
FOLDERS = ("configs", "evaluation", "rewards", "rl", "rollouts", "segmentation", "sft")
UPSTREAM = {  # what a text begins with: the file that has it
    "Free memory": "vllm/v1/worker/utils.py",
    "No available": "vllm/v1/core/kv_cache_utils.py",
    "prompt (length": "vllm/v1/engine/input_processor.py",
    "Engine core": "vllm/v1/engine/utils.py",
    "There is no module": "vllm/model_executor/models/utils.py",
    "Image features": "transformers/models/qwen2_5_vl/modeling_qwen2_5_vl.py",
    "generation_batch_size": "trl/trainer/grpo_config.py",
    "CUDA_HOME": "deepspeed/ops/op_builder/builder.py",
    "Tried to launch": "accelerate/utils/launch.py",
    "We couldn't connect": "transformers/utils/hub.py",
}
NATIVE = ("CUDA out of memory", "Watchdog caught")  # of torch's own libraries, not of a Python file


def pieces(text: str, value: str = r"\.\.\.") -> list[str]:
    """What stands between the values of a text."""
    return [piece for piece in re.split(value, " ".join(text.split())) if piece.strip()]


def strings(file: Path) -> Iterator[str]:
    """Every string of a file, with a \\0 for each value in it. Docstrings are none."""
    tree = ast.parse(file.read_text())
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(one.value) if isinstance(one, ast.Constant) else "\0" for one in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


@cache
def own_strings() -> list[str]:
    return [text for folder in FOLDERS for file in (ROOT / folder).rglob("*.py") for text in strings(file)]


def has(text: str, quoted: str) -> bool:
    """Whether a string has all the pieces of a quoted text, in their order. Of four dots one is the text's."""
    text = " ".join(text.split())
    ways = [pieces(quoted, value) for value in (r"\.\.\.", r"\.\.\.(?!\.)")]
    return any(re.search(".*".join(map(re.escape, way)), text) for way in ways)


def composed(*overrides: str) -> None:
    with initialize_config_dir(str(CONFIGS), version_base=None):
        try:
            compose("grpo", [*overrides])
        except HydraException as error:
            raise explained(error) from error


def a_line(root: Path, **fields: Any) -> Path:
    photo(root / "1.jpg")
    entry = {"id": "1", "image": "1.jpg", "height": HEIGHT, "width": WIDTH, "expression": "cup", "targets": [fields]}
    (root / "mine.jsonl").write_text(json.dumps(entry) + "\n")
    return root


def a_ref(root: Path) -> Path:
    """RefCOCO with an image that is not there and one of another size."""
    write_refer(root)
    files = sorted(root.glob("images/**/*.jpg"))
    files[0].unlink()
    photo(files[1], 5, 7)
    return root


def broken_pickle(root: Path, content: bytes) -> None:
    (root / "refs(unc).p").write_bytes(content)
    safe_pickle.load(root / "refs(unc).p")


def claimed_twice(root: Path) -> None:
    for model in ("a", "b"):
        claim(root / "run.json", {"model": model})


def all_held_out(root: Path) -> None:
    Mixture({"refcoco": Refer(write_refer(root), split="val")})


def no_thoughts(_: Path) -> None:
    sample = Scenes("val", 1)[0]
    format_reasoning([Found((Instance(LEFT),))], [sample], [None], parts=[None])


RAISED: dict[str, Callable[[Path], object]] = {  # what a text begins with: how one gets it
    "unknown key": lambda _: composed("trainer.learning_rat=1"),
    "unknown choice": lambda _: composed("format=boxx"),
    "...: no value": lambda _: check_config(OmegaConf.create({"a": "???"}), OmegaConf.create({"a": "???"})),
    "...: expected": lambda _: build(Scenes, {"length": "many"}, where="data"),
    "Ambiguous": lambda _: composed("output_dir=a,b"),
    "mismatched": lambda _: OverridesParser.create().parse_override("output_dir=a=1"),
    "... holds the predictions": claimed_twice,
    "...: no such file. data.root": lambda root: Refer(root, split="val"),
    "... of ... samples cannot": lambda root: check(Refer(a_ref(root), split="val")),
    "... (sample": lambda root: check(Refer(a_ref(root), split="val")),
    "the pickle asks": lambda root: broken_pickle(root, b"cos\nsystem\n(S'true'\ntR."),
    "...: not a complete pickle": lambda root: broken_pickle(root, b"\x80\x02]q\x00("),
    "data.split=": lambda root: Refer(write_refer(root), split="testB"),
    "mask encloses": lambda root: Jsonl(a_line(root, box=LEFT, mask=empty(HEIGHT, WIDTH)), "mine.jsonl")[0],
    "data.parts": all_held_out,
    "data.no_target_ratio": lambda root: Order(Refer(write_refer(root), split="val"), 0, 0.3),
    "...: completions have no": no_thoughts,
}


@pytest.mark.parametrize("quoted", OURS)
def test_what_this_project_prints_is_quoted_as_it_is(quoted, tmp_path):
    assert sum(map(len, pieces(quoted))) >= 12
    raised = [how for start, how in RAISED.items() if quoted.startswith(start)]
    if raised:
        with pytest.raises((ValueError, OSError, HydraException)) as error:
            raised[0](tmp_path)
        assert has(str(error.value), quoted), error.value
    else:
        assert any(has(text, quoted) for text in own_strings())


@pytest.mark.parametrize("quoted", THEIRS)
def test_what_a_library_prints_is_quoted_as_it_is(quoted):
    after = PAGE.split(f"```text\n{quoted}\n```\n", 1)[1].split("```text", 1)[0]
    assert "](https://" in after  # where it is from
    if quoted.startswith(NATIVE):
        return
    (file,) = [file for start, file in UPSTREAM.items() if quoted.startswith(start)]
    package, _, rest = file.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        assert package == "vllm"  # an extra
        return
    assert any(has(text, quoted) for text in strings(Path(spec.submodule_search_locations[0], rest)))


def test_every_way_to_an_error_is_used():
    assert all(any(quoted.startswith(start) for quoted in OURS) for start in RAISED)
    assert all(any(quoted.startswith(start) for quoted in THEIRS) for start in UPSTREAM)
    assert 20 <= len(OURS) <= 60 and len(THEIRS) >= 10


def test_metrics_are_called_as_they_are_logged():
    trainer = Path(str(importlib.util.find_spec("trl.trainer.grpo_trainer").origin))  # pyright: ignore
    texts = [text for text in [*own_strings(), *strings(trainer)] if re.match(r"[a-z_]{4,}/", text)]
    logged = [re.escape(text).replace("\0", r"\w+") for text in texts]
    named = re.findall(r"`((?:groups|states|completions|sampling|time|rewards)/[\w/]+)`", PAGE)
    assert len(named) > 10
    for name in named:
        assert any(re.fullmatch(pattern, name) for pattern in logged), name


def test_a_text_that_nobody_prints_is_noticed():
    assert not any(has(text, "...: this is printed by ... nowhere") for text in own_strings())

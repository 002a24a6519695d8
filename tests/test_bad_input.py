"""What is wrong with a run is said before a model is loaded, in a sentence that names the thing and the way out."""

import importlib.util
import re
import sys

import pytest
from PIL import Image

import evaluation.evaluate
import rl.grpo
import rollouts.engines
import sft.warm_start
from tests.runs import BASE
from tests.test_refer import write_refer  # official-layout files, small


def run(main, *overrides):
    """The entry point in this process, as `python <script> overrides...`."""
    argv, sys.argv = sys.argv, [main.__module__.replace(".", "/") + ".py", *map(str, overrides)]
    try:
        main()
    finally:
        sys.argv = argv


@pytest.fixture(autouse=True)
def no_model_is_loaded(monkeypatch):
    def loaded(*_, **__):
        raise AssertionError("a model was loaded before the input was checked")

    for module in (sft.warm_start, rl.grpo):
        monkeypatch.setattr(module, "load_model", loaded)
    monkeypatch.setattr(rollouts.engines, "ENGINES", {"transformers": loaded, "vllm": loaded})


NAMES = [
    (rl.grpo.main, ["format=boxx"], "box"),
    (rl.grpo.main, ["rewards=defualt"], "default"),
    (rl.grpo.main, ["trainer.learning_rat=1"], "learning_rate"),
    (rl.grpo.main, ["trainer.max_steps=many"], "trainer.max_steps"),
    (evaluation.evaluate.main, ["benchmark=refcoco_vall"], "refcoco_val"),
    (evaluation.evaluate.main, ["engine=vlm"], "vllm"),
    (sft.warm_start.main, ["data.split=training"], "train"),
]


@pytest.mark.parametrize(("main", "overrides", "said"), NAMES, ids=lambda it: None if callable(it) else str(it))
def test_a_wrong_name_or_type_names_a_right_one(main, overrides, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(main, *overrides, f"model.path={BASE}", f"output_dir={tmp_path}")
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def refer_run(root, *overrides):
    return ["data=refcoco", f"data.root={root}", "data.split=val", f"model.path={BASE}", *overrides]


def test_a_missing_image(tmp_path, capsys):
    root = write_refer(tmp_path)
    broken = next(root.glob("images/**/*.jpg"))
    broken.unlink()
    with pytest.raises(SystemExit):
        run(sft.warm_start.main, *refer_run(root), f"output_dir={tmp_path}/out")
    assert re.search(f"{broken.name}.*no such file", capsys.readouterr().err)


def test_a_truncated_jpeg(tmp_path, capsys):
    root = write_refer(tmp_path)
    broken = next(root.glob("images/**/*.jpg"))
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(SystemExit):
        run(rl.grpo.main, *refer_run(root), f"output_dir={tmp_path}/out")
    assert re.search(f"{broken.name}.*cannot be read", capsys.readouterr().err)


def test_an_image_of_another_size_than_its_annotation(tmp_path, capsys):
    root = write_refer(tmp_path)
    broken = next(root.glob("images/**/*.jpg"))
    Image.new("RGB", (7, 5)).save(broken)
    with pytest.raises(SystemExit):
        run(rl.grpo.main, *refer_run(root), f"output_dir={tmp_path}/out")
    assert re.search("7x5, its annotation says", capsys.readouterr().err)


def test_an_empty_split(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(rl.grpo.main, *refer_run(write_refer(tmp_path), "data.split=testB"), f"output_dir={tmp_path}/out")
    assert "testB" in capsys.readouterr().err


def test_a_checkpoint_without_the_formats_tokens(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(rl.grpo.main, "format=bricks", f"model.path={BASE}", f"output_dir={tmp_path}")
    assert "Warm-start it on this format first" in capsys.readouterr().err


def test_vllm_asked_for_and_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    for main, asked in ((rl.grpo.main, "rollouts=vllm"), (evaluation.evaluate.main, "engine=vllm")):
        with pytest.raises(ModuleNotFoundError, match=r"uv pip install -e '\.\[vllm"):
            run(main, asked, f"model.path={BASE}", f"output_dir={tmp_path}")


@pytest.mark.parametrize("path", ["outputs/nowhere", "runs/of/mine/policy"])  # a name on the hub has one slash
def test_a_folder_that_is_not_there(path, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(sft.warm_start.main, f"model.path={path}", f"output_dir={tmp_path}")
    assert f"model.path={path}: no such folder" in capsys.readouterr().err

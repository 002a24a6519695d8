"""Cards: what a policy's and a decoder's folder say of themselves, and that the code in them runs."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
from huggingface_hub import HfApi, ModelCard
from hydra import compose, initialize_config_dir
from PIL import Image

from segmentation.backbones import Spec
from segmentation.decoders import BoxGuidedDecoder, load_decoder
from segmentation.formats import BoxFormat
from sft.card import add_metrics, main, origin, write_card
from tests.runs import BASE, ROOT

PROMPT = BoxFormat("relative1000").prompt("the left cup")


def config(command, *overrides):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose(command, [*overrides])


@pytest.fixture
def policy(tmp_path):
    """A policy's folder with the card of a GRPO run that started from Qwen2.5-VL-3B."""
    folder = tmp_path / "run" / "policy"
    shutil.copytree(ROOT / BASE, folder)
    write_card(config("grpo", "model=qwen2_5_vl_3b", "format=box", "format.reasoning=true"), PROMPT, folder)
    return folder


def test_the_card_is_one_the_hub_reads(policy):
    card = ModelCard.load(policy / "README.md")
    said = card.data.to_dict()
    assert said["base_model"] == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert (said["license"], said["license_name"]) == ("other", "qwen-research")
    assert (said["library_name"], said["pipeline_tag"]) == ("transformers", "image-text-to-text")
    assert "box_iou x 1, mask_iou x 1" in card.text and "LoRA of rank 64, merged" in card.text
    assert "Scenes" in card.text and "BoxFormat {reasoning: true" in card.text
    assert re.search(r"\| commit \| [0-9a-f]{40}", card.text) and "transformers 5.17" in card.text


def test_the_code_for_transformers_runs(policy, tmp_path, monkeypatch):
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", (policy / "README.md").read_text(), re.DOTALL)[0]
    space: dict = {}
    exec(code.replace("max_new_tokens=512", "max_new_tokens=8"), space)
    assert isinstance(space["answer"], str) and space["answer"]
    assert PROMPT in space["text"]


def test_a_base_that_is_a_folder_is_no_link_into_the_hub(tmp_path):
    cfg = config("warm_start")
    write_card(cfg, "where is the cup?", tmp_path / "absent")
    write_card(cfg, "where is the cup?", tmp_path)
    text = (tmp_path / "README.md").read_text()
    said = ModelCard.load(tmp_path / "README.md").data.to_dict()
    assert "base_model" not in said and "license_link" not in said and "huggingface.co" not in text
    assert not (tmp_path / "absent").exists() and "  image=" not in text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["format=bricks", "format.grid=24", "model=qwen3_vl_4b"], "format=bricks format.grid=24 model.dtype=bfloat16"),
        (["format=box", "decoder=trained", "decoder.path=d/best"], "format=box decoder=trained decoder.path=d/best"),
        (["format=descriptors", "format.reasoning=true"], "format=descriptors format.reasoning=true"),
    ],
)
def test_the_command_for_masks_reads_the_policy_as_it_was_trained(tmp_path, asked, said):
    cfg = config("grpo", *asked)
    write_card(cfg, "where is the cup?", tmp_path)
    command = re.findall(r"`python evaluation/predict.py (.*?)`", (tmp_path / "README.md").read_text())[0]
    assert f"model.path={tmp_path} {said} image=photo.jpg" in command
    again = config("predict", *shlex.split(command))
    assert again.format == cfg.format and again.model.dtype == cfg.model.dtype


def test_the_code_for_vllm_is_python(policy):
    compile(re.findall(r"```python\n(.*?)```", (policy / "README.md").read_text(), re.DOTALL)[1], "card", "exec")


def test_the_base_is_the_released_model_however_many_trainings_lie_between(policy):
    assert origin(str(policy)) == (
        "Qwen/Qwen2.5-VL-3B-Instruct",
        {"license": "other", "license_name": "qwen-research"},
    )
    assert origin("some/model")[1]["license_name"] == "unknown"


def test_metrics_are_put_in_once(policy, tmp_path, capsys):
    (tmp_path / "metrics.json").write_text(json.dumps({"protocol": "lisa", "gIoU": 0.512345, "n_scored": 7}))
    for _ in range(2):
        main([str(policy), f"metrics={tmp_path / 'metrics.json'}"])
    text = (policy / "README.md").read_text()
    assert text.count("## Metrics") == 1 and "| gIoU | 0.5123 |" in text and "| n_scored | 7 |" in text
    add_metrics(policy, {"protocol": "rela", "gIoU": 0.25})
    assert "| gIoU | 0.2500 |" in (policy / "README.md").read_text()
    told = {
        "metric=x": "unknown key 'metric'; the nearest valid one is 'metrics'",
        "metrics=no.json": "metrics=no.json: no such file",
    }
    for option, said in told.items():
        with pytest.raises(SystemExit, match="2"):
            main([str(policy), option])
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "push_to_hub=a/b"])
    assert "has no README.md" in capsys.readouterr().err


def test_pushing_is_the_hubs_own_upload_of_the_folder(policy, monkeypatch):
    called = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, exist_ok: called.append((name, exist_ok)))
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **given: called.append(given) or "https://hub/a/b")
    main([str(policy), "push_to_hub=a/b"])
    assert called == [("a/b", True), {"repo_id": "a/b", "folder_path": str(policy)}]


def test_a_decoder_loads_by_one_line_and_has_a_card(tmp_path):
    spec = Spec("qwen2_5_vl", (0, 3), (96, 96), 160)
    made = BoxGuidedDecoder(
        160, (96, 96), spec=spec, hidden=16, layers=1, heads=2, feedforward=16, pixel=8, positions=4
    )
    made.save_pretrained(tmp_path)
    assert load_decoder(tmp_path).spec == spec
    card = ModelCard.load(tmp_path / "README.md")
    assert card.text.strip().startswith("# BoxGuidedDecoder") and str(spec) in card.text
    assert "from segmentation.decoders import load_decoder" in card.text
    assert card.data.to_dict()["pipeline_tag"] == "image-segmentation"

"""The READMEs' files of one's own: a dataset, a format, a decoder and a reward, as printed, run together."""

import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from rl import grpo
from segmentation.data import inspect
from tests.ones_own import write_mine
from tests.runs import BASE, QUICK_GRPO, ROOT, history


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """`tests.ones_own.write_mine`, importable."""
    monkeypatch.syspath_prepend(str(tmp_path))
    GlobalHydra.instance().clear()
    return write_mine(tmp_path)


def test_the_files_are_those_of_the_readmes(mine):
    written = {str(file.relative_to(mine)) for file in mine.rglob("*.*") if "photos" not in file.parts}
    code = {"area.py", "corners.py", "ellipse.py", "masks_folder.py"}
    groups = {"rewards/area", "format/corners", "decoder/ellipse", "data/masks_folder"}
    assert written == code | {f"configs/{name}.yaml" for name in groups}


def test_a_dataset_and_a_format_are_shown(mine, tmp_path, capsys):
    chosen = ["data=masks_folder", f"data.root={mine / 'photos'}", "format=corners", f"output={tmp_path / 'shown.png'}"]
    with pytest.raises(SystemExit) as ended:
        inspect.main(["--config-dir", str(mine / "configs"), *chosen, f"model.path={ROOT / BASE}"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "Corners of" in said and "8 of 8 samples" in said
    assert (tmp_path / "shown.png").stat().st_size > 0


def test_all_four_train_together(mine, monkeypatch, tmp_path):
    chosen = ["data=masks_folder", f"data.root={mine / 'photos'}", "format=corners", "decoder=ellipse"]
    paid = ["rewards=[default,area]", "rewards.area.power=2", "rollouts=transformers"]
    where = [f"model.path={ROOT / BASE}", f"output_dir={tmp_path / 'run'}", *QUICK_GRPO, "trainer.max_steps=1"]
    monkeypatch.setattr(sys, "argv", ["rl/grpo.py", "--config-dir", str(mine / "configs"), *where, *chosen, *paid])
    grpo.main()
    logged = history(tmp_path / "run")
    assert any("rewards/area/mean" in line for line in logged)

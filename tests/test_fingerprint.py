"""A policy's identity is that of its weights, not of the folder's name."""

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from rollouts.fingerprint import fingerprint, policy_identity


def test_a_small_step_of_training_makes_another_fingerprint_and_a_copy_the_same(tmp_path):
    weights = {f"layer.{number}": torch.randn(300, 300) for number in range(30)}  # 11 MB, of which 4 are read
    for name, step in (("one", 0.0), ("copy", 0.0), ("other", 1e-4)):
        (tmp_path / name).mkdir()
        save_file({key: value + step for key, value in weights.items()}, tmp_path / name / "model.safetensors")
    one, copy, other = (fingerprint(tmp_path / name) for name in ("one", "copy", "other"))
    assert one == copy and one != other
    (tmp_path / "one" / "model.safetensors").rename(tmp_path / "one" / "model-1.safetensors")
    assert fingerprint(tmp_path / "one") != one


def test_a_repository_of_the_hub_has_its_name_alone(tmp_path):
    cfg = {"model": {"path": "Qwen/Qwen2.5-VL-3B-Instruct", "dtype": "auto", "max_pixels": None}, "decoder": None}
    assert policy_identity(OmegaConf.create(cfg)) == {
        "checkpoint": "Qwen/Qwen2.5-VL-3B-Instruct",
        "weights": {"model": None},
        "dtype": "auto",
        "max_pixels": None,
    }
    (tmp_path / "a.safetensors").write_bytes(b"short")
    cfg["decoder"] = {"path": str(tmp_path)}
    assert policy_identity(OmegaConf.create(cfg))["weights"]["decoder"] == fingerprint(tmp_path)

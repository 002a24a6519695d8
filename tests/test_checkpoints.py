"""sft/checkpoints.py: old checkpoints go only when a new one is whole, and the best stays."""

import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from sft.checkpoints import WHOLE, MarkWhole, last_checkpoint, remove_old, resume_from


def written(folder, step: int, whole: bool = True) -> None:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights")
    if whole:
        (path / WHOLE).touch()


def left(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_latest_are_kept_and_the_best_beside_them(tmp_path):
    for step in (2, 4, 6, 8, 10):
        written(tmp_path, step)
    written(tmp_path, 7, whole=False)  # torn: does not count, and goes
    remove_old(tmp_path, keep=2, best=4)
    assert left(tmp_path) == {"checkpoint-4", "checkpoint-8", "checkpoint-10"}


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "checkpoint-mine").mkdir()
    (tmp_path / "policy").mkdir()
    written(tmp_path, 1)
    written(tmp_path, 2)
    remove_old(tmp_path, keep=1)
    assert left(tmp_path) == {"checkpoint-mine", "policy", "checkpoint-2"}


def test_nothing_is_removed_before_the_new_one_is_whole(tmp_path):
    mark = MarkWhole()
    arguments = TrainingArguments(output_dir=str(tmp_path), save_total_limit=1, use_cpu=True, report_to="none")
    state, control = TrainerState(), TrainerControl()
    mark.on_train_begin(arguments, state, control)
    assert arguments.save_total_limit is None  # transformers would remove the only whole one
    written(tmp_path, 1)
    written(tmp_path, 2, whole=False)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")
    state.global_step = 2
    mark.on_save(arguments, state, control)
    assert left(tmp_path) == {"checkpoint-2"}
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


def test_an_optimizer_is_loaded_onto_a_cpu_that_has_a_number(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / WHOLE).touch()
    torch.save({"exp_avg": torch.ones(2)}, tmp_path / "optimizer.pt")
    for _ in range(2):  # a program may resume twice
        assert resume_from(tmp_path, resume=True)
    for device in ("cpu:0", "cpu:1", "cpu"):
        loaded = torch.load(tmp_path / "optimizer.pt", map_location=torch.device(device), weights_only=True)
        assert loaded["exp_avg"].device.type == "cpu" and loaded["exp_avg"].sum() == 2

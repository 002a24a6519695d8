"""rl/watched.py on a real trainer: what is logged and validated, what stops a run, and what is left then."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback

from rl.boundaries import AtGenerationEnd
from rl.finite import NotFinite
from rl.validation import save_best
from rollouts.policy import LANGUAGE_LINEARS, load_model, load_processor
from segmentation.backbones import make_backbone
from segmentation.data.scenes import Scenes
from segmentation.decoders import BoxGuidedDecoder
from sft.checkpoints import last_checkpoint, save_now
from sft.interrupts import SaveOnSignal
from tests.runs import BASE, QUICK_GRPO, ROOT, environment, history, launch, lottery
from tests.small_trainer import SCENES, small_trainer, small_validation

IDS = {scene.id for scene in Scenes("train", SCENES)[:]}


def logged(trainer, key: str) -> list[float]:
    return [line[key] for line in trainer.state.log_history if key in line]


@pytest.fixture(scope="module")
def validated(taught, tmp_path_factory):
    """Four steps of a policy that writes boxes, validated after every second, with everything that is logged."""
    folder = tmp_path_factory.mktemp("validated")
    settings: dict[str, Any] = {
        "report_to": "tensorboard",
        "save_steps": 1,
        "save_total_limit": 1,
        "max_completion_length": 32,
    }
    trainer = small_trainer(folder, policy=taught, validation=small_validation(), **settings)
    trainer.train()
    return trainer, folder


def test_every_step_logs_what_was_paid_answered_and_how_long_it_took(validated):
    trainer, _ = validated
    steps = [line for line in trainer.state.log_history if "loss" in line]
    assert len(steps) == 4
    for line in steps:
        assert {"rewards/lottery/mean", "rewards/lottery/std", "frac_reward_zero_std"} <= line.keys()  # TRL's
        assert line["rewards/lottery/none"] == 0
        assert line["groups/equal"] == line["frac_reward_zero_std"]
        assert any(key.startswith("completions/mean_length/") for key in line)
        parts = {key: value for key, value in line.items() if key.startswith("time/")}
        assert parts["time/generate"] > 0 and parts["time/update"] > 0
        assert sum(parts.values()) == pytest.approx(line["step_time"], rel=0.1)
    assert any(key.startswith("box_iou/") for line in steps for key in line)
    assert any(key.startswith("mask_iou/") for line in steps for key in line)


def test_validation_is_before_the_first_step_and_after_every_second(validated):
    trainer, _ = validated
    assert [line["step"] for line in trainer.state.log_history if "eval_gIoU" in line] == [0, 2, 4]
    for line in (line for line in trainer.state.log_history if "eval_gIoU" in line):
        assert 0 <= line["eval_gIoU"] <= 1
        assert {"eval_cIoU", "eval_box_iou", "eval_T_acc", "eval_invalid_rate"} <= line.keys()
        assert not any(key.startswith("eval_completions") for key in line)


def test_groups_are_drawn_to_disk_and_to_the_tracker(validated):
    _, folder = validated
    drawn = sorted(path.name for path in (folder / "overlays").iterdir())
    assert drawn == ["step_00000.png", "step_00002.png", "step_00004.png"]
    with Image.open(folder / "overlays" / drawn[0]) as picture:
        assert picture.width > picture.height > 300  # a line of four
    events = EventAccumulator(str(next((folder / "runs").iterdir()))).Reload()
    assert [event.step for event in events.Images("eval/overlays")] == [0, 2, 4]
    assert {"eval/gIoU", "train/time/generate", "train/groups/equal"} <= set(events.Tags()["scalars"])


def test_the_best_checkpoint_is_kept_and_written_as_a_policy(validated, taught):
    trainer, folder = validated
    reached = {line["step"]: line["eval_gIoU"] for line in trainer.state.log_history if "eval_gIoU" in line}
    best = max((2, 4), key=reached.__getitem__)
    assert trainer.state.best_global_step == best
    assert {path.name for path in folder.glob("checkpoint-*")} == {f"checkpoint-{best}", "checkpoint-4"}
    save_best(trainer, load_processor(taught), folder)
    saved, kept = load_model(folder / "best").state_dict(), load_model(folder / f"checkpoint-{best}").state_dict()
    assert all(torch.equal(saved[name], kept[name]) for name in kept)


def test_validation_changes_nothing_in_training(validated, taught, tmp_path):
    trainer, _ = validated
    alone = small_trainer(tmp_path, policy=taught, max_completion_length=32)
    alone.train()
    assert logged(alone, "loss") == logged(trainer, "loss")
    assert logged(alone, "reward") == logged(trainer, "reward")


def test_validation_of_an_adapter_whose_masks_a_trained_decoder_makes(taught, tmp_path):
    lora = LoraConfig(r=4, target_modules=LANGUAGE_LINEARS, task_type="CAUSAL_LM")
    spec = make_backbone(load_model(taught, "float32"), load_processor(taught), (-1,)).spec
    sizes: dict[str, Any] = {"hidden": 32, "layers": 1, "heads": 4, "feedforward": 64, "pixel": 16}
    sizes |= {"frequencies": 8, "positions": 4}
    decoder = BoxGuidedDecoder(spec.llm_dim, spec.vision_dims, **sizes, use_token=False, spec=spec)
    given: dict[str, Any] = {"lora": lora, "decoder": decoder, "max_steps": 1, "max_completion_length": 32}
    trainer = small_trainer(
        tmp_path, policy=taught, validation=small_validation(every=1, length=3, overlays=0), **given
    )
    trainer.train()
    assert len(logged(trainer, "eval_gIoU")) == 2
    save_best(trainer, load_processor(taught), tmp_path)
    assert (tmp_path / "best" / "model.safetensors").exists()


@pytest.mark.distributed
def test_two_processes_validate_as_one_does(tmp_path):
    """Five samples and three groups: neither is a multiple of two."""
    asked = ["benchmark=scenes_val", "validation.every=1", "validation.length=5", "validation.overlays=3"]
    asked += ["validation.metric=mean_tokens", "rollouts=transformers", f"model.path={BASE}", *QUICK_GRPO]
    first = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        launch("rl/grpo.py", *asked, f"output_dir={folder}", processes=processes)
        evaluated = [line for line in history(folder) if "eval_mean_tokens" in line]
        assert [line["step"] for line in evaluated] == [0, 1, 2]
        assert len(list((folder / "overlays").iterdir())) == 3
        first.append({key: value for key, value in evaluated[0].items() if key.startswith("eval_")})
    assert first[0] == first[1]


def stopped(trainer) -> str:
    """Why the trainer stops, and what it saved, as rl/grpo.py says it."""
    with pytest.raises(NotFinite) as stop:
        trainer.train()
    return f"{stop.value} {save_now(trainer)}"


def test_a_nan_reward_stops_the_run_and_names_the_sample(tmp_path):
    calls = []

    def broken(predictions, samples, masks, **columns):
        calls.append([sample.id for sample in samples])
        return [*lottery(predictions, samples, masks, **columns)[:-1], float("nan") if len(calls) == 3 else None]

    trainer = small_trainer(tmp_path, {"broken": broken})
    said = stopped(trainer)
    assert f"rewards.broken is nan for sample {calls[-1][-1]}" in said
    assert "checkpoint-2" in said and last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    resumed = small_trainer(tmp_path)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert resumed.state.global_step == 4


def head(trainer) -> torch.nn.Parameter:
    return trainer.model.get_input_embeddings().weight  # tied to the head


def test_a_logit_that_is_not_finite_stops_generation(tmp_path):
    class Poison(TrainerCallback):
        def on_step_begin(self, args, state, control, **given):
            if state.global_step == 1:
                with torch.no_grad():
                    given["model"].get_input_embeddings().weight[5] = torch.inf

    said = stopped(small_trainer(tmp_path, callbacks=(Poison(),)))
    assert "a logit was not finite while generating for samples" in said
    assert any(id in said for id in IDS)
    assert "The weights are not finite themselves" in said and last_checkpoint(tmp_path) is None


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path):
    before = {}

    def spoils(predictions, samples, masks, **columns):
        if trainer.state.global_step == 1:
            before["head"] = head(trainer).detach().clone()
            with torch.no_grad():
                head(trainer)[5] = torch.nan
        return lottery(predictions, samples, masks, **columns)

    trainer = small_trainer(tmp_path, {"spoils": spoils})
    said = stopped(trainer)
    assert "the loss is nan: the logits are not finite for samples" in said
    assert any(id in said for id in IDS)
    assert trainer.state.global_step == 1
    others = torch.arange(len(before["head"])) != 5
    assert torch.equal(head(trainer)[others], before["head"][others])


def test_a_gradient_that_is_not_finite_is_not_applied(tmp_path):
    trainer = small_trainer(tmp_path)
    weight = next(p for name, p in trainer.model.named_parameters() if name.endswith("q_proj.weight"))
    weight.register_hook(lambda grad: grad * torch.inf if trainer.state.global_step == 2 else grad)
    said = stopped(trainer)
    assert "the gradient's norm is" in said and any(id in said for id in IDS)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert all(value.isfinite().all() for value in saved.values())


class Send(TrainerCallback):
    """Sends this process a signal within the step after `step`."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_a_whole_checkpoint_once_what_was_written_is_used_up(tmp_path: Path, number, code):
    interrupts = SaveOnSignal()
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "steps_per_generation": 2,
        "num_generations": 2,
        "max_steps": 6,
    }
    trainer = small_trainer(tmp_path, callbacks=(interrupts, Send(number, 2)), **settings)
    trainer.add_callback(AtGenerationEnd(trainer))
    trainer.train()
    assert trainer.state.global_step == 4  # the signal came in the third step, the first of a generation's two
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    with pytest.raises(SystemExit) as end:
        interrupts.exit_if_told(tmp_path)
    for own, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        signal.signal(own, handler)
    assert end.value.code == code


@pytest.mark.parametrize("script", ["sft/warm_start.py", "sft/train_decoder.py"])
def test_other_trainings_save_on_a_signal_too_and_its_copy_is_none(tmp_path: Path, script: str):
    chosen = [f"output_dir={tmp_path}", "trainer.max_steps=500", "trainer.per_device_train_batch_size=2"]
    chosen += ["trainer.save_steps=4", "trainer.report_to=none"]
    chosen += ["trainer.eval_steps=500"] if "decoder" in script else []
    run = subprocess.Popen(
        [sys.executable, script, *chosen], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    while last_checkpoint(tmp_path) is None:
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    run.send_signal(signal.SIGTERM)  # a launcher's copy
    said = run.communicate()[0]
    assert run.returncode == 143 and "resume=true goes on from there" in said
    assert int(str(last_checkpoint(tmp_path)).rpartition("-")[2]) < 500
    assert not (tmp_path / "policy").exists() and not (tmp_path / "decoder").exists()

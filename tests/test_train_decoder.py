"""sft/train_decoder.py: every decoder learns on the small base model, and what it leaves behind loads."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

import configs
from rollouts.policy import LANGUAGE_LINEARS, add_tokens, load_model, load_processor
from segmentation import masks
from segmentation.backbones import make_backbone
from segmentation.data.scenes import Scenes
from segmentation.decoders import BoxGuidedDecoder, DSFFDecoder
from segmentation.decoders.load import load_decoder
from segmentation.formats import BoxFormat, BrickFormat, SegTokenFormat
from segmentation.formats.base import left_to_right
from segmentation.sample import Sample, Target
from sft.checkpoints import last_checkpoint
from sft.decoder_batches import WithTargets, objects
from sft.decoder_boxes import jitter, own_boxes
from sft.decoder_setup import check_format, evenly
from sft.merge import save_policy
from sft.train_decoder import main
from sft.view import Viewer
from tests.runs import BASE, launch

QUICK = [
    "trainer.max_steps=4",
    "trainer.per_device_train_batch_size=8",
    "trainer.eval_steps=4",
    "trainer.save_steps=4",
    "trainer.logging_steps=1",
    "trainer.report_to=none",
    "trainer.warmup_steps=1",
    "trainer.learning_rate=3e-3",
    "val_samples=8",
    "data.length=8",
]
LORA = "model.lora={r: 4, lora_alpha: 8}"
DECODERS = {
    "box_guided_small": ["format=box"],
    "box_guided_small with all": ["format=mask_token", "decoder.use_token=true", "decoder.use_states=true"],
    "dsff_small": ["format=seg_token", "loss=mllmseg"],
    "self1e": ["format=seg_token", "loss=self1e"],
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    """The small base model with the tokens of the formats, not trained on them."""
    model, processor = load_model(BASE, "float32"), load_processor(BASE)
    add_tokens(model, processor, (*BoxFormat(mask_token=True).new_tokens, *SegTokenFormat().new_tokens))
    return save_policy(model, processor, tmp_path_factory.mktemp("base") / "policy")


@pytest.fixture
def train(monkeypatch, policy, tmp_path):
    """The entry point, in this process; gives the folder it wrote to."""

    def run(*overrides: str, name: str = "run") -> Path:
        chosen = [f"model.path={policy}", f"output_dir={tmp_path / name}", *QUICK, *overrides]
        monkeypatch.setattr(sys, "argv", ["sft/train_decoder.py", *chosen])
        GlobalHydra.instance().clear()
        main()
        return tmp_path / name

    return run


def logged(folder: Path, key: str) -> list[float]:
    lines = json.loads((Path(last_checkpoint(folder) or "") / "trainer_state.json").read_text())["log_history"]
    return [line[key] for line in lines if key in line]


@pytest.mark.parametrize("name", DECODERS)
def test_each_decoder_learns_and_loads(train, name):
    folder = train(f"decoder={name.split()[0]}", *DECODERS[name], "trainer.max_steps=12", "trainer.eval_steps=6")
    losses = logged(folder, "loss")
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert len(logged(folder, "eval_miou")) == 2
    last, best = load_decoder(folder / "decoder"), load_decoder(folder / "best")
    assert last.spec == best.spec
    assert last.spec is not None and last.spec.family == "qwen2_5_vl"
    same = load_file(folder / "checkpoint-12" / "decoder" / "model.safetensors")
    assert all(torch.equal(same[key], value) for key, value in last.state_dict().items())


def test_resuming_is_as_if_it_had_never_stopped(train):
    chosen = ["trainer.max_steps=6", "trainer.save_steps=4", "data.length=24"]  # 3 steps an epoch
    folder = train(*chosen)
    whole = load_file(folder / "decoder" / "model.safetensors")
    shutil.rmtree(folder / "checkpoint-6")
    shutil.rmtree(folder / "decoder")
    train(*chosen, "resume=true")
    again = load_file(folder / "decoder" / "model.safetensors")
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_a_cache_changes_nothing_and_is_not_used_for_another_policy(train, tmp_path, capsys):
    chosen = ["decoder=dsff_small", "format=seg_token", "data.length=16", "trainer.per_device_train_batch_size=16"]
    cached = [*chosen, f"cache={tmp_path / 'cache'}"]
    plain = logged(train(*chosen), "loss")
    assert logged(train(*cached, name="filling"), "loss") == pytest.approx(plain, rel=1e-3)
    said = capsys.readouterr().out
    assert "MB a row, at most 0.0 GB for 24 rows" in said
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.safetensors")}
    assert 16 < len(files) <= 2 * 24
    assert logged(train(*cached, name="filled"), "loss") == pytest.approx(plain, rel=1e-3)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.safetensors")} == files
    with pytest.raises(SystemExit):
        train(*cached, "decoder.vision_layers=[0]", name="stale")
    assert "vision_layers differ (vision_layers was [3], is [0])" in capsys.readouterr().err


def test_joint_training_leaves_merged_policies_with_the_last_decoder_and_the_best(train, policy, capsys):
    chosen = [
        "joint=true",
        LORA,
        "decoder=dsff_small",
        "format=seg_token",
        "loss=mllmseg",
        "data.length=32",
        "trainer.eval_steps=2",
    ]
    folder = train(*chosen)
    assert logged(folder, "text")[0] > 0
    load_decoder(folder / "decoder")
    merged, before = load_model(folder / "policy", "float32"), load_model(policy, "float32")
    best = load_model(folder / "best" / "policy", "float32")
    for one in (merged, best):
        pairs = zip(one.named_parameters(), before.parameters(), strict=True)
        changed = [name for (name, new), old in pairs if not torch.equal(new, old)]
        assert changed and all("language_model" in name for name in changed)
    state = json.loads((folder / "trainer_state.json").read_text())
    reached = [(line["eval_miou"], -line["step"]) for line in state["log_history"] if "eval_miou" in line]
    is_last = -max(reached)[1] == state["global_step"]  # of equals the first
    of_both = zip(best.parameters(), merged.parameters(), strict=True)
    assert len(reached) > 1 and is_last == all(torch.equal(one, other) for one, other in of_both)
    assert f"its policy: {folder / 'best' / 'policy'}" in capsys.readouterr().out
    assert (folder / "best" / "adapter" / "adapter_model.safetensors").exists()
    assert "[SEG]" in load_processor(folder / "best" / "policy").tokenizer.get_vocab()
    assert (folder / "checkpoint-4" / "policy" / "adapter_model.safetensors").exists()
    shutil.rmtree(folder / "policy")
    train(*chosen, "resume=true")
    again = load_model(folder / "policy", "float32")  # nothing was left to do but to save
    assert all(torch.equal(new, old) for new, old in zip(again.parameters(), merged.parameters(), strict=True))


def test_the_loss_of_the_text_is_the_models_own(policy):
    model, processor = load_model(policy, "float32").eval(), load_processor(policy)
    spec = make_backbone(model, processor).spec
    viewer = Viewer(model, processor, DSFFDecoder(spec.llm_dim, spec.vision_dims[0], spec=spec), SegTokenFormat())
    inputs = viewer.inputs(list(Scenes("train", length=6)))
    policy_of = get_peft_model(model, LoraConfig(target_modules=LANGUAGE_LINEARS, init_lora_weights=False)).eval()
    _, loss = viewer.read(policy_of, inputs)
    inputs.pop("image_sizes")
    torch.testing.assert_close(loss, policy_of(**inputs).loss, atol=1e-5, rtol=1e-5)


def test_checkpointing_the_policy_changes_no_loss(train):
    chosen = ["joint=true", LORA, "format=mask_token", "decoder.use_token=true", "decoder.use_states=true"]
    plain = logged(train(*chosen), "loss")
    assert logged(train(*chosen, "trainer.gradient_checkpointing=true", name="less"), "loss") == pytest.approx(plain)


def test_the_policys_own_boxes_are_trained_from(train, tmp_path, capsys):
    kinds = "data.kinds={attribute: 1.0}"
    files = []
    for split in ("train", "val"):
        samples = Scenes(split, 8, kinds={"attribute": 1.0})
        rows = [{"id": one.id, "boxes": [list(target.box) for target in one.targets]} for one in samples]
        rows[0]["boxes"] = []
        files.append(tmp_path / f"{split}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = ["boxes=predictions", f"boxes_file={files[0]}", f"val_boxes_file={files[1]}", f"~{kinds.split('=')[0]}"]
    chosen += [f"+{kinds}", "benchmark.length=8", "+benchmark.kinds={attribute: 1.0}"]
    train(*chosen)
    said = capsys.readouterr().out
    assert said.count("7 of 8 boxes are the policy's own, the others annotated") == 2
    with pytest.raises(SystemExit):
        train(*chosen, "data.seed=1", name="other")
    assert "of other samples than the data" in capsys.readouterr().err


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["decoder=filled_box"], "FilledBox has nothing to train"),
        (["decoder=dsff_small"], "reads a segmentation token, and this format writes none; choose format=mask_token"),
        (["format=seg_token"], "needs a box for each object, and this format writes none; choose format=box"),
        (["decoder.vision_layers=[7]"], "no block 7, the encoder has 4"),
        (["decoder.hiden=3"], "decoder.hiden"),
        (["joint=true", "cache=x"], "cache: with joint=true the policy changes"),
        (["trainer.gradient_checkpointing=true"], "only with joint=true"),
        (["boxes=predictions"], "boxes_file, val_boxes_file: given with boxes=predictions, and only then"),
        (["boxes=theirs"], "unknown value of boxes 'theirs'"),
        (["box_jitter=0.6"], "from 0 to below 0.5"),
        (["loss.bcee=1"], "loss.bcee"),
    ],
)
def test_what_cannot_work_is_said_before_training(train, capsys, overrides, message):
    with pytest.raises(SystemExit):
        train(*overrides)
    assert message in capsys.readouterr().err


def square(name: str, x: int, with_mask: bool = True) -> Target:
    box = (float(x), 2.0, float(x + 6), 10.0)
    return Target(box, masks.from_box(box, 32, 32) if with_mask else None, name)


def asked(*targets: Target, name: str = "a") -> Sample:
    return Sample(name, Path("none.png"), 32, 32, "it", targets)


def test_objects_are_in_the_order_of_the_text():
    two = asked(square("right", 20), square("left", 1))
    assert [one.label for one in objects(two, BoxFormat())] == ["left", "right"]
    assert [one.label for one in objects(two, BoxFormat(mask_token=True))] == ["left", "right"]
    assert left_to_right(two.targets) == objects(two, BoxFormat())
    (whole,) = objects(two, SegTokenFormat())  # one [SEG] for both
    assert whole.box == (1.0, 2.0, 26.0, 10.0)
    assert whole.mask is not None and masks.area(whole.mask) == 2 * 6 * 8
    assert objects(asked(), BoxFormat()) == []
    with pytest.raises(ValueError, match="sample a has a target without mask"):
        objects(asked(square("left", 1, with_mask=False)), BoxFormat())


def test_a_format_with_masks_needs_no_decoder():
    decoder = BoxGuidedDecoder(8, (8,), hidden=8, layers=1, heads=1, feedforward=8, pixel=8, use_token=False)
    with pytest.raises(configs.ConfigError, match="its text has the masks"):
        check_format(decoder, BrickFormat(grid=8), [asked(square("left", 1))])
    with pytest.raises(configs.ConfigError, match="no target in the first"):
        check_format(decoder, BoxFormat(), [asked()])


def test_samples_without_target_are_replaced_by_the_next():
    samples = WithTargets([asked(name="a"), asked(square("x", 1), name="b"), asked(name="c")])
    assert [one.id for one in samples] == ["b", "b", "b"]
    with pytest.raises(ValueError, match="no sample has a target"):
        WithTargets([asked()])[0]


def test_jitter_moves_edges_by_a_share_of_the_side():
    torch.manual_seed(0)
    boxes = torch.tensor([[0.2, 0.4, 0.6, 0.5]]).repeat(2000, 1)
    moved = (jitter(boxes, 0.1) - boxes).abs().max(0).values
    assert moved.tolist() == pytest.approx([0.04, 0.01, 0.04, 0.01], rel=0.02)
    edge = jitter(torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(100, 1), 0.4)
    assert edge.min() >= 0 and edge.max() <= 1
    assert (edge[:, 2:] > edge[:, :2]).all()
    assert jitter(boxes, 0.0) is boxes


def test_own_boxes_go_to_the_objects_they_overlap(tmp_path):
    two = asked(square("right", 20), square("left", 1))
    near, wrong = [20.0, 2.0, 27.0, 10.0], [8.0, 2.0, 14.0, 10.0]
    file = tmp_path / "predictions.jsonl"
    file.write_text(json.dumps({"id": "a", "boxes": [near, wrong, None]}) + "\n")
    found = own_boxes([two], file, partial(objects, format=BoxFormat()))
    assert found.boxes["a"] == [(1.0, 2.0, 7.0, 10.0), tuple(near)]
    assert (found.matched, found.total) == (1, 2)
    with pytest.raises(ValueError, match="answers 1 samples, the data has 2"):
        own_boxes([two, two], file, partial(objects, format=BoxFormat()))
    file.write_text("{}\n")
    with pytest.raises(ValueError, match="line 1: no prediction"):
        own_boxes([two], file, partial(objects, format=BoxFormat()))


def test_layers_are_evenly_spaced_up_to_the_last():
    assert evenly(4, 24) == (5, 11, 17, 23)  # Qwen3-VL's deepstack, and the last
    assert evenly(4, 32) == (7, 15, 23, 31)  # Qwen2.5-VL's full attention
    assert evenly(1, 24) == (23,)
    with pytest.raises(ValueError, match="5 blocks of an encoder that has 4"):
        evenly(5, 4)


@pytest.mark.distributed
def test_two_processes_train_one_decoder(tmp_path, policy):
    chosen = [f"model.path={policy}", f"output_dir={tmp_path}", *QUICK, "decoder=dsff_small", "format=seg_token"]
    launch("sft/train_decoder.py", *chosen, "data.length=32", processes=2)
    load_decoder(tmp_path / "decoder")
    assert (Path(last_checkpoint(tmp_path) or "") / "rng_state_1.pth").exists()
    launch("sft/train_decoder.py", *chosen, "data.length=32", "trainer.max_steps=6", "resume=true", processes=2)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-6")

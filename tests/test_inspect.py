"""Looking at a group of completions and at data: the numbers shown are those of training."""

import re
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from trl import GRPOConfig

from configs.entry import CONFIGS
from rl.credit import group_advantages, inside, split_advantages
from rl.trainer import SegGRPOTrainer
from rollouts import inspect as rollouts_inspect
from rollouts.answers import Answers
from rollouts.engines import Completion, Sampling
from rollouts.group import make_advantages, pay, score
from rollouts.policy import load_model
from rollouts.rows import picture, prompt_rows
from rollouts.sections import make_decoder, make_rewards
from segmentation.data import inspect as data_inspect
from segmentation.panels import PREDICTED, TRUTH
from tests.runs import BASE, ROOT
from tests.taught import some_scenes
from tests.test_overlay import count

LOTTERY = "+rewards.lottery={_target_: tests.runs.lottery, weight: 0.5}"
SETTINGS = [("none", "sum_then_normalize"), ("group", "sum_then_normalize"), ("none", "normalize_then_sum")]


def config(*overrides: str):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        cfg = compose("inspect", list(overrides))
    OmegaConf.resolve(cfg)
    return cfg


def run(main, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """A command in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["inspect.py", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def test_rewards_and_advantages_are_those_of_the_trainer(taught, tmp_path):
    cfg = config(f"model.path={taught}", LOTTERY)
    rewards, weights, paid = make_rewards(cfg.rewards)
    policy = Answers(cfg)
    sample = some_scenes()[0]
    arguments = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=6,
        num_generations=6,
        max_completion_length=28,
        temperature=1.5,
        reward_weights=weights,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    trainer = SegGRPOTrainer(
        model=load_model(taught, "float32"),
        args=arguments,
        train_dataset=prompt_rows([sample], policy.format, policy.frame),
        processing_class=policy.processor,
        format=policy.format,
        rewards=rewards,
        paid=paid,
        decoder=make_decoder(cfg.decoder),
    )
    trainer.model.train()
    rows = [prompt_rows([sample], policy.format, policy.frame)[0]] * 6
    image = picture(sample, policy.frame)
    seen = set()
    for scale, aggregation in SETTINGS:
        trainer.scale_rewards, trainer.multi_objective_aggregation = scale, aggregation
        made = trainer._generate_and_score_completions([dict(row) for row in rows])
        completions = []
        for ids, mask in zip(made["completion_ids"], made["completion_mask"], strict=True):
            written = ids[mask.bool()].tolist()
            ended = written[-1] == policy.processor.tokenizer.eos_token_id
            completions.append(Completion(tuple(written[:-1] if ended else written), truncated=not ended))
        predictions = policy.read([sample] * 6, [image] * 6, completions)
        scores = score(policy, sample, completions, predictions, rewards)
        torch.testing.assert_close(scores, trainer._scores, equal_nan=True)
        settings = {"scale_rewards": scale, "multi_objective_aggregation": aggregation}
        settings["importance_sampling_level"] = "token"
        advantages = make_advantages(cfg.advantages, policy, weights, paid, settings)
        given = pay(policy, completions, predictions, scores, weights, paid, advantages)
        torch.testing.assert_close(given.of_rest, made["advantages"])
        assert given.of_masks.isnan().all()
        seen |= {round(float(value), 4) for value in given.of_rest}
    assert len(seen) > 6


def test_parts_are_paid_as_training_pays_them():
    opening, closing = 1, 2
    ids = torch.tensor([[9, 1, 5, 2, 9], [9, 1, 5, 5, 2], [9, 9, -1, -1, -1]])
    rewards = torch.tensor([[1.0, 0.8, 0.5], [1.0, 0.2, 0.9], [0.0, 0.0, 0.0]])
    weights, paid = torch.tensor([0.2, 1.0, 1.0]), ["all", "rest", "mask"]
    broken = torch.tensor([False, False, True])
    advantages, of_masks = group_advantages(rewards, weights, paid, broken, ids, (opening, closing))
    to_masks, to_rest = split_advantages(rewards, weights, paid, 3, broken)
    assert torch.equal(of_masks, inside(ids, opening, closing))
    assert torch.equal(advantages, torch.where(of_masks, to_masks[:, None], to_rest[:, None]))
    assert advantages[0, 2] < 0 < advantages[0, 0]  # its box was better than its mask
    for tags, scale, said in ((None, "none", "a format with masks"), ((1, 2), "group", "scale_rewards=none")):
        with pytest.raises(ValueError, match=said):
            group_advantages(rewards, weights, paid, broken, ids, tags, scale)


def test_sampling_differs_within_a_group_and_comes_again_with_its_seed(taught):
    policy, sample = Answers(config(f"model.path={taught}")), some_scenes()[0]
    image = picture(sample, policy.frame)

    def drawn(**how) -> list[tuple[int, ...]]:
        made = policy.generate([sample] * 4, [image] * 4, 12, Sampling(**how))
        return [completion.tokens for completion in made]

    hot = drawn(temperature=2.0, seed=1)
    assert len(set(hot)) > 1
    assert drawn(temperature=2.0, seed=1) == hot != drawn(temperature=2.0, seed=2)
    greedy = [one.tokens for one in policy.generate([sample] * 4, [image] * 4, 12)]
    assert drawn(temperature=2.0, top_k=1) == greedy and len(set(greedy)) == 1


def test_a_sample_by_its_id_and_a_picture_with_a_box(taught, tmp_path, monkeypatch, capsys):
    scene = some_scenes()[0]
    fixed = [f"model.path={taught}", f"output_dir={tmp_path}", "trainer.num_generations=3", "trainer.temperature=0.2"]
    fixed += ["trainer.max_completion_length=40"]
    scenes = ["data.split=val", "data.length=60", f"id={scene.id}"]
    assert run(rollouts_inspect.main, monkeypatch, *fixed, *scenes) == 0
    told = capsys.readouterr().out
    assert scene.expression in told and "#3" in told and "advantage" in told
    row = next(line for line in told.splitlines() if line.startswith("│ 1"))
    format, box, mask, no_target, total, _ = (cell.strip() for cell in row.split("│")[2:-1])
    assert (format, no_target) == ("1.00", "-") and float(box) > 0.9
    assert float(total) == pytest.approx(0.2 + float(box) + float(mask), abs=0.02)
    page = tmp_path / f"{scene.id}.png"
    assert count(page, TRUTH) > 100 and count(page, PREDICTED) > 300

    assert isinstance(scene.image, Image.Image)
    scene.image.save(tmp_path / "photo.png")
    asked = [f"image={tmp_path}/photo.png", f"expression={scene.expression}"]
    edges = ",".join(map(str, scene.targets[0].box))
    assert run(rollouts_inspect.main, monkeypatch, *fixed, *asked, f"boxes=[[{edges}]]") == 0
    told = capsys.readouterr().out
    row = next(line for line in told.splitlines() if line.startswith("│ 1"))
    assert [cell.strip() for cell in row.split("│")[2:5]] == ["1.00", box, "-"]  # there is no mask to compare with
    assert run(rollouts_inspect.main, monkeypatch, *fixed, *asked) == 0
    told = capsys.readouterr().out
    assert "not known" in told and "advantage" not in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["id=nothing", "data.length=5"], "id=nothing: none of the 5 samples"),
        (["index=5", "data.length=5"], "index=5: data has 5 samples"),
        (["image=x.png"], "image, expression: give both"),
        (["boxes=[[0,0,1,1]]"], "boxes only with them"),
        (["image=x.png", "expression=it"], "x.png: no such file"),
        (["image=rl/pictures/long.png", "expression=it", "boxes=[[5,5,1,9]]"], "boxes: [5, 5, 1, 9] is no [x1"),
        (["trainer.num_generations=1"], "a group has at least 2"),
        (["rewards=by_part"], "need a format with masks"),
        (["trainer.temprature=1"], "the nearest valid one is 'trainer.temperature'"),
        (["rewards.box_iou.wieght=1"], "rewards.box_iou.weight"),
    ],
)
def test_what_cannot_be_inspected_is_said(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    assert run(rollouts_inspect.main, monkeypatch, *arguments, f"output_dir={tmp_path}") == 2
    assert message in capsys.readouterr().err


def look(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        data_inspect.main([*map(str, arguments)])
    return end.value.code if isinstance(end.value.code, int) else 1


def test_samples_are_shown_as_a_policy_is_taught_them(tmp_path, capsys):
    page = tmp_path / "page.png"
    asked = ["data=scenes", "data.length=200", "format=box", "count=4"]
    assert look(*asked, f"model.path={ROOT / BASE}", f"output={page}") == 0
    told = capsys.readouterr().out
    assert told.count("prompt  Locate") == 4 and len(re.findall(r"\d+ prompt and picture, \d+ target", told)) == 4
    assert count(page, TRUTH) > 300
    numbers = [int(number) for number in re.findall(r"index (\d+)", told)]
    assert numbers == sorted(set(numbers)) and len(numbers) == 4
    assert look(*asked, "seed=1", f"output={tmp_path / 'other.png'}") == 0
    other = capsys.readouterr().out
    assert re.findall(r"index (\d+)", other) != [str(number) for number in numbers] and "tokens" not in other


def test_the_target_text_is_the_one_trained_on(taught, tmp_path, capsys):
    wanted = some_scenes()[0]
    index = int(wanted.id.split("-")[3])
    shown = ["benchmark=scenes_val", f"index={index}", f"output={tmp_path / 'one.png'}"]
    assert look(*shown, f"model.path={taught}") == 0
    told = capsys.readouterr().out
    policy = Answers(config(f"model.path={taught}"))
    text = policy.format.encode(wanted)
    assert f"target  {text}\n" in told and f"prompt  {policy.format.prompt(wanted.expression)}\n" in told
    tokens = len(policy.processor.tokenizer.encode(text, add_special_tokens=False))
    assert f" {tokens} target" in told
    assert look(*shown, "format=bricks_box") == 0
    assert re.search(r"reads   found, mask IoU 0\.9\d+|IoU 1\.000", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["format=box"], "usage: python -m segmentation.data.inspect"),
        (["data=scenes", "count=some"], "count=some: a whole number"),
        (["data=scenes", "count=0"], "count=0: show at least 1"),
        (["data=scenes", "data.length=5", "index=5"], "index=5: the dataset has 5 samples"),
        (["data=scenes", "format=bx"], "unknown choice of format 'bx'; the nearest valid one is 'box'"),
        (["data=scenes", "+format.gird=3"], "format=box: .*'gird'"),
        (["data=scenes", "model.path=outputs/nowhere"], "model.path=outputs/nowhere: no such folder"),
        (["data=jsonl", "data.root=."], "data.file: no value"),
    ],
)
def test_what_cannot_be_shown_is_said(arguments, message, capsys):
    assert look(*arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_broken_pictures_are_named_and_the_others_shown(tmp_path, capsys):
    Image.new("RGB", (30, 20)).save(tmp_path / "good.png")
    line = '{"id": "%s", "image": "%s.png", "height": 20, "width": 30, "expression": "it", "targets": []}\n'
    (tmp_path / "mine.jsonl").write_text(line % ("a", "good") + line % ("b", "gone"))
    asked = ["data=jsonl", f"data.root={tmp_path}", "data.file=mine.jsonl", f"output={tmp_path / 'page.png'}"]
    assert look(*asked) == 1
    told = capsys.readouterr().out
    assert "gone.png" in told and "1 of 2 samples" in told
    assert (tmp_path / "page.png").stat().st_size > 1000

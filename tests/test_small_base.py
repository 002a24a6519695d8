"""The small base model that lies in the repository sees scenes, and speaks none of this project's formats."""

import json
from pathlib import Path

import torch

from rollouts.engines import TransformersEngine
from rollouts.policy import load_model, load_processor
from rollouts.rows import chat
from segmentation.data.scenes import Scenes
from segmentation.formats import BoxFormat, BrickFormat
from segmentation.sample import Invalid, open_image
from sft.small_base.build import qwen2_5_vl
from sft.small_base.pretrain import grounding
from tests.runs import BASE, ROOT

FOLDER = ROOT / BASE


def test_it_is_small():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 8_000_000
    assert 1_000_000 < load_model(FOLDER).num_parameters() < 3_000_000


def test_it_grounds_held_out_scenes_in_its_own_words():
    model, processor = load_model(FOLDER, "float32").eval(), load_processor(FOLDER)
    scores = grounding(model, processor, Scenes("testA", 192))
    assert scores["iou"] >= 0.85, scores


def test_it_knows_no_format_of_this_project():
    processor = load_processor(FOLDER)
    engine = TransformersEngine(FOLDER, processor, "float32")
    samples = [Scenes("val")[i] for i in range(8)]
    for format in (BoxFormat(), BrickFormat()):
        chats = [chat(format.prompt(sample.expression)) for sample in samples]
        for completion in engine.generate(chats, [open_image(sample) for sample in samples], 40):
            assert isinstance(format.parse(completion.text(processor.tokenizer), 64, 64), Invalid)


def test_greedy_is_greedy_whatever_the_policy_ships():
    processor = load_processor(FOLDER)
    engine = TransformersEngine(FOLDER, processor, "float32")
    samples = [Scenes("val")[i] for i in range(8)]
    asked = [chat(sample.expression) for sample in samples], [open_image(sample) for sample in samples], 24
    plain = engine.generate(*asked)
    engine.model.generation_config.update(repetition_penalty=2.0, no_repeat_ngram_size=2)
    assert engine.generate(*asked) == plain


def test_the_script_builds_the_architecture_and_tokenizer_that_are_kept():
    model, processor = qwen2_5_vl()
    kept = load_model(FOLDER)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in kept.named_parameters()}
    assert processor.tokenizer.get_vocab() == load_processor(FOLDER).tokenizer.get_vocab()


def test_its_log_says_what_the_weights_score():
    last = json.loads(Path(FOLDER.parent, "log.jsonl").read_text().splitlines()[-1])
    assert last["iou"] >= 0.85
    scores = grounding(load_model(FOLDER, "float32").eval(), load_processor(FOLDER), Scenes("val", 256))
    assert abs(scores["iou"] - last["iou"]) < 0.02  # saved in bfloat16


def test_weights_are_finite():
    assert all(torch.isfinite(p).all() for p in load_model(FOLDER).parameters())

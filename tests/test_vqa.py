"""VQA: LLaVA's rows in a warm start, and POPE's and GQA's answers read and scored as published."""

import json
import random
from pathlib import Path

import pytest
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from configs import ConfigError
from evaluation.predictions import BadPredictions
from evaluation.vqa import read_answers, score
from evaluation.vqa_scores import gqa, pope, says_yes
from rollouts.policy import image_frame, load_processor
from rollouts.rows import answer_rows
from rollouts.sections import make_training_samples
from segmentation.boxes import ResizedPixels
from segmentation.data.check import check
from segmentation.data.export import export
from segmentation.data.llava import Llava
from segmentation.data.mixture import Mixture
from segmentation.data.scenes import Scenes
from segmentation.data.vqa import Vqa
from segmentation.formats import BoxFormat
from segmentation.sample import BrokenImage
from tests.official import HEIGHT, WIDTH, photo, write, write_grefcoco, write_llava, write_pope
from tests.runs import BASE, QUICK_SFT, ROOT, launch


def test_every_answer_is_a_sample_with_the_turns_before_it(tmp_path):
    samples = Llava(write_llava(tmp_path), "llava.json", text_only="skip")
    check(samples)
    assert (len(samples), samples.skipped) == (3, 1)
    made = [samples.sample(index) for index in range(3)]
    assert [(one.expression, one.answer) for one in made] == [
        ("What is on the left?", "A cup."),
        ("And right?", "A bowl."),
        ("Is it red?", "A cup."),
    ]
    assert [one.before for one in made] == [(), ("What is on the left?", "A cup."), ()]
    assert [samples.image_id(index) for index in range(3)] == [9, 9, None]
    assert {(one.height, one.width) for one in samples} == {(HEIGHT, WIDTH)}
    first = Llava(tmp_path, "llava.json", "first", "skip")
    assert [first.sample(index).expression for index in range(len(first))] == ["What is on the left?", "Is it red?"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda content: None, r"llava\.json: entry 2: has no image; data\.text_only=skip"),
        (lambda content: content[0].pop("conversations"), r"entry 0: has no field 'conversations'"),
        (lambda content: content[0]["conversations"].pop(), r"entry 0: has 3 turns; each question needs its answer"),
        (lambda content: content[0]["conversations"].pop(0), r"entry 0: turn 0 is from 'gpt', not from 'human'"),
        (lambda content: content[1].update(conversations=[]), r"entry 1: has 0 turns"),
        (lambda content: content[1]["conversations"][0].update(value="<image>"), r"entry 1: turn 0 is empty"),
        (lambda content: content[1].update(image="../x.jpg"), r"entry 1: file_name '\.\./x\.jpg' leads out"),
    ],
)
def test_what_is_wrong_with_a_conversation_is_named(tmp_path, edit, said):
    with pytest.raises(ValueError, match=said):
        Llava(write_llava(tmp_path, edit), "llava.json")


def test_a_missing_image_is_broken(tmp_path):
    samples = Llava(write_llava(tmp_path), "llava.json", text_only="skip")
    (tmp_path / "gqa/images/1.jpg").unlink()
    with pytest.raises(BrokenImage, match=r"gqa/images/1\.jpg: no such file"):
        samples[2]


def test_the_loss_is_on_the_last_answer_alone_and_the_picture_comes_first(tmp_path):
    processor = load_processor(ROOT / BASE)
    frame = image_frame(processor)
    assert isinstance(frame, ResizedPixels)
    talk = Llava(write_llava(tmp_path), "llava.json", text_only="skip")
    samples = [talk[0], talk[1], Scenes("val", length=1)[0]]
    rows = list(answer_rows(samples, BoxFormat(frame), frame))
    inputs = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)(rows)
    told = [row[row != -100] for row in inputs["labels"]]
    texts = [processor.tokenizer.decode(row, skip_special_tokens=True).strip() for row in told]
    assert texts[:2] == ["A cup.", "A bowl."] and texts[2] == BoxFormat(frame).encode(samples[2])
    seen = processor.tokenizer.decode(inputs["input_ids"][1])
    places = [
        seen.index(part) for part in ("<|vision_start|>", "What is on the left?", "A cup.", "And right?", "A bowl.")
    ]
    assert places == sorted(places) and seen.count("<|vision_start|>") == 1


def test_a_mixture_takes_them_and_drops_the_images_of_benchmarks(tmp_path):
    def on_a_held_out_image(content: list) -> None:
        content[0]["image"] = "coco/train2014/COCO_train2014_000000000008.jpg"  # gRefCOCO's val has image 8

    write_llava(tmp_path, on_a_held_out_image)
    photo(tmp_path / "coco/train2014/COCO_train2014_000000000008.jpg")
    gref = {"_target_": "segmentation.data.grefcoco.GRefCOCO", "root": str(write_grefcoco(tmp_path)), "split": "train"}
    llava = {"_target_": "segmentation.data.llava.Llava", "root": str(tmp_path), "file": "llava.json"}
    section = {
        "_target_": "segmentation.data.mixture.Mixture",
        "parts": {"gref": gref, "vqa": llava | {"text_only": "skip"}},
        "on_error": "raise",
    }
    samples = make_training_samples(section, in_words=True)
    assert sorted(one.id.split("-")[0] for one in samples if one.dataset == "llava") == ["llava"]
    assert len(samples) == 4
    with pytest.raises(ConfigError, match=r"data: has VQA rows, .* only sft/warm_start\.py"):
        make_training_samples(section)
    with pytest.raises(ValueError, match="is a question, to be answered in words"):
        export(Mixture({"vqa": Llava(tmp_path, "llava.json", "first", "skip")}), tmp_path / "out.jsonl", tmp_path)


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("Yes", True),
        ("No", False),
        ("no, there is not", False),
        ("No. Yes.", False),
        ("Yes. There is no cup.", True),
        ("There is not a cup", False),
        ("NO", True),
        ("Nothing", True),
        ("no\n", True),
        ("I see, no", False),
        ("", True),
    ],
)
def test_pope_reads_yes_and_no_as_published(text, yes):
    assert says_yes(text) == yes


def test_pope_figures_are_those_of_the_published_formulas():
    rng = random.Random(0)
    answers = rng.choices(["Yes", "No", "yes, it is.", "There is not."], k=500)
    labels = rng.choices(["yes", "no"], k=500)
    said = [answer in ("Yes", "yes, it is.") for answer in answers]
    counts = {"TP": 0, "FP": 0, "TN": 0, "FN": 0}
    for yes, label in zip(said, labels, strict=True):
        counts[("T" if yes == (label == "yes") else "F") + ("P" if yes else "N")] += 1
    precision, recall = counts["TP"] / (counts["TP"] + counts["FP"]), counts["TP"] / (counts["TP"] + counts["FN"])
    assert pope(answers, labels) == pytest.approx(
        {
            "accuracy": (counts["TP"] + counts["TN"]) / 500,
            "precision": precision,
            "recall": recall,
            "F1": 2 * precision * recall / (precision + recall),
            "yes_ratio": sum(said) / 500,
            **counts,
        }
    )
    silent = pope(["No"] * 2, ["yes", "no"])
    assert (silent["precision"], silent["recall"], silent["F1"], silent["yes_ratio"]) == (None, 0, None, 0)


def test_gqa_is_exact_match_without_case_and_full_stop():
    assert gqa(["Yes.", "a dog", "left..", "red ", "two"], ["yes", "dog", "left", "red", "2"]) == {"accuracy": 2 / 5}


def test_pope_and_gqa_files_are_read_and_each_question_is_scored_once(tmp_path):
    questions = Vqa(write_pope(tmp_path), "coco_pope_random.json", "pope")
    assert [questions.sample(index).answer for index in range(3)] == questions.labels == ["yes", "no", "no"]
    assert questions[0].expression == "Is there a cup in the image?"
    ids = [one.id for one in questions]
    assert ids == [f"pope-coco_pope_random-{number}" for number in (1, 2, 3)]
    metrics = score(questions, dict(zip(ids, ["Yes", "No.", "yes"], strict=True)))
    assert (metrics["accuracy"], metrics["n_expected"], metrics["n_scored"]) == (2 / 3, 3, 3)
    with pytest.raises(BadPredictions, match="1 questions have no answer, the first is pope-coco_pope_random-3"):
        score(questions, dict.fromkeys(ids[:2], "Yes"))
    with pytest.raises(BadPredictions, match="1 questions are not asked, the first is other"):
        score(questions, dict.fromkeys([*ids, "other"], "Yes"))
    entry = {"imageId": "n1", "question": "What is it?", "answer": "cup"}
    write(tmp_path / "testdev.json", {"201": entry})
    assert Vqa(tmp_path, "testdev.json", "gqa").id(0) == "gqa-testdev-201"
    with pytest.raises(ValueError, match=r"coco_pope_random\.json: line 2: label 'maybe' is neither"):
        Vqa(write_pope(tmp_path, lambda content: content[1].update(label="maybe")), "coco_pope_random.json", "pope")
    with pytest.raises(ValueError, match=r"leads out"):
        Vqa(write_pope(tmp_path, lambda content: content[1].update(image="../a.jpg")), "coco_pope_random.json", "pope")


def test_a_bad_line_of_answers_is_named(tmp_path: Path):
    row = json.dumps({"id": "a", "answer": "yes"}) + "\n"
    for text, said in (("[]\n", "line 2"), (row, "a was on an earlier line"), ('{"id": "b"}\n', "answer")):
        (tmp_path / "answers.jsonl").write_text(row + text)
        with pytest.raises(BadPredictions, match=said):
            read_answers(tmp_path / "answers.jsonl")


@pytest.mark.distributed
def test_a_warm_start_learns_both_and_two_processes_answer_every_question(tmp_path):
    write_pope(write_llava(tmp_path))
    vqa = ["+data@data.parts.vqa=llava", f"data.parts.vqa.root={tmp_path}", "data.parts.vqa.file=llava.json"]
    parts = [f"~data.parts.{name}" for name in ("refcoco", "refcoco_plus", "refcocog", "grefcoco")]
    mixed = ["data=mixture", *parts, "+data@data.parts.scenes=scenes", *vqa, "data.parts.vqa.text_only=skip"]
    mixed += ["data.root=none", "data.length=200", "data.weights={scenes: 3, vqa: 1}"]
    out = tmp_path / "out"
    launch("sft/warm_start.py", *mixed, *QUICK_SFT, f"output_dir={out}")
    asked = ["questions=pope", f"questions.root={tmp_path}", "questions.file=coco_pope_random.json", "batch_size=1"]
    asked += [f"model.path={out}/policy", f"output_dir={tmp_path}/vqa", "max_tokens=4"]
    launch("evaluation/vqa.py", *asked, processes=2)
    answers = (tmp_path / "vqa/answers.jsonl").read_text()
    assert len(answers.splitlines()) == 3
    (tmp_path / "vqa/answers.jsonl").write_text(answers[: answers.index("\n") + 9])  # killed within the second line
    launch("evaluation/vqa.py", *asked)
    assert (tmp_path / "vqa/answers.jsonl").read_text() == answers
    assert json.loads((tmp_path / "vqa/metrics.json").read_text())["n_scored"] == 3

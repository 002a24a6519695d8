"""What a policy has forgotten: POPE and GQA, answered greedily and scored by their published rules.

    accelerate launch evaluation/vqa.py model.path=outputs/grpo/policy questions.root=/data questions.file=coco_pope_popular.json
    accelerate launch evaluation/vqa.py model.path=... questions=gqa questions.root=/data questions.file=testdev_balanced_questions.json

Writes answers.jsonl and metrics.json into output_dir. Run again, it goes on where it stopped, and with every answer there
it scores them again without a model. Several processes share the questions out.
"""  # noqa: E501, a command cannot be broken

from __future__ import annotations

import configs

# Imports take seconds, the command line is checked before them.
command = configs.main("vqa", script=__name__)

import hashlib
import json
from pathlib import Path
from typing import Any, cast

from accelerate import PartialState
from accelerate.utils import gather_object
from omegaconf import DictConfig
from rich.progress import track

from evaluation.predictions import BadPredictions, claim, drop_half_line
from evaluation.score import write_metrics
from evaluation.vqa_scores import SCORES
from rollouts.device import processes, use_all_cores
from rollouts.engines import check_engine, make_engine
from rollouts.fingerprint import policy_identity
from rollouts.policy import image_frame, load_processor
from rollouts.rows import chat, picture
from rollouts.sections import check_samples
from segmentation.data.vqa import Vqa


@command
def main(cfg: DictConfig) -> None:
    """Answer, batch by batch, what has no answer yet; score."""
    use_all_cores()
    state = processes()
    check_engine(cfg)
    questions = configs.instantiate(cfg.questions, where="questions")
    check_samples(questions, "questions")
    output = Path(cfg.output_dir)
    path = output / "answers.jsonl"
    if state.is_main_process:
        configs.record_run(output, cfg, cfg.seed)
        with questions.path.open("rb") as file:  # a reworded question keeps its id
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        run = policy_identity(cfg) | {"questions": configs.plain(cfg.questions), "sha256": digest}
        claim(output / "run.json", run | {key: cfg[key] for key in ("instruction", "max_tokens")})
        path.touch()
        drop_half_line(path)
    state.wait_for_everyone()
    finished = read_answers(path)
    todo = [index for index in range(len(questions)) if questions.id(index) not in finished]
    state.wait_for_everyone()  # until all have read it, none adds to it
    if todo:
        answer(questions, todo, path, cfg, state)
    if state.is_main_process:
        metrics = score(questions, read_answers(path))
        write_metrics(metrics, output / "metrics.json")
        print(json.dumps(metrics, indent=2))


def answer(questions: Vqa, todo: list[int], path: Path, cfg: DictConfig, state: PartialState) -> None:
    """Append the answers to these questions, in their order."""
    processor = load_processor(cfg.model.path, cfg.model.max_pixels)
    frame = image_frame(processor)
    engine = make_engine(cfg, processor)
    together = cfg.batch_size * state.num_processes
    batches = [todo[first : first + together] for first in range(0, len(todo), together)]
    with path.open("a", encoding="utf-8") as file:
        for batch in track(batches, f"{questions.dataset}", disable=not state.is_main_process):
            with state.split_between_processes(batch) as mine:
                asked = [questions.sample(index) for index in cast(list[int], mine)]
                chats = [chat(f"{one.expression}\n{cfg.instruction}".strip()) for one in asked]
                images = [picture(one, frame) for one in asked]
                said = engine.generate(chats, images, cfg.max_tokens) if asked else []
                rows = [
                    {"id": one.id, "question": one.expression, "label": one.answer, "answer": text}
                    for one, text in zip(asked, (one.text(processor.tokenizer).strip() for one in said), strict=True)
                ]
            lines = [json.dumps(row) + "\n" for row in gather_object(rows)]
            if state.is_main_process:
                file.write("".join(lines))
                file.flush()


def read_answers(path: Path) -> dict[str, str]:
    """Answers by question id. Raises BadPredictions, which names file and line."""
    answers: dict[str, str] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                identity, text = row["id"], row["answer"]
            except (ValueError, KeyError, TypeError) as error:
                raise BadPredictions(f"{path}, line {number}: {error!r}; a line has id and answer.") from error
            if identity in answers:
                raise BadPredictions(f"{path}, line {number}: {identity} was on an earlier line.")
            answers[identity] = text
    return answers


def score(questions: Vqa, answers: dict[str, str]) -> dict[str, Any]:
    """metrics.json: the figures, and how many questions there are and were scored.

    Raises:
        BadPredictions: a question has no answer, or an answer no question.
    """
    ids = [questions.id(index) for index in range(len(questions))]
    for wrong, problem in ((set(ids) - set(answers), "have no answer"), (set(answers) - set(ids), "are not asked")):
        if wrong:
            raise BadPredictions(f"{len(wrong)} questions {problem}, the first is {min(wrong)}. Is it this file?")
    figures = SCORES[questions.dataset]([answers[identity] for identity in ids], questions.labels)
    return {"dataset": questions.dataset, **figures, "n_expected": len(ids), "n_scored": len(answers)}


if __name__ == "__main__":
    main()

"""What the small base model reads before anyone fine-tunes it: plain grounding and captions, in words of its own.

None of it is a format of this project. Coordinates are pixels of the image the model sees, as Qwen2.5-VL's are.
"""

from __future__ import annotations

import numpy as np

from segmentation.data.scene_phrases import phrases
from segmentation.data.scenes import Scene, Thing

QUESTIONS = ("where is the {}?", "find the {}", "{}", "where in the picture is the {}?", "look for the {}.")
CAPTION = "describe the picture"
WHAT = "what is at {}?"
ABSENT = "there is none."
# What is asked, by kind: more of what is hard to learn (reasoning, absence, several things) than the scenes' own mix.
MIX = {"attribute": 0.26, "spatial": 0.1, "relational": 0.12, "plural": 0.16, "none": 0.16, "reasoning": 0.2}
Turn = tuple[str, str]  # question, answer


def place(box: tuple[float, float, float, float]) -> str:
    """A box in plain words: "12,20 to 30,44"."""
    x1, y1, x2, y2 = (round(edge) for edge in box)
    return f"{x1},{y1} to {x2},{y2}"


def answer(boxes: list[tuple[float, float, float, float]]) -> str:
    """Where things are, from left to right, or that there is none."""
    return " and ".join(place(box) for box in boxes) + "." if boxes else ABSENT


def _name(thing: Thing) -> str:
    return f"{thing.size} {thing.texture} {thing.colour} {thing.shape}"


def conversations(drawn: Scene, rng: np.random.Generator, questions: int = 4, more: bool = True) -> list[Turn]:
    """Independent questions about one scene: `questions` that ask for a place, and `more`, a name or a caption."""
    found = {kind: said for kind, said in phrases(drawn.things, rng).items() if said}
    kinds = list(found)
    weights = np.array([MIX[kind] for kind in kinds])
    turns = []
    for kind in rng.choice(len(kinds), size=questions, p=weights / weights.sum()):
        phrase = found[kinds[kind]][rng.integers(len(found[kinds[kind]]))]
        question = QUESTIONS[rng.integers(len(QUESTIONS))].format(phrase.text)
        turns.append((question, answer([drawn.things[i].box for i in phrase.targets])))
    if not more:
        return turns
    if rng.random() < 0.5:
        one = drawn.things[rng.integers(len(drawn.things))]
        return [*turns, (WHAT.format(place(one.box)), _name(one) + ".")]
    ordered = sorted(drawn.things, key=lambda thing: thing.box[0])
    return [*turns, (CAPTION, "; ".join(f"{_name(thing)} {place(thing.box)}" for thing in ordered) + ".")]

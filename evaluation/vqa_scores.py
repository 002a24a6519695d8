"""What VQA benchmarks make of short answers, by their published rules: POPE's yes and no, GQA's exact match."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Figures = dict[str, float | int | None]


def says_yes(text: str) -> bool:
    """POPE's reading of an answer (AoiDong/POPE `evaluate.py`; LLaVA's `eval_pope.py` is the same).

    It is a yes, unless the words of its first sentence, commas taken out, have "No", "no" or "not" among them. Words
    are what single blanks stand between, and case counts: "NO" and "no\\n" are a yes.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return not {"No", "no", "not"} & set(words)


def pope(answers: Sequence[str], labels: Sequence[str]) -> Figures:
    """Figures of POPE, yes being positive; None where a denominator is 0, on which the published script ends.

    Args:
        answers: of the policy.
        labels: `yes` or `no`, one an answer.
    """
    pairs = [(says_yes(answer), label == "yes") for answer, label in zip(answers, labels, strict=True)]
    counts = {name: pairs.count(pair) for name, pair in _POPE.items()}
    tp, fp, tn, fn = counts.values()
    return {
        "accuracy": _ratio(tp + tn, len(pairs)),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "F1": _ratio(2 * tp, 2 * tp + fp + fn) if tp else None,
        "yes_ratio": _ratio(tp + fp, len(pairs)),
        **counts,
    }


_POPE = {"TP": (True, True), "FP": (True, False), "TN": (False, False), "FN": (False, True)}


def gqa(answers: Sequence[str], labels: Sequence[str]) -> Figures:
    """GQA's accuracy: the answer, in lower case and without full stops at its end, is the right one, letter by letter.

    LLaVA prepares answers so (`scripts/convert_gqa_for_eval.py`), and GQA's `eval.py` compares.
    """
    right = [answer.rstrip(".").lower() == label for answer, label in zip(answers, labels, strict=True)]
    return {"accuracy": _ratio(sum(right), len(right))}


SCORES: dict[str, Callable[[Sequence[str], Sequence[str]], Figures]] = {"pope": pope, "gqa": gqa}


def _ratio(above: int, below: int) -> float | None:
    return above / below if below else None

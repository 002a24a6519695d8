"""The published formulas of every protocol, plain and slow, on `bool (H, W)` arrays: what the evaluator is held to.

Nothing here comes from `segmentation.metrics` and its parts.

Each function takes `Seen` samples and returns the figures of its evaluator. Epsilons in denominators are left out.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from segmentation import masks
from segmentation.masks import RLE
from segmentation.sample import Found, NoTarget, Prediction, Sample

Box = tuple[float, ...]


@dataclass
class Seen:
    """A sample and its answer as arrays: no RLE, no types of answers."""

    empty: bool  # annotated as without target
    rejected: bool
    invalid: bool
    painted: np.ndarray  # what is painted together
    objects: list[np.ndarray]  # what is painted, one by one
    targets: list[np.ndarray]
    truth: np.ndarray
    target_boxes: list[Box]
    boxes: list[Box]
    area: int  # annotated, whatever is ignored


def see(asked: Sample, answer: Prediction, mask: RLE | None, ignore: str, empty_pixels: int) -> Seen:
    """Decode, and apply the rules that stand before any formula."""
    shape = (asked.height, asked.width)
    targets = [masks.decode(target.mask) for target in asked.targets if target.mask is not None]
    objects = [masks.decode(one.mask) for one in answer.instances if one.mask] if isinstance(answer, Found) else []
    boxes = [one.box for one in answer.instances if one.box] if isinstance(answer, Found) else []
    painted = masks.decode(mask) if mask is not None else np.zeros(shape, bool)
    rejected, invalid = isinstance(answer, NoTarget), not isinstance(answer, Found | NoTarget)
    if isinstance(answer, Found) and painted.sum() < empty_pixels:
        rejected, objects, boxes = True, [], []
    truth = np.zeros(shape, bool)
    for target in targets:
        truth = truth | target
    area = int(truth.sum())
    if asked.ignore is not None:
        ignored = masks.decode(asked.ignore)
        truth = truth | ignored if ignore == "target" else truth & ~ignored
        targets = [target & ~ignored for target in targets]
        if ignore == "drop":
            painted, objects = painted & ~ignored, [one & ~ignored for one in objects]
    around = [target.box for target in asked.targets]
    return Seen(not asked.targets, rejected, invalid, painted, objects, targets, truth, around, boxes, area)


def pixels(painted: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    return int(np.logical_and(painted, truth).sum()), int(np.logical_or(painted, truth).sum())


def summed_up(ious: list[float], inter: int, union: int, precise: list[float], **more: float) -> dict[str, float]:
    reached = {f"Pr@0.{t}": sum(iou >= t / 10 for iou in precise) / len(precise) for t in range(5, 10)}
    return {"gIoU": sum(ious) / len(ious), "cIoU": inter / union, **reached, **more}


def lisa(seen: list[Seen], empty_iou: float = 1.0) -> dict[str, float]:
    """I / U, `empty_iou` where U is 0; what is rejected or invalid paints nothing, and invalid is never right."""
    ious, targeted, inter, union = [], [], 0, 0
    for one in seen:
        painted = one.painted & False if one.rejected or one.invalid else one.painted
        i, u = pixels(painted, one.truth)
        iou = (0.0 if one.invalid else empty_iou) if u == 0 else i / u
        ious.append(iou)
        inter, union = inter + i, union + u
        if not one.empty:
            targeted.append(iou)
    return summed_up(ious, inter, union, targeted, **accuracies(seen))


def rela(seen: list[Seen]) -> dict[str, float]:
    """ReLA's four cases: true and false positives of "no target"."""
    ious, targeted, inter, union = [], [], 0, 0
    for one in seen:
        i, u = pixels(one.painted, one.truth)
        if one.empty:
            if one.rejected:
                ious.append(1.0)
            else:
                ious.append(0.0)
                union += u
            continue
        if one.rejected:
            i = 0
        iou = 0.0 if u == 0 or one.invalid else i / u
        ious.append(iou)
        targeted.append(iou)
        inter, union = inter + i, union + u
    return summed_up(ious, inter, union, targeted, **accuracies(seen))


def gsva(seen: list[Seen], false_alarms: bool = True) -> dict[str, float]:
    """GSVA: empty by the mask; a rejected target keeps the IoU of its mask."""
    ious, targeted, inter, union, accuracy = [], [], 0, 0, {"tp": 0, "fn": 0, "fp": 0, "tn": 0}
    for one in seen:
        i, u = pixels(one.painted, one.truth)
        if one.empty or one.truth.sum() < 1:
            accuracy["tp" if one.rejected else "fn"] += 1
            ious.append(float(one.rejected))
            union += u if false_alarms and not one.rejected else 0
        else:
            accuracy["tn" if not one.rejected and not one.invalid else "fp"] += 1
            ious.append(i / u)
            targeted.append(i / u)
            inter, union = inter + i, union + u
    n_acc = accuracy["tp"] / (accuracy["tp"] + accuracy["fn"])
    t_acc = accuracy["tn"] / (accuracy["tn"] + accuracy["fp"])
    return summed_up(ious, inter, union, targeted, N_acc=n_acc, T_acc=t_acc)


def rmsin(seen: list[Seen]) -> dict[str, float]:
    """RMSIN: no "no target" at all; precision over every sample."""
    made = lisa(seen, empty_iou=0.0)
    ious = []
    for one in seen:
        i, u = pixels(one.painted & False if one.rejected else one.painted, one.truth)
        ious.append(i / u if u else 0.0)
    made |= {f"Pr@0.{t}": sum(iou >= t / 10 for iou in ious) / len(ious) for t in range(5, 10)}
    return made | {"mIoU": sum(ious) / len(ious), "oIoU": made["cIoU"]}


def vision_reasoner(seen: list[Seen]) -> dict[str, float]:
    """VisionReasoner: 0 where U is 0, 1 for no box where there is no object; the share of samples with a good box."""
    ious, targeted, inter, union, hits = [], [], 0, 0, 0
    for one in seen:
        i, u = pixels(one.painted & False if one.rejected or one.invalid else one.painted, one.truth)
        iou = i / u if u > 0 else 0.0
        if one.empty and one.rejected:
            iou = 1.0
        ious.append(iou)
        inter, union = inter + i, union + u
        if not one.empty:
            targeted.append(iou)
            x1, y1, x2, y2 = zip(*one.target_boxes, strict=True)
            hits += any(box_iou(box, (min(x1), min(y1), max(x2), max(y2))) > 0.5 for box in one.boxes)
    return summed_up(ious, inter, union, targeted, bbox_AP=hits / len(seen), **accuracies(seen))


def muse(seen: list[Seen], over_objects: bool = False) -> dict[str, float]:
    """Every assignment tried out; what is left over meets an empty mask."""
    ious, precise, inter, union = [], [], 0, 0
    for one in seen:
        nothing = one.truth & False
        count = max(len(one.objects), len(one.targets))
        rows = one.objects + [nothing] * (count - len(one.objects))
        columns = one.targets + [nothing] * (count - len(one.targets))
        table = [[pixels(row, column) for column in columns] for row in rows]
        best: list[tuple[int, int]] = []
        for way in permutations(range(count)):
            pairs = [table[row][column] for column, row in enumerate(way)]
            if not best or sum(map(ratio, pairs)) > sum(map(ratio, best)):
                best = pairs
        i, u = sum(pair[0] for pair in best), sum(pair[1] for pair in best)
        iou = i / u if u else float(not one.invalid)
        ious.append(iou)
        inter, union = inter + i, union + u
        if over_objects:
            precise += [ratio(pair) for pair in best[: len(one.targets)]]
        elif not one.empty:
            precise.append(iou)
    return summed_up(ious, inter, union, precise, **accuracies(seen))


def ors(seen: list[Seen]) -> dict[str, float]:
    return muse(seen, over_objects=True)


def ratio(pair: tuple[int, int]) -> float:
    return pair[0] / pair[1] if pair[1] else 0.0


def accuracies(seen: list[Seen]) -> dict[str, float]:
    nothing = [one.rejected for one in seen if one.empty]
    something = [not one.rejected and not one.invalid for one in seen if not one.empty]
    return {"N_acc": sum(nothing) / len(nothing), "T_acc": sum(something) / len(something)}


def box_figures(seen: list[Seen]) -> dict[str, float]:
    """REC, of the boxes written and of those around the masks painted."""
    written = [matched(one.boxes, one.target_boxes) for one in seen if not one.empty]
    drawn = [matched(one.boxes and list(map(around, one.objects)), one.target_boxes) for one in seen if not one.empty]
    return {
        "box_iou": sum(written) / len(written),
        "Acc@0.5": sum(score > 0.5 for score in written) / len(written),
        "mask_Acc@0.5": sum(score > 0.5 for score in drawn) / len(drawn),
    }


def around(mask: np.ndarray) -> Box:
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def box_iou(first: Box, second: Box) -> float:
    width = max(min(first[2], second[2]) - max(first[0], second[0]), 0)
    height = max(min(first[3], second[3]) - max(first[1], second[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def matched(boxes: list[Box], targets: list[Box]) -> float:
    few, many = sorted([boxes, targets], key=len)
    return max(sum(map(box_iou, few, way)) for way in permutations(many, len(few))) / len(many)

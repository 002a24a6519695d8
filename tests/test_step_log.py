"""rl/step_log.py: the numbers beside TRL's, by hand."""

import time

import pytest
import torch
from PIL import Image

from rl.step_log import StepLog
from segmentation import masks
from segmentation.sample import Found, Instance, Invalid, NoTarget, Sample, Target, prediction_mask

CPU = torch.device("cpu")


def sample(name: str, side: int) -> Sample:
    """A square of that many pixels a side, at the corner of a picture of 200 x 200; none with side 0."""
    box = (0.0, 0.0, float(side), float(side))
    targets = (Target(box, masks.from_box(box, 200, 200)),) if side else ()
    return Sample(name, Image.new("RGB", (200, 200)), 200, 200, "it", targets)


def found(side: int) -> Found:
    box = (0.0, 0.0, float(side), float(side))
    return Found((Instance(box, masks.from_box(box, 200, 200)),))


def add(log: StepLog, *rows) -> None:
    samples, predictions, lengths = zip(*rows, strict=True)
    painted = [prediction_mask(p, s.height, s.width) for p, s in zip(predictions, samples, strict=True)]
    log.add(samples, predictions, painted, [[0] * length for length in lengths])


def test_iou_is_logged_by_the_size_of_what_is_meant():
    log = StepLog([])
    small, medium, large = sample("s", 20), sample("m", 50), sample("l", 100)
    add(log, (small, found(10), 5), (small, found(20), 5), (medium, Invalid("broken"), 5), (large, NoTarget(), 5))
    add(log, (sample("none", 0), found(10), 5))
    said = log.means(torch.Tensor.clone, CPU)
    assert said["box_iou/small"] == said["mask_iou/small"] == pytest.approx((0.25 + 1) / 2)
    assert said["box_iou/medium"] == said["mask_iou/medium"] == said["mask_iou/large"] == 0
    assert log.means(torch.Tensor.clone, CPU) == {}  # forgotten


def test_a_mask_that_nobody_made_is_no_zero():
    log = StepLog([])
    add(log, (sample("s", 20), Found((Instance((0.0, 0.0, 20.0, 20.0)),)), 5))
    said = log.means(torch.Tensor.clone, CPU)
    assert said["box_iou/small"] == 1
    assert "mask_iou/small" not in said


def test_lengths_are_logged_by_state():
    log = StepLog([])
    add(log, (sample("a", 20), found(20), 10), (sample("b", 20), found(20), 20), (sample("c", 0), NoTarget(), 3))
    said = log.means(torch.Tensor.clone, CPU)
    assert said["completions/mean_length/found"] == 15
    assert said["completions/mean_length/no_target"] == 3
    assert "completions/mean_length/invalid" not in said


def test_rewards_that_do_not_apply_and_groups_that_teach_nothing_are_counted():
    log = StepLog(["a", "b"])
    nan = torch.nan
    scores = torch.tensor([[1, nan], [0, nan], [0.5, 1], [1, 0.5], [nan, nan], [nan, nan]])
    log.add_rewards(scores, torch.tensor([1.0, 1.0]), group=2)
    said = log.means(torch.Tensor.clone, CPU)
    assert said["rewards/a/none"] == pytest.approx(2 / 6)
    assert said["rewards/b/none"] == pytest.approx(4 / 6)
    assert said["groups/equal"] == pytest.approx(2 / 3)  # 0.5 + 1 twice, and nothing twice


def test_numbers_are_over_all_processes():
    log = StepLog([])
    add(log, (sample("a", 20), found(20), 10))
    other = StepLog([])
    add(other, (sample("b", 20), found(20), 40), (sample("c", 20), found(20), 40))
    sums = []
    other.means(lambda tensor: sums.append(tensor) or tensor, CPU)
    assert log.means(lambda tensor: tensor + sums[0], CPU)["completions/mean_length/found"] == 30


def test_time_within_another_section_is_charged_once():
    log = StepLog([])
    log.updates = 2
    with log.timed("update"):
        time.sleep(0.02)
        with log.timed("generate"):
            time.sleep(0.06)
    said = log.means(torch.Tensor.clone, CPU)
    assert said["time/generate"] >= 0.03  # seconds an update
    assert 0.01 <= said["time/update"] < said["time/generate"]

"""Which tokens a reward pays, and that paying all of them is what TRL does."""

from pathlib import Path

import pytest
import torch

from rewards.shape_iou import shape_iou
from rl.credit import inside, split_advantages
from segmentation.masks import from_box
from segmentation.sample import Found, Instance, Invalid, NoTarget, Sample, Target

OPEN, CLOSE = 1, 2
WHOLE = torch.zeros(4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([9, OPEN, 5, 5, CLOSE, 9, OPEN, 6, CLOSE, 0], [0, 0, 1, 1, 1, 0, 0, 1, 1, 0]),
        ([9, OPEN, 5, 5, 5, 5, 5, 5, 5, 5], [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]),  # cut off
        ([9, 9, 9, 9, 9, 9, 9, 9, 9, 9], [0] * 10),
    ],
    ids=["two masks", "never closed", "none"],
)
def test_the_tokens_of_masks(ids, expected):
    assert inside(torch.tensor([ids]), OPEN, CLOSE).int().tolist() == [expected]


def test_what_pays_all_tokens_gives_the_advantages_of_grpo():
    torch.manual_seed(0)
    rewards, weights = torch.rand(8, 3), torch.tensor([1.0, 0.2, 2.0])
    to_masks, to_rest = split_advantages(rewards, weights, ["all"] * 3, 4, torch.tensor([True] + [False] * 7))
    total = (rewards * weights).sum(1).view(2, 4)
    expected = (total - total.mean(1, keepdim=True)).flatten()
    torch.testing.assert_close(to_masks, expected)
    torch.testing.assert_close(to_rest, expected)


def test_a_reward_pays_its_own_tokens_and_one_that_does_not_apply_nothing():
    nan = float("nan")
    rewards = torch.tensor([[1.0, 0.8], [0.0, nan], [0.0, 0.4], [1.0, nan]])  # box, shape
    to_masks, to_rest = split_advantages(rewards, torch.tensor([1.0, 2.0]), ["rest", "mask"], 4, WHOLE)
    torch.testing.assert_close(to_rest, torch.tensor([0.5, -0.5, -0.5, 0.5]))
    torch.testing.assert_close(to_masks, torch.tensor([0.4, 0.0, -0.4, 0.0]))
    nothing = split_advantages(torch.full((4, 2), nan), torch.ones(2), ["rest", "mask"], 4, WHOLE)
    assert all((part == 0).all() for part in nothing)


def test_a_broken_text_is_paid_for_breaking_alone():
    rewards = torch.tensor([[1.0, 0.9, 0.8], [0.0, 0.0, 0.0], [1.0, 0.3, 0.4], [1.0, 0.3, 0.6]])  # format, box, shape
    broken = torch.tensor([False, True, False, False])
    to_masks, to_rest = split_advantages(rewards, torch.ones(3), ["all", "rest", "mask"], 4, broken)
    torch.testing.assert_close(to_rest, torch.tensor([0.25 + 0.4, -0.75, 0.25 - 0.2, 0.25 - 0.2]))
    torch.testing.assert_close(to_masks, torch.tensor([0.25 + 0.2, -0.75, 0.25 - 0.2, 0.25 + 0.0]))


def test_shape_is_judged_inside_the_box_alone():
    box = (10, 10, 30, 30)
    target = Target(box, from_box(box, 50, 50))
    sample = Sample("1", Path("none.png"), 50, 50, "it", (target,))

    def paid(found, mask):
        return shape_iou([Found((Instance(found, mask),))], [sample], [mask])[0]

    half = (20, 10, 40, 30)  # its right half holds nothing of the target
    assert paid(half, from_box((20, 10, 30, 30), 50, 50)) == 1  # all of it that the box holds
    assert paid(half, from_box(half, 50, 50)) == 0.5
    assert paid(box, from_box((10, 10, 20, 30), 50, 50)) == 0.5
    assert paid((10, 10, 12, 12), from_box(box, 50, 50)) == 1  # what a decoder paints outside of the box does not count
    assert paid((31, 31, 40, 40), from_box((31, 31, 40, 40), 50, 50)) is None
    assert shape_iou([NoTarget(), Invalid("x")], [sample] * 2, [None, None]) == [None, 0.0]
    empty = Sample("2", Path("none.png"), 50, 50, "it")
    assert shape_iou([Found((Instance(box, target.mask),))], [empty], [target.mask]) == [None]

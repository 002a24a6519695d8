"""sft/mask_loss.py: each loss is the published formula, whatever the sizes, and the presets are the papers' weights."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torchvision.ops import sigmoid_focal_loss

import configs
from configs.entry import CONFIGS
from sft.mask_loss import MaskLoss, at_targets, mask_iou


def draw(count=3, size=(6, 8), seed=0):
    """Logits and targets of one size, so that nothing is resized."""
    numbers = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, *size, generator=numbers, dtype=torch.float64)
    return logits, (torch.rand(count, *size, generator=numbers) > 0.6).double()


def part(name, logits, targets, **kwargs):
    """One part alone, weight 1."""
    weights = dict.fromkeys(("bce", "dice", "focal"), 0.0)
    return MaskLoss(**{**weights, name: 1.0, **kwargs})(logits, list(targets))[name].item()


def test_cross_entropy_is_torchs():
    logits, targets = draw()
    assert part("bce", logits, targets) == pytest.approx(F.binary_cross_entropy_with_logits(logits, targets).item())


def test_focal_is_torchvisions():
    logits, targets = draw()
    wanted = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2, reduction="mean")
    assert part("focal", logits, targets) == pytest.approx(wanted.item(), rel=1e-5)


def test_focal_of_probabilities_is_mllmsegs():
    """Its code gives probabilities to a cross-entropy of logits, and takes them as they are for the weight."""
    logits, targets = draw()
    p = logits.sigmoid()
    weight = (0.25 * targets + 0.75 * (1 - targets)) * (1 - (p * targets + (1 - p) * (1 - targets))) ** 2
    wanted = (weight * F.binary_cross_entropy_with_logits(p, targets, reduction="none")).mean()
    assert part("focal", logits, targets, focal_of_probabilities=True) == pytest.approx(wanted.item(), rel=1e-5)
    sure = 20 * (2 * targets - 1)
    assert part("focal", sure, targets, focal_of_probabilities=True) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("smooth, scale", [(1.0, 1.0), (1e-6, 1000.0)], ids=["mllmseg", "lisa"])
def test_dice_is_the_published_fraction_of_each_mask(smooth, scale):
    logits, targets = draw()
    p = logits.sigmoid().flatten(1)
    t = targets.flatten(1)
    wanted = 1 - (2 * (p / scale * t).sum(1) + smooth) / ((p / scale).sum(1) + (t / scale).sum(1) + smooth)
    assert part("dice", logits, targets, smooth=smooth, dice_scale=scale) == pytest.approx(wanted.mean().item(), 1e-5)


def test_weights_multiply_and_add_up():
    logits, targets = draw()
    loss = MaskLoss(bce=2.0, dice=0.5, focal=3.0)(logits, list(targets))
    assert set(loss) == {"loss", "bce", "dice", "focal"}
    assert loss["bce"].item() == pytest.approx(2 * part("bce", logits, targets))
    assert loss["dice"].item() == pytest.approx(0.5 * part("dice", logits, targets))
    assert loss["focal"].item() == pytest.approx(3 * part("focal", logits, targets))
    assert loss["loss"].item() == pytest.approx(sum(value.item() for name, value in loss.items() if name != "loss"))


def test_each_mask_counts_the_same_whatever_its_size():
    sizes = [(8, 8), (20, 12), (8, 8), (5, 40)]
    logits = [draw(1, (4, 6), seed)[0][0] for seed in range(3)] + [draw(1, (7, 7), 3)[0][0]]
    targets = [draw(1, size, seed)[1][0] for seed, size in enumerate(sizes)]
    together = MaskLoss(focal=1.0)(logits, targets)
    alone = [MaskLoss(focal=1.0)([mask], [target]) for mask, target in zip(logits, targets, strict=True)]
    for name, value in together.items():
        assert value.item() == pytest.approx(sum(one[name].item() for one in alone) / 4, rel=1e-5)


def test_logits_are_brought_to_the_target_and_large_targets_shrunk():
    logits = torch.full((1, 4, 4), 5.0)
    (_, found, _), *_ = at_targets(logits, [torch.ones(300, 200)])
    assert found.shape == (1, 300, 200)
    half = torch.zeros(1, 300, 200)
    half[:, 150:] = 1
    seen = MaskLoss(short_side=50)._shrunk(half[0])
    assert seen.shape == (75, 50)
    assert seen.sum() == pytest.approx(75 * 50 / 2)
    assert MaskLoss(short_side=50)._shrunk(half[0, :40, :40]).shape == (40, 40)  # never enlarged


def test_gradients_pull_logits_towards_the_mask():
    logits, targets = draw()
    for name in ("bce", "dice", "focal"):
        given = logits.clone().requires_grad_()
        weights: dict[str, Any] = {**dict.fromkeys(("bce", "dice", "focal"), 0.0), name: 1.0}
        MaskLoss(**weights)(given, list(targets))["loss"].backward()
        assert given.grad is not None
        assert torch.equal(given.grad < 0, targets > 0.5)


def test_gradients_are_those_of_finite_differences():
    logits, targets = draw(2, (3, 4))
    loss = MaskLoss(bce=1.0, dice=1.0, focal=1.0)
    given = logits.clone().requires_grad_()
    loss(given, list(targets))["loss"].backward()
    step = torch.zeros_like(logits)
    step[1, 2, 3] = 1e-2
    rise = (loss(logits + step, list(targets))["loss"] - loss(logits - step, list(targets))["loss"]) / 2e-2
    assert given.grad is not None
    assert given.grad[1, 2, 3].item() == pytest.approx(rise.item(), rel=1e-2)


def test_predicted_iou_learns_the_iou_that_is_reached():
    target = torch.zeros(4, 4)
    target[:2] = 1
    logits = torch.full((2, 4, 4), -9.0)
    logits[0, :1] = 9.0  # half of the target
    assert mask_iou(logits, [target, torch.zeros(4, 4)]).tolist() == [0.5, 0.0]
    said = torch.tensor([math.log(3), 0.0], requires_grad=True)  # 0.75 and 0.5
    loss = MaskLoss(iou=2.0)(logits, [target, target], iou=said)["iou"]
    assert loss.item() == pytest.approx(2 * (0.25**2 + 0.5**2) / 2)
    loss.backward()
    assert said.grad is not None
    assert (said.grad > 0).all()


def test_auxiliary_logits_have_the_same_losses():
    logits, targets = draw()
    loss = MaskLoss(bce=2.0, dice=0.5, auxiliary=0.4)(logits, list(targets), auxiliary=-logits)
    again = MaskLoss(bce=2.0, dice=0.5)(-logits, list(targets))
    assert loss["auxiliary"].item() == pytest.approx(0.4 * again["loss"].item())
    assert "auxiliary" not in MaskLoss()(logits, list(targets), auxiliary=-logits)


def test_text_joins_and_stands_alone():
    logits, targets = draw()
    text = torch.tensor(2.0, requires_grad=True)
    assert MaskLoss(text=0.5)(logits, list(targets), text=text)["text"].item() == 1.0
    alone = MaskLoss()([], [], text=text)  # a batch in which nothing is meant
    assert set(alone) == {"loss", "text"}


def test_what_cannot_be_learned_from_is_an_error():
    logits, targets = draw()
    with pytest.raises(ValueError, match=r"3 masks of logits, 2 targets"):
        MaskLoss()(logits, list(targets[:2]))
    with pytest.raises(ValueError, match="no mask and no text"):
        MaskLoss()([], [])


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("mllmseg", MaskLoss()),
        ("qwen3_vl_seg", MaskLoss(iou=0.2)),
        ("self1e", MaskLoss(2.0, 0.5, auxiliary=1.0, smooth=1e-6, dice_scale=1000.0, short_side=128)),
    ],
)
def test_presets(name, wanted):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        assert configs.instantiate(compose("train_decoder", [f"loss={name}"]).loss, where="loss") == wanted

"""Pictures are hard to assert; these look for what a reader looks for: panels, tint, outlines, stamps."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.curves import INK, MUTED, training_curves, training_svg
from evaluation.overlay import before_after
from segmentation import masks
from segmentation.data.scenes import Scenes
from segmentation.panels import PREDICTED, TRUTH
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample, Target


def count(path: Path, colour: str) -> int:
    """Pixels of about that colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((abs(pixels - wanted).max(axis=-1) < 12).sum())


def covered(path: Path) -> float:
    """Share of the page that is not white."""
    return float((np.asarray(Image.open(path).convert("L")) < 250).mean())


def truth(asked: Sample) -> Prediction:
    instances = tuple(Instance(target.box, target.mask) for target in asked.targets)
    return Found(instances) if instances else NoTarget()


def test_a_dozen_samples_fill_two_blocks(tmp_path: Path):
    samples = list(Scenes("val", length=14))
    columns = {"before": [Invalid("position 3: four numbers expected")] * 14, "after": [truth(s) for s in samples]}
    before_after(samples, columns, tmp_path / "deep" / "two.png")
    before_after(samples, columns, tmp_path / "one.png", rows=4)
    two, one = Image.open(tmp_path / "deep" / "two.png"), Image.open(tmp_path / "one.png")
    assert two.width > 1.9 * one.width
    assert 1.2 * one.height < two.height < 1.6 * one.height  # six lines against four
    assert covered(tmp_path / "deep" / "two.png") > 0.5


def test_found_masks_are_tinted_and_absent_ones_are_not(tmp_path: Path):
    asked = next(s for s in Scenes("val", length=50) if len(s.targets) == 2)
    for name, answer in {"found": truth(asked), "none": NoTarget(), "invalid": Invalid("x")}.items():
        before_after([asked], {"after": [answer]}, tmp_path / f"{name}.png")
    assert count(tmp_path / "found.png", PREDICTED) > 400  # outlines of two masks and two boxes
    assert count(tmp_path / "none.png", PREDICTED) == count(tmp_path / "invalid.png", PREDICTED) == 0
    for name in ("found", "none", "invalid"):
        assert count(tmp_path / f"{name}.png", TRUTH) > 400


def test_the_mask_lies_where_the_target_is(tmp_path: Path):
    box = (60.0, 0.0, 80.0, 20.0)  # the last quarter across, the upper half
    asked = Sample("s", Image.new("RGB", (80, 40), "blue"), 40, 80, "it", (Target(box, masks.from_box(box, 40, 80)),))
    before_after([asked], {}, tmp_path / "p.png")
    red, green, blue = np.moveaxis(np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).astype(int), -1, 0)
    picture, tinted = np.argwhere(blue > red + 60), np.argwhere(green > red + 40)
    (top, left), (height, width) = picture.min(0), np.ptp(picture, axis=0)
    assert width == pytest.approx(2 * height, rel=0.02)
    assert tinted.min(0) == pytest.approx([top, left + 0.75 * width], abs=0.02 * width)
    assert tinted.max(0) == pytest.approx([top + 0.5 * height, left + width], abs=0.02 * width)


def test_boxes_alone_and_hard_expressions_are_drawn(tmp_path: Path):
    image = Image.new("RGB", (30, 90), "gray")
    expression = r"the $5 note_{x} \frac that " + "lies on the table " * 30
    asked = Sample("s", image, 90, 30, expression, (Target((0.0, 0.0, 10.0, 10.0)),))
    drawn = Found((Instance((2.0, 2.0, 12.0, 12.0)),))
    before_after([asked], {"before": [Invalid("'\ud800 \0' at 3")], "after": [drawn]}, tmp_path / "p.png")
    assert count(tmp_path / "p.png", PREDICTED) > 50


def test_a_broken_picture_and_an_object_without_a_box_are_drawn(tmp_path: Path):
    asked = Sample("s", tmp_path / "gone.png", 40, 80, "it", (Target((0.0, 0.0, 9.0, 9.0)),))
    said = [Found((Instance(None), Instance((2.0, 2.0, 60.0, 30.0))))]
    before_after([asked], {"prediction": said}, tmp_path / "p.png")
    assert count(tmp_path / "p.png", PREDICTED) > 50


def test_columns_must_cover_the_samples(tmp_path: Path):
    samples = list(Scenes("val", length=2))
    with pytest.raises(ValueError, match="column 'after' has 1 predictions for 2 samples"):
        before_after(samples, {"after": [NoTarget()]}, tmp_path / "p.png")
    with pytest.raises(ValueError, match="no samples"):
        before_after([], {}, tmp_path / "p.png")


def history(steps: int) -> list[dict]:
    """A trainer's log with all that is drawn, gaps in one reward, and much that is not drawn."""
    entries: list[dict] = []
    for step in range(1, steps + 1):
        done = step / steps
        entries.append(
            {
                "step": step,
                "loss": 0.1,
                "reward": 1 + done,
                "rewards/box_iou/mean": 0.5 + 0.2 * done,
                "rewards/box_iou/std": 0.1,
                "rewards/no_target/mean": None if step % 2 else done,
                "kl": float("nan") if step == 1 else 0.1 * done,
                "sampling/sampling_logp_difference/mean": 0.002,
                "completions/mean_length": 20.0,
                "states/found": 0.8,
                "states/no_target": 0.2 - 0.1 * (1 - done),
                "states/invalid": 0.1 * (1 - done),
            }
        )
        if step % 10 == 0:
            entries.append({"step": step, "eval_reward": 1.2, "eval_gIoU": 0.6 + 0.1 * done, "eval_runtime": 3.0})
    return entries


def test_curves_are_drawn_one_panel_a_quantity(tmp_path: Path):
    training_curves(history(40), tmp_path / "deep" / "curves.png")
    training_curves([{"step": 1, "reward": 1.0}], tmp_path / "one.png")
    many, one = Image.open(tmp_path / "deep" / "curves.png"), Image.open(tmp_path / "one.png")
    assert many.height == 3 * one.height  # total, 2 rewards, states, KL, gap, length, held-out gIoU: 8 panels, 3 a line
    assert count(tmp_path / "deep" / "curves.png", "#1c7ed6") > 1000
    assert count(tmp_path / "deep" / "curves.png", "#e03131") > 100
    assert count(tmp_path / "deep" / "curves.png", "#e8590c") > 100  # held-out


def test_curves_of_a_checkpoint(tmp_path: Path):
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": history(20)}))
    training_curves(tmp_path / "trainer_state.json", tmp_path / "a.png")
    training_curves(history(20), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_curves_for_a_page_take_its_colours_and_fetch_nothing():
    svg = training_svg(history(20))
    assert svg.startswith("<svg") and svg == training_svg(history(20))
    assert "total reward</text>" in svg and "held-out gIoU</text>" in svg
    assert "var(--ink)" in svg and "var(--muted)" in svg and INK not in svg and MUTED not in svg
    assert "metadata" not in svg and "white" not in svg and "#ffffff" not in svg


def test_a_log_of_nothing_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="no reward"):
        training_curves([{"step": 1, "loss": 0.5}], tmp_path / "c.png")

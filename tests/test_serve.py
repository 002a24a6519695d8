"""evaluation/serve.py without a browser: what is asked, what is known about it, what is refused."""

import dataclasses
import json
import re
import socket

import gradio.analytics
import numpy as np
import pytest
from PIL import Image

from configs import ConfigError
from evaluation import serve, serving
from evaluation.question import Question, answer, asked, read_mask
from rollouts.answers import Answers
from rollouts.sections import make_rewards
from segmentation import masks
from segmentation.sample import Found, Instance, Invalid, NoTarget, Sample
from tests.taught import some_scenes
from tests.test_inspect import config


@pytest.fixture
def scene(tmp_path) -> Sample:
    """A scene whose picture and mask are also the files photo.png and mask.png."""
    scene = some_scenes()[0]
    assert isinstance(scene.image, Image.Image) and scene.mask is not None
    scene.image.save(tmp_path / "photo.png")
    Image.fromarray(masks.decode(scene.mask)).save(tmp_path / "mask.png")
    return scene


def test_what_is_meant_is_known_from_a_mask_or_from_the_sample_as_it_was_picked(scene, tmp_path):
    photo, mask = str(tmp_path / "photo.png"), str(tmp_path / "mask.png")
    assert asked(photo, scene.expression, None, None)[1] is False
    sample, known = asked(photo, scene.expression, mask, None)
    assert known and sample.mask == scene.mask and sample.targets[0].box == masks.box(scene.mask)
    assert asked(photo, scene.expression, mask, scene) == (scene, True)
    for other, text, truth in ((photo, "it", mask), (mask, scene.expression, mask)):  # no longer what was picked
        sample, known = asked(other, text, truth, scene)
        assert known and sample.id != scene.id and len(sample.targets) == 1
    assert asked(photo, scene.expression, None, scene)[1] is False
    boxes_only = dataclasses.replace(scene, targets=tuple(dataclasses.replace(t, mask=None) for t in scene.targets))
    assert asked(photo, scene.expression, None, boxes_only) == (boxes_only, True)
    nothing = dataclasses.replace(scene, targets=())
    Image.new("L", (scene.width, scene.height)).save(tmp_path / "black.png")
    assert asked(photo, scene.expression, str(tmp_path / "black.png"), nothing) == (nothing, True)
    sample, known = asked(photo, scene.expression, str(tmp_path / "black.png"), None)
    assert known and sample.targets == ()


@pytest.mark.parametrize("light", [1, 255])
def test_a_mask_is_its_brighter_pixels(light, tmp_path):
    wanted = np.zeros((6, 8), bool)
    wanted[2:4, 3:7] = True
    Image.fromarray(wanted.astype(np.uint8) * light).save(tmp_path / "mask.png")
    assert (masks.decode(read_mask(tmp_path / "mask.png")) == wanted).all()


def test_what_cannot_be_asked_says_why(scene, tmp_path):
    photo, mask = str(tmp_path / "photo.png"), str(tmp_path / "mask.png")
    Image.new("L", (10, 20)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture")
    wrong = [
        ((None, "it", None), "Picture: there is none"),
        ((photo, " ", None), "Expression: it is empty"),
        ((str(tmp_path / "text.png"), "it", None), r"text\.png: cannot be read"),
        ((photo, "it", str(tmp_path / "text.png")), r"text\.png: cannot be read as a mask"),
        ((photo, "it", str(tmp_path / "small.png")), "the mask is 10x20, the picture 64x64"),
        ((str(tmp_path / "small.png"), "it", mask), "the mask is 64x64, the picture 10x20"),
    ]
    for (image, expression, truth), message in wrong:
        with pytest.raises(Question, match=message):
            asked(image, expression, truth, None)


def test_an_answer_is_paid_as_rewards_say(taught, scene):
    cfg = config(f"model.path={taught}")
    rewards, weights, _ = make_rewards(cfg.rewards)
    prediction, text, scores = answer(Answers(cfg), scene, True, rewards, 64)
    assert isinstance(prediction, Found) and json.loads(text)[0]["bbox_2d"]
    assert scores is not None and dict(zip(rewards, scores, strict=True))["box_iou"] > 0.9
    shown = serving.table(dict(zip(rewards, weights, strict=True)), scores)
    assert (
        re.search(r"<td>box_iou</td><td>1</td><td>(0.9|1.0)", shown) and "<td>no_target</td><td>1.1</td><td>-" in shown
    )
    total = sum(weight * one for weight, one in zip(weights, scores, strict=True) if one == one)
    assert f"<td>total</td><td></td><td>{total:.3f}" in shown
    assert serving.drawn(scene, True, prediction).width > serving.drawn(scene, False, prediction).width > 400
    assert answer(Answers(cfg), scene, False, rewards, 64)[2] is None


def test_states_in_words():
    assert serving.said(NoTarget()) == "no target" and serving.said(Invalid("at 3: x")) == "invalid: at 3: x"
    mask = masks.from_box((0, 0, 2, 2), 4, 4)
    assert serving.said(Found((Instance((1.0, 2.0, 3.4, 4.0)), Instance(None, mask)))) == "found: 2\n1 2 3 4\na mask"


def test_a_port_that_is_taken_is_said_before_anything_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port={port}: .*port=0 takes any"):
            serve.listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match="port=99999"):
        serve.listen("127.0.0.1", 99999)


def test_gradio_does_not_phone_home():
    assert not gradio.analytics.analytics_enabled()  # of its version check, too

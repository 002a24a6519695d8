"""Descriptors: the three encodings, labels, no target, and every rule that makes a text invalid."""

import re
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from segmentation import masks
from segmentation.formats import DescriptorFormat
from segmentation.formats.descriptors import QUESTIONS, RunLength
from segmentation.sample import Found, Invalid, NoTarget, Sample, Target
from tests.broken_texts import assert_broken

H, W = 40, 80


def target(y1: int, x1: int, y2: int, x2: int, label: str | None = None) -> Target:
    mask = np.zeros((H, W), bool)
    mask[y1:y2, x1:x2] = True
    return Target((float(x1), float(y1), float(x2), float(y2)), masks.encode(mask), label)


def sample(*targets: Target, expression="white dog") -> Sample:
    return Sample("s", Image.new("RGB", (1, 1)), H, W, expression, targets)


def found(form: DescriptorFormat, text: str) -> Found:
    prediction = form.parse(text, H, W)
    assert isinstance(prediction, Found), prediction
    return prediction


def test_the_three_encodings():
    drawn = sample(target(0, 40, 10, 80), target(10, 40, 20, 60))
    forms = {rle: DescriptorFormat(4, rle, resize="nearest") for rle in get_args(RunLength)}
    said = {rle: form.encode(drawn) for rle, form in forms.items()}
    assert said["row"] == (
        "<seg>others *2| white dog *2\n others *2| white dog *1| others *1\n others *4\n others *4\n</seg>"
    )
    assert said["image"] == "<seg>others *2| white dog *2| others *2| white dog *1| others *9\n</seg>"
    assert said["none"].split("\n ")[1] == "others| others| white dog| others"
    for rle, text in said.items():
        (instance,) = found(forms[rle], text).instances
        assert instance.label == "white dog"
        assert instance.mask == drawn.mask
        assert instance.box == (40, 0, 80, 20)
        assert re.fullmatch(forms[rle].regex(1), text)


def test_a_grid_of_others_is_no_target():
    form = DescriptorFormat(3)
    assert form.encode(sample()) == "<seg>others *3\n others *3\n others *3\n</seg>"
    assert form.parse(form.encode(sample()), H, W) == NoTarget()


def test_several_labels_and_the_smaller_is_seen():
    form = DescriptorFormat(4, labels="target", resize="nearest")
    text = form.encode(
        sample(target(0, 0, 10, 20, "ball"), target(0, 0, 40, 40, "red car"), target(30, 60, 40, 80, "dog"))
    )
    assert text.startswith("<seg>ball *1| red car *1| others *2\n red car *2| others *2\n")
    instances = found(form, text).instances
    assert [instance.label for instance in instances] == ["ball", "red car", "dog"]
    assert instances[0].box == (0, 0, 20, 10)


def test_a_label_can_be_neither_the_background_nor_break_out():
    form = DescriptorFormat(2)
    for expression in ("others", "a|b *3", "</seg>", "\n", "", "*"):
        (instance,) = found(form, form.encode(sample(target(0, 0, 40, 80), expression=expression))).instances
        assert instance.label not in ("others", "")
        assert instance.mask is not None
        assert masks.area(instance.mask) > 0.9 * H * W


def test_questions_vary_with_the_expression_and_never_for_one():
    form = DescriptorFormat()
    asked = {form.prompt(f"dog {number}").replace(f"dog {number}", "{}") for number in range(100)}
    assert asked == set(QUESTIONS)
    assert form.prompt("dog 1") == form.prompt("dog 1")
    assert {DescriptorFormat(varied=False).prompt(f"dog {n}")[:9] for n in range(9)} == {QUESTIONS[0][:9]}


def test_an_object_of_one_pixel_survives():
    for y, x in ((0, 0), (39, 79), (17, 33)):
        form = DescriptorFormat(16)
        (instance,) = found(form, form.encode(sample(target(y, x, y + 1, x + 1)))).instances
        assert instance.box is not None
        assert instance.box[0] <= x < instance.box[2]


def test_a_cell_smaller_than_a_pixel_has_a_box():
    form = DescriptorFormat(64)
    row = "others *64"
    text = "<seg>others *10| dog *1| others *53\n " + "\n ".join([row] * 63) + "\n</seg>"
    prediction = form.parse(text, 4, 4)
    assert isinstance(prediction, Found)
    assert prediction.boxes == ((0.625, 0.0, 0.6875, 0.0625),)


def test_targets_must_have_masks_and_labels():
    with pytest.raises(ValueError, match="sample s: descriptors need masks"):
        DescriptorFormat().encode(sample(Target((0.0, 0.0, 1.0, 1.0))))
    with pytest.raises(ValueError, match="sample s: a target has no label"):
        DescriptorFormat(labels="target").encode(sample(target(0, 0, 9, 9)))


@pytest.mark.parametrize(
    ("marked", "rule"),
    [
        ("^", "expected <seg>, found the end"),
        ("^Sure: <seg>a *2\n a *2\n</seg>", "expected <seg>, found 'Sure: "),
        ("<seg>a *2\n a *2\n^", "expected </seg>, found the end"),
        ("<seg>a *2\n a *2\n</seg>^ and", "expected the end, found ' and'"),
        ("<seg>^</seg>", "expected a run, as `label *3`, found ''"),
        ("<seg>a *1^\n a *2\n</seg>", "row 0 is 1 cells wide, not 2"),
        ("<seg>a *2\n a *1|^ b *2\n</seg>", "a row is more than 2 cells wide"),
        ("<seg>a *1|^ b\n a *2\n</seg>", "expected a run, as `label *3`, found ' b'"),
        ("<seg>^a *x\n a *2\n</seg>", "expected a run, as `label *3`, found 'a *x'"),
        ("<seg>^a *0\n a *2\n</seg>", "expected a run"),
        ("<seg>^a *\u0662\n a *2\n</seg>", "expected a run"),
        ("<seg> ^*2\n a *2\n</seg>", "expected a run"),
        ("<seg>^<seg>*2\n a *2\n</seg>", "expected a run"),
        ("<seg>a *2^</seg>", "the grid has 1 of 2 rows"),
        ("<seg>a *2\n a *2\n^ a *2\n</seg>", "the grid has more than 2 rows"),
    ],
)
def test_the_rest_is_invalid_and_says_where_and_why(marked, rule):
    assert_broken(DescriptorFormat(2), marked, rule, H, W)


def test_a_prefix_keeps_the_rows_before_the_break():
    broken = "<seg>a *2\n a *1| b"
    assert isinstance(DescriptorFormat(2).parse(broken, H, W), Invalid)
    kept = found(DescriptorFormat(2, on_broken="prefix", resize="nearest"), broken)
    assert kept.boxes == ((0, 0, 80, 20),)
    nothing = DescriptorFormat(2, on_broken="prefix").parse("<seg>others *2\n a", H, W)
    assert isinstance(nothing, Invalid)


def test_too_many_labels_are_invalid():
    text = "<seg>a *1| b *1\n c *2\n</seg>"
    assert len(found(DescriptorFormat(2, labels="target", max_instances=3), text).instances) == 3
    assert isinstance(DescriptorFormat(2, labels="target", max_instances=2).parse(text, H, W), Invalid)


def test_of_a_phrase_all_labels_are_one_region():
    (whole,) = found(DescriptorFormat(2, resize="nearest"), "<seg>a *1| b *1\n others *1| c *1\n</seg>").instances
    assert whole.mask is not None and masks.area(whole.mask) == 3 * H * W // 4
    two = sample(target(0, 0, 10, 20, "dog"), target(20, 40, 40, 80, "cat"), target(30, 0, 40, 10, "dog"))
    (region,) = DescriptorFormat(2).regions(two).targets
    assert region.box == (0, 0, 80, 40) and region.mask == two.mask
    dogs, cat = DescriptorFormat(2, labels="target").regions(two).targets
    assert (dogs.box, dogs.label, cat) == ((0, 0, 20, 40), "dog", two.targets[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 0}, "format.grid=0"),
        ({"rle": "rows"}, "format.rle='rows' is not one of row, image, none"),
        ({"labels": "class"}, "format.labels='class' is not one of phrase, target"),
        ({"on_broken": "drop"}, "format.on_broken='drop' is not one of invalid, prefix"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DescriptorFormat(**options)

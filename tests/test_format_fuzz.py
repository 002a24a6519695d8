"""Whatever the text, parsing gives one of the three states, raises nothing, and takes time linear in its length."""

import random
import re
import resource
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segmentation import masks
from segmentation.formats import BoxFormat, BrickFormat, DescriptorFormat, Format, Reasoning, SegTokenFormat
from segmentation.sample import Found, Invalid, NoTarget, Prediction, Sample, Target

H, W = 48, 64
FORMATS = {
    "box": BoxFormat(),
    "box, resized pixels, label": BoxFormat("resized_pixels", label=True),
    "bricks, image": BrickFormat(16),
    "bricks, box": BrickFormat(6, scope="box", label="phrase"),
    "box, point": BoxFormat(point=True, on_broken="prefix"),
    "box, mask token": BoxFormat(label=True, mask_token=True),
    "bricks, prefix": BrickFormat(16, on_broken="prefix"),
    "bricks, wrapped": BrickFormat(6, scope="box", code="wrapped"),
    "descriptors": DescriptorFormat(8),
    "descriptors, image": DescriptorFormat(8, rle="image", on_broken="prefix"),
    "descriptors, none": DescriptorFormat(8, rle="none", labels="target"),
    "seg token": SegTokenFormat(),
    "thoughts and boxes": Reasoning(BoxFormat(on_broken="prefix")),
    "thoughts and columns": Reasoning(BrickFormat(9, scope="box", code="columns", columns=5)),
    "bricks, columns": BrickFormat(9, scope="box", code="columns", columns=5, label="none"),
}
FRAGMENTS = [
    *'[]{}<>",:`- \n\t\\/0123456789abfgn\x00\xa0\u0663\uff11\ud800é犬',
    *('"bbox_2d": ', '"label": ""', ", ", "```json\n", "```", "NaN", "1e9", "-1", "99999999", "null", "[]", "true"),
    *("<ref>roi0</ref>", "<ref>", "</ref>", "<box>[[", "]]</box>", "<seg>", "</seg>", "<row>", "<none>"),
    *("<fg1>", "<bg1>", "<fg6>", "<fg16>", "<bg16>", "<fg17>", "<fg0>", "<fg\u0661>", "0 0 16 16"),
    *("<col>", "<col0>", "<col5>", "<col9>", "<bg7>", "<bg8>", "<fg9>"),
    *(
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "It is [SEG].",
        "[REJ]",
        "others *8",
        "| ",
        " *",
        "\n ",
        "dog *3",
    ),
    *('"point_2d": [1, 2]', '"mask": "<mask_start><mask_token><mask_end>"', "<|im_end|>", "<|image_pad|>"),
]


NOTHING = re.compile(  # all that may say "no target", loosely
    r"\s*(<think>.*</think>\s*<answer>)?\s*"
    r"((```json)?\s*\[\s*\]\s*(```)?|<none>|It is \[REJ\]\.|<seg>(\s|others|[0-9]|\*|\|)*</seg>)"
    r"\s*(</answer>)?\s*",
    re.DOTALL,
)


def drawings(seed: int, count: int) -> list[Sample]:
    """Samples of 0 to 4 blobs."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:H, :W]
    samples = []
    for number in range(count):
        targets = []
        for _ in range(number % 5):
            y, x, radius = rng.uniform(0, H), rng.uniform(0, W), rng.uniform(3, 25)
            rle = masks.encode((rows - y) ** 2 + (columns - x) ** 2 < radius**2)
            targets.append(Target(masks.box(rle) or (0.0, 0.0, 1.0, 1.0), rle, rng.choice(["dog", "red car"])))
        samples.append(Sample(str(number), Image.new("RGB", (1, 1)), H, W, "the red dog", tuple(targets)))
    return samples


def check(form: Format, text: str) -> Prediction:
    prediction = form.parse(text, H, W)
    match prediction:
        case Found(instances):
            assert 0 < len(instances) <= 64
            for instance in instances:
                if isinstance(form, SegTokenFormat):
                    assert instance.box is None
                    continue
                x1, y1, x2, y2 = instance.box or (0, 0, 0, 0)
                assert 0 <= x1 < x2 <= W
                assert 0 <= y1 < y2 <= H
                if isinstance(form, BrickFormat | DescriptorFormat):
                    assert instance.mask is not None
                    assert instance.mask["size"] == [H, W]
                    assert masks.area(instance.mask) <= H * W
        case NoTarget():
            assert NOTHING.fullmatch(text)
        case Invalid(reason):
            assert reason.startswith("at character ")
    return prediction


def mutated(text: str, other: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 3)):
        start = rng.randint(0, len(text))
        end = min(len(text), start + int(rng.expovariate(0.2)))
        match rng.randrange(6):
            case 0:
                text = text[:start] + text[end:]
            case 1:
                text = text[:start] + rng.choice(FRAGMENTS) + text[start:]
            case 2:
                text = text[:start] + rng.choice(FRAGMENTS) + text[end:]
            case 3:
                text = text[:end] + text[start:]
            case 4:
                text = text[:start] + other[rng.randint(0, len(other)) :]
            case _:
                text = text[:start] + text[start:end][::-1] + text[end:]
    return text


def mutate(name: str, count: int) -> set[type]:
    form, rng = FORMATS[name], random.Random(name)
    texts = [form.encode(sample) for sample in drawings(0, 60)]
    return {type(check(form, mutated(rng.choice(texts), rng.choice(texts), rng))) for _ in range(count)}


@pytest.mark.parametrize("name", FORMATS)
def test_mutations_of_valid_texts(name):
    assert mutate(name, 15_000) == {Found, NoTarget, Invalid}  # 210,000 over all formats


@pytest.mark.slow
def test_a_million_mutations_and_memory_stays_flat():
    for name in FORMATS:
        mutate(name, 5_000)  # whatever is cached is cached
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in FORMATS:
        mutate(name, 1_000_000 // len(FORMATS) + 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 20_000  # kilobytes


@pytest.mark.parametrize("name", FORMATS)
@given(text=st.text() | st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join))
@settings(max_examples=300, deadline=None)
def test_any_text(name, text):
    check(FORMATS[name], text)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_regex_breaks_only_rules_that_count(name, data):
    form = FORMATS[name]
    prediction = check(form, data.draw(st.from_regex(form.regex(2), fullmatch=True)))
    if isinstance(prediction, Invalid):
        counting = (
            "inside out",
            "outside",
            "leaves the grid",
            "cells wide",
            "cells, not",
            "the grid has",
            "no cell is",
        )
        assert any(rule in prediction.reason for rule in counting)


MILLION = 1_000_000
LONG = {
    "noise": "x" * MILLION,
    "blanks": " " * MILLION,
    "blanks in a list": "[" + " " * MILLION + "x",
    "blanks in an object": '[{"bbox_2d"' + " " * MILLION + "x",
    "fence": "```json" + "\n" * MILLION,
    "brackets": "[" * MILLION,
    "digits": '[{"bbox_2d": [' + "1" * MILLION,
    "label": '[{"bbox_2d": [1, 2, 3, 4], "label": "' + "a" * MILLION,
    "label of escapes": '[{"bbox_2d": [1, 2, 3, 4], "label": "' + '\\"' * (MILLION // 2),
    "boxes": "[" + '{"bbox_2d": [1, 2, 3, 4]}, ' * (MILLION // 27),
    "boxes and blanks": "[" + ('{"bbox_2d": [1, 2, 3, 4]}' + " " * 15_000 + ",") * 60 + "x",
    "references": "<ref>" * (MILLION // 5),
    "phrase": "<ref>" + "a" * MILLION,
    "open bricks": "<ref>roi0</ref><box>[[0 0 16 16]]</box><seg>" + "<fg16><row>" * (MILLION // 11),
    "bricks": "<ref>roi0</ref><box>[[0 0 16 16]]</box><seg>" + "<fg16>" * (MILLION // 6) + "</seg>",
    "rows": "<ref>roi0</ref><box>[[0 0 16 16]]</box><seg>" + "<fg16><row>" * (MILLION // 11) + "</seg>",
    "descriptors": "<seg>" + "others *8\n " * (MILLION // 11) + "</seg>",
    "runs": "<seg>" + "others *1| " * (MILLION // 11) + "</seg>",
    "one label": "<seg>" + "a" * MILLION + " *8</seg>",
    "stars": "<seg>" + "*" * MILLION,
    "bars": "<seg>" + "|" * MILLION,
    "thoughts": "<think>" + "a" * MILLION + "</think><answer>[]</answer>",
    "thinks": "<think>" * (MILLION // 7),
    "thought and blanks": "<think></think>" + " " * MILLION + "x",
    "open answer": "<think></think><answer>" + "[" * MILLION,
    "columns": "<box>[[0 0 9 9]]</box><seg>" + "<col0><fg9>" * (MILLION // 11) + "</seg>",
    "gaps": "<box>[[0 0 9 9]]</box><seg><col0><fg9>" + "<bg1><fg1>" * (MILLION // 10) + "</seg>",
    "open columns": "<box>[[0 0 9 9]]</box><seg>" + "<col0><fg9>" * (MILLION // 11) + "<col0",
    "sentences": "<ref>roi0</ref><box>[[0 0 1 1]]</box><seg><fg1></seg>" * (MILLION // 52),
    "sentences and blanks": ("<ref>roi0</ref><box>[[0 0 1 1]]</box><seg><fg1></seg>" + " " * 15_000) * 60 + "x",
    "none": "<none>" * (MILLION // 6),
    "none and blanks": "<none>" + " " * MILLION + "x",
}


@pytest.mark.parametrize("kind", LONG)
def test_a_million_characters_take_linear_time(kind):
    for form in (*FORMATS.values(), BrickFormat(), BrickFormat(scope="box")):
        start = time.process_time()
        check(form, LONG[kind])
        assert time.process_time() - start < 2  # milliseconds if linear; quadratic time would be minutes

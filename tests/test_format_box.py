"""The grounding JSON: what is written, what is read, and why the rest is refused. The filled box for its mask."""

import re

import numpy as np
import pytest
from PIL import Image

from segmentation import masks
from segmentation.boxes import Relative, ResizedPixels
from segmentation.decoders import FilledBox
from segmentation.formats import BoxFormat
from segmentation.formats.base import Pieces, up_to
from segmentation.sample import Found, Instance, Invalid, NoTarget, Sample, Target
from tests.broken_texts import assert_broken

H, W = 480, 640


def sample(*boxes, expression="the dog", height=H, width=W) -> Sample:
    targets = tuple(Target(box) for box in boxes)
    return Sample("s", Image.new("RGB", (1, 1)), height, width, expression, targets)


def test_encode_is_the_pretrained_json():
    assert BoxFormat().encode(sample((64, 48, 320, 240))) == '[{"bbox_2d": [100, 100, 500, 500]}]'
    labelled = BoxFormat(label=True).encode(sample((64, 48, 320, 240)))
    assert labelled == '[{"bbox_2d": [100, 100, 500, 500], "label": "the dog"}]'
    assert BoxFormat().encode(sample()) == "[]"


def test_targets_are_written_from_left_to_right():
    text = BoxFormat().encode(sample((320, 0, 640, 480), (0, 0, 320, 480)))
    assert text == '[{"bbox_2d": [0, 0, 500, 1000]}, {"bbox_2d": [500, 0, 1000, 1000]}]'


@pytest.mark.parametrize("convention", ["relative1000", "resized_pixels", Relative(100), ResizedPixels(32)])
@pytest.mark.parametrize("label", [False, True])
@pytest.mark.parametrize("size", [(H, W), (28, 28), (3072, 4096), (37, 501)])
def test_round_trip_to_half_a_unit(convention, label, size):
    height, width = size
    form = BoxFormat(convention, label=label)
    boxes = [(0.0, 0.0, width / 2, height / 3), (width / 4, height / 4, float(width), float(height))]
    text = form.encode(sample(*boxes, height=height, width=width))
    found = form.parse(text, height, width)
    assert isinstance(found, Found)
    frame_height, frame_width = form.convention.size(height, width)
    slack = np.array([width / frame_width, height / frame_height] * 2) / 2 + 1e-9
    for instance, read, box in zip(found.instances, found.boxes, boxes, strict=True):
        assert (np.abs(np.subtract(read, box)) <= slack).all()
        assert instance.mask is None
        assert instance.label == ("the dog" if label else None)
    assert re.fullmatch(form.regex(2), text)
    assert not re.fullmatch(form.regex(1), text)


def test_states():
    form = BoxFormat()
    assert isinstance(form.parse(form.encode(sample()), H, W), NoTarget)
    assert isinstance(form.parse(form.encode(sample((1, 2, 3, 4))), H, W), Found)
    assert isinstance(form.parse("", H, W), Invalid)
    assert re.fullmatch(form.regex(3), "[]")


@pytest.mark.parametrize(
    "text",
    [
        '[{"bbox_2d": [1, 2, 30, 40]}]',
        '[{"bbox_2d":[1,2,30,40]}]',
        ' \n[ {\t"bbox_2d" : [ 1 , 2 , 30 , 40 ] } ] \r\n',
        '[{"bbox_2d": [1, 2, 30, 40], "label": "a dog"}]',
        '[\n\t{"bbox_2d": [1, 2, 30, 40], "label": "übergroßer Hund 犬"}\n]',
        '[{"bbox_2d": [1, 2, 30, 40] , "label" : ""}]',
        '```json\n[\n\t{"bbox_2d": [1, 2, 30, 40], "label": "a dog"}\n]\n```',
        '```json[{"bbox_2d": [1, 2, 30, 40]}]```\n',
    ],
)
def test_reads_what_models_write(text):
    found = BoxFormat().parse(text, 1000, 1000)
    assert isinstance(found, Found)
    assert [instance.box for instance in found.instances] == [(1, 2, 30, 40)]


@pytest.mark.parametrize("text", ["[]", " [ ] ", "```json\n[]\n```"])
def test_reads_no_target(text):
    assert BoxFormat().parse(text, H, W) == NoTarget()


def box(numbers: str) -> str:
    return f'[{{"bbox_2d": [{numbers}]}}]'


@pytest.mark.parametrize(
    ("marked", "rule"),
    [  # ^ marks the place that the reason names
        ("^", "expected [, found the end"),
        ("^The dog is at [1, 2]", "expected [, found 'The dog is at [1'"),
        ('^{"bbox_2d": [1, 2, 3, 4]}', "expected ["),
        ("[^", "expected {, found the end"),
        ("[^[1, 2, 3, 4]]", "expected {"),
        ('[{^"bbox": [1, 2, 3, 4]}]', 'expected "bbox_2d"'),
        ("[{^'bbox_2d': [1, 2, 3, 4]}]", 'expected "bbox_2d"'),
        ('[{^"label": "a", "bbox_2d": [1, 2, 3, 4]}]', 'expected "bbox_2d"'),
        (box("1, 2, 3^"), "expected a comma"),
        (box("1, 2, 3, 4^, 5"), "expected ]"),
        (box("1 ^2 3 4"), "expected a comma"),
        (box("^1.0, 2, 3, 4"), "expected an integer of at most 6 digits"),
        (box("1, 2, 3, ^4e3"), "expected an integer of at most 6 digits"),
        (box("^NaN, 2, 3, 4"), "expected an integer of at most 6 digits"),
        (box("1, 2, ^Infinity, 4"), "expected an integer of at most 6 digits"),
        (box("1, 2, 3, ^1234567"), "expected an integer of at most 6 digits"),
        (box("1, 2, 3, ^" + 5000 * "9"), "expected an integer of at most 6 digits, found '9999999999999999'"),
        (box("^01, 2, 3, 4"), "expected an integer of at most 6 digits"),
        (box("^+1, 2, 3, 4"), "expected an integer of at most 6 digits"),
        (box("1, 2, 3, ^\u0664"), "expected an integer of at most 6 digits"),
        (box("1, 2, 3, ^\uff14"), "expected an integer of at most 6 digits"),
        (box("1, 2, 3, ^null"), "expected an integer of at most 6 digits"),
        (box("1,^\u00a02, 3, 4"), "expected an integer of at most 6 digits"),
        (box("^30, 2, 1, 40"), "box (30, 2, 1, 40) is inside out or has no area: x1 < x2 and y1 < y2 must hold"),
        (box("^1, 40, 30, 2"), "box (1, 40, 30, 2) is inside out or has no area"),
        (box("^1, 2, 1, 40"), "box (1, 2, 1, 40) is inside out or has no area"),
        (box("^1000, 0, 1010, 9"), "box (1000, 0, 1010, 9) lies outside the frame, 1000 wide and 1000 high"),
        (box("^-20, 0, 0, 9"), "box (-20, 0, 0, 9) lies outside the frame"),
        ('[{"bbox_2d": [1, 2, 3, 4]^, "score": 1}]', 'expected } or , "label": "..."'),
        ('[{"bbox_2d": [1, 2, 3, 4]^, "label": 7}]', 'expected } or , "label": "..."'),
        ('[{"bbox_2d": [1, 2, 3, 4]^, "label": "\\""}]', 'expected } or , "label": "..."'),
        ('[{"bbox_2d": [1, 2, 3, 4]^, "label": "</answer>"}]', 'expected } or , "label": "..."'),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "a"^, "x": 1}]', 'expected } or , "label": "..."'),
        ('[{"bbox_2d": [1, 2, 3, 4]},^]', "expected {"),
        ('[{"bbox_2d": [1, 2, 3, 4]} ^{"bbox_2d": [1, 2, 3, 4]}]', "expected a comma or ]"),
        ('[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [1, 2, 3^', "expected a comma, found the end"),
        ('[{"bbox_2d": [1, 2, 3, 4]}^', "expected a comma or ], found the end"),
        ('[{"bbox_2d": [1, 2, 3, 4]}] ^and', "expected the end, found 'and'"),
        ("[] ^[]", "expected the end"),
        ("[^[]]", "expected {"),
        ('```json\n[{"bbox_2d": [1, 2, 3, 4]}]^', "expected ```, found the end"),
        ('[{"bbox_2d": [1, 2, 3, 4]}]^```', "expected the end"),
        ("^```\n[]\n```", "expected ["),
    ],
)
def test_the_rest_is_invalid_and_says_where_and_why(marked, rule):
    assert_broken(BoxFormat(), marked, rule, H, W)


def test_reasons_stay_short():
    prediction = BoxFormat().parse("x" * 100_000, H, W)
    assert isinstance(prediction, Invalid)
    assert len(prediction.reason) < 100


def test_a_box_slightly_out_of_frame_is_clamped():
    found = BoxFormat().parse(box("-5, 500, 1004, 1001"), H, W)
    assert isinstance(found, Found)
    assert found.instances[0].box == (0, 240, 640, 480)


def test_too_many_boxes_are_invalid():
    one = '{"bbox_2d": [1, 2, 3, 4]}'
    form = BoxFormat(max_instances=3)
    assert isinstance(form.parse(f"[{', '.join([one] * 3)}]", H, W), Found)
    prediction = form.parse(f"[{', '.join([one] * 4)}]", H, W)
    assert isinstance(prediction, Invalid)
    assert prediction.reason.endswith("more than 3 objects")


@pytest.mark.parametrize("expression", ['"}] <|im_end|>\n[{', "a\\", '""', "<seg>", "\x00\u2028", ""])
def test_an_expression_cannot_break_out(expression):
    form = BoxFormat(label=True)
    text = form.encode(sample((1, 2, 300, 400), expression=expression))
    found = form.parse(text, H, W)
    assert isinstance(found, Found)
    assert len(found.instances) == 1
    assert re.fullmatch(form.regex(1), text)
    assert "<" not in form.prompt(expression)
    assert "\n" not in form.prompt(expression)


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="relative1000, resized_pixels"):
        BoxFormat("relative100")


def test_new_tokens():
    assert BoxFormat().new_tokens == ()


@pytest.mark.parametrize("last", [1, 7, 9, 10, 24, 64, 99, 100, 999, 1000, 1280])
def test_up_to_is_exact(last):
    regex = re.compile(up_to(last))
    assert [n for n in range(3 * last + 20) if regex.fullmatch(str(n))] == list(range(last + 1))
    assert not regex.fullmatch("00")
    assert not regex.fullmatch("")


def test_pieces_that_match_miss_nothing():
    pieces = Pieces(("a", "a"), ("b", "b"), gap=" *")
    assert pieces.match("a  b")
    with pytest.raises(ValueError, match="nothing is missing"):
        pieces.missing("a  b", 0)


@pytest.mark.parametrize(
    "edges",
    [
        (1.0, 2.0, 5.0, 7.0),
        (0.4, 0.6, 3.5, 3.4),
        (0.0, 0.0, 9.0, 8.0),  # the whole image: every column full
        (2.0, 0.0, 9.0, 8.0),
        (8.9, 7.9, 9.0, 8.0),
        (3.1, 3.1, 3.2, 3.2),  # between two centres
        (-3.0, -3.0, 4.0, 4.0),
        (20.0, 20.0, 30.0, 30.0),
        (-9.0, 1.0, -1.0, 5.0),
        (1.0, 12.0, 5.0, 20.0),
        (5.0, 5.0, 2.0, 2.0),
    ],
)
def test_filled_box_is_every_pixel_whose_centre_is_inside(edges):
    x1, y1, x2, y2 = edges
    y, x = np.mgrid[:8, :9] + 0.5
    expected = masks.encode((x >= x1) & (x < x2) & (y >= y1) & (y < y2))
    filled = FilledBox().fill(Found((Instance(edges, label="a", score=0.5),)), 8, 9)
    assert filled == Found((Instance(edges, expected, "a", 0.5),))


def test_filled_box_leaves_the_rest_alone():
    mask = masks.empty(8, 9)
    made = Found((Instance((1.0, 1.0, 2.0, 2.0), mask),))
    for prediction in (made, NoTarget(), Invalid("at character 0: no")):
        assert FilledBox().fill(prediction, 8, 9) == prediction


def ring(radius: float) -> Target:
    y, x = np.mgrid[:H, :W]
    away = np.hypot(y - 200, x - 300)
    rle = masks.encode((away < radius) & ((away > radius / 2) | (y < 200)))
    return Target(masks.box(rle) or (0.0, 0.0, 1.0, 1.0), rle)


@pytest.mark.parametrize("convention", ["relative1000", "resized_pixels"])
def test_a_point_lies_on_its_object(convention):
    form = BoxFormat(convention, point=True)
    drawn = Sample("s", Image.new("RGB", (1, 1)), H, W, "the ring", (ring(80),))
    text = form.encode(drawn)
    assert re.fullmatch(form.regex(1), text)
    prediction = form.parse(text, H, W)
    assert isinstance(prediction, Found)
    (instance,) = prediction.instances
    assert instance.point
    assert drawn.mask
    x, y = instance.point
    assert masks.decode(drawn.mask)[int(y), int(x)]
    assert isinstance(BoxFormat(convention).parse(text, H, W), Invalid)
    assert isinstance(form.parse(BoxFormat(convention).encode(drawn), H, W), Invalid)
    with pytest.raises(ValueError, match="sample s: a point needs a mask"):
        form.encode(sample((0.0, 0.0, 3.0, 3.0)))


def test_mask_tokens():
    form = BoxFormat(label=True, mask_token=True)
    text = form.encode(sample((64.0, 48.0, 128.0, 96.0)))
    assert text == (
        '[{"bbox_2d": [100, 100, 200, 200], "label": "the dog", "mask": "<mask_start><mask_token><mask_end>"}]'
    )
    assert form.new_tokens == ("<mask_start>", "<mask_token>", "<mask_end>")
    assert re.fullmatch(form.regex(1), text)
    assert isinstance(form.parse(text, H, W), Found)
    assert isinstance(form.parse(text.replace("<mask_token>", "<mask_token>" * 2), H, W), Invalid)
    assert isinstance(BoxFormat(label=True).parse(text, H, W), Invalid)


def test_a_prefix_keeps_the_objects_before_the_break():
    text = '[{"bbox_2d": [1, 2, 30, 40]}, {"bbox_2d": [5, 6'
    assert isinstance(BoxFormat().parse(text, H, W), Invalid)
    kept = BoxFormat(on_broken="prefix").parse(text, H, W)
    assert isinstance(kept, Found)
    assert len(kept.boxes) == 1
    assert isinstance(BoxFormat(on_broken="prefix").parse(text[:10], H, W), Invalid)

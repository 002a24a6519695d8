"""Bricks: what is written and read in both scopes, and every decision the papers leave open."""

import re

import numpy as np
import pytest
from PIL import Image

from segmentation import masks
from segmentation.decoders import BrickDecoder, FilledBox
from segmentation.formats import BrickFormat
from segmentation.sample import Found, Instance, Invalid, NoTarget, Sample, Target
from tests.broken_texts import assert_broken

H, W = 480, 640


def sample(*drawn: np.ndarray, expression="the dog", height=H, width=W) -> Sample:
    rles = [masks.encode(mask) for mask in drawn]
    targets = tuple(Target(masks.box(rle) or (0.0, 0.0, 1.0, 1.0), rle) for rle in rles)
    return Sample("s", Image.new("RGB", (1, 1)), height, width, expression, targets)


def ellipse(y: float, x: float, radius_y: float, radius_x: float) -> np.ndarray:
    rows, columns = np.mgrid[:H, :W] + 0.5
    return ((rows - y) / radius_y) ** 2 + ((columns - x) / radius_x) ** 2 < 1


def found(form: BrickFormat, text: str, height=H, width=W) -> tuple[Instance, ...]:
    prediction = form.parse(text, height, width)
    assert isinstance(prediction, Found), prediction
    return prediction.instances


def iou(first: masks.RLE, second: masks.RLE) -> float:
    return float(masks.iou_matrix([first], [second])[0, 0])


def test_encode_scope_image():
    mask = np.zeros((H, W), bool)
    mask[75:90, 120:150] = True
    mask[75:82, 120:130] = False  # a cell is 10 wide and 7.5 high
    assert BrickFormat().encode(sample(mask)) == (
        "<ref>roi0</ref><box>[[12 10 15 12]]</box><seg><bg1><fg2><row><fg3></seg>"
    )


def test_encode_scope_box():
    mask = np.zeros((H, W), bool)
    mask[96:192, 128:256] = True
    mask[96:144, 128:192] = False
    text = BrickFormat(2, scope="box").encode(sample(mask))
    assert text == "<ref>roi0</ref><box>[[200 200 400 400]]</box><seg><bg1><fg1><row><fg2></seg>"
    pixels = BrickFormat(2, scope="box", convention="resized_pixels").encode(sample(mask))
    assert pixels == "<ref>roi0</ref><box>[[129 95 258 190]]</box><seg><bg1><fg1><row><fg2></seg>"  # 644 x 476


def test_objects_are_written_from_left_to_right_and_numbered():
    text = BrickFormat().encode(sample(ellipse(100, 500, 50, 50), ellipse(300, 100, 50, 50)))
    assert re.findall("<ref>(.*?)</ref><box>(.*?)</box>", text) == [
        ("roi0", "[[5 33 15 47]]"),
        ("roi1", "[[45 7 55 20]]"),
    ]
    assert len(found(BrickFormat(), text)) == 2


def test_labels():
    drawn = sample(ellipse(100, 100, 50, 50))
    phrase, none = BrickFormat(label="phrase"), BrickFormat(label="none")
    assert phrase.encode(drawn).startswith("<ref>the dog</ref><box>")
    assert found(phrase, phrase.encode(drawn))[0].label == "the dog"
    assert none.encode(drawn).startswith("<box>")
    assert found(none, none.encode(drawn))[0].label is None
    assert found(BrickFormat(), BrickFormat().encode(drawn))[0].label is None
    assert isinstance(none.parse(phrase.encode(drawn), H, W), Invalid)
    assert isinstance(BrickFormat().parse(none.encode(drawn), H, W), Invalid)


@pytest.mark.parametrize("expression", ["</ref><none>", "a <seg> <|im_end|>\n", '"\\', "\x00", ""])
def test_an_expression_cannot_break_out(expression):
    form = BrickFormat(label="phrase")
    text = form.encode(sample(ellipse(100, 100, 50, 50), expression=expression))
    assert len(found(form, text)) == 1
    assert re.fullmatch(form.regex(1), text)
    assert "<" not in form.prompt(expression)


def test_new_tokens_are_all_there_is_but_digits():
    form = BrickFormat(label="none")
    assert len(form.new_tokens) == len(set(form.new_tokens)) == 8 + 2 * 64
    assert form.new_tokens[:10] == (
        *("<ref>", "</ref>", "<box>", "</box>", "<seg>", "</seg>", "<none>", "<row>", "<fg1>", "<fg2>"),
    )
    assert form.new_tokens[-1] == "<bg64>"
    text = form.encode(sample(ellipse(100, 100, 50, 50)))
    rest = re.sub("|".join(map(re.escape, form.new_tokens)), "", text)
    assert re.fullmatch(r"\[\[\d+ \d+ \d+ \d+\]\]", rest)


COLUMNS = BrickFormat(scope="box", code="columns")
FORMATS = [
    BrickFormat(),
    BrickFormat(16),
    BrickFormat(80, label="phrase"),
    BrickFormat(scope="box"),
    BrickFormat(8, scope="box", convention="resized_pixels", label="none"),
    BrickFormat(resize="nearest"),
    BrickFormat(scope="box", resize="nearest"),
    COLUMNS,
    BrickFormat(code="wrapped"),
    BrickFormat(16, scope="box", code="columns", columns=8, convention="resized_pixels", label="none"),
]


@pytest.mark.parametrize("form", FORMATS)
def test_states_survive_and_the_regex_knows_them(form):
    one, two = ellipse(200, 150, 120, 90), ellipse(240, 450, 200, 100)
    for drawn in (sample(), sample(one), sample(one, two)):
        text = form.encode(drawn)
        prediction = form.parse(text, H, W)
        assert isinstance(prediction, Found if drawn.targets else NoTarget)
        assert re.fullmatch(form.regex(2), text)
        if isinstance(prediction, Found):
            assert form.parse(f"\n {text}\n", H, W) == prediction
            for instance, target in zip(prediction.instances, drawn.targets, strict=True):
                assert instance.mask and target.mask
                assert iou(instance.mask, target.mask) > (0.75 if form.grid < 24 else 0.94)
    assert not re.fullmatch(form.regex(1), form.encode(sample(one, two)))


def test_a_row_as_wide_as_the_image_is_one_brick():
    form = BrickFormat()
    text = form.encode(sample(np.ones((H, W), bool)))
    assert text == "<ref>roi0</ref><box>[[0 0 64 64]]</box><seg>" + "<row>".join(["<fg64>"] * 64) + "</seg>"
    (instance,) = found(form, text)
    assert instance.box == (0, 0, W, H)
    assert instance.mask is not None
    assert masks.area(instance.mask) > 0.999 * H * W  # the corners are rounded off, where two sides are background


@pytest.mark.parametrize("form", [BrickFormat(), BrickFormat(scope="box"), COLUMNS])
def test_an_object_of_one_pixel_survives(form):
    for y, x in ((0, 0), (0, W - 1), (H - 1, 0), (H - 1, W - 1), (7, 9), (240, 320), (101, 333)):
        mask = np.zeros((H, W), bool)
        mask[y, x] = True
        (instance,) = found(form, form.encode(sample(mask)))
        assert instance.mask is not None
        assert masks.area(instance.mask) > 0


def test_a_mask_without_a_pixel_is_written_as_its_filled_box():
    empty = Target((128.0, 96.0, 256.0, 192.0), masks.empty(H, W))
    drawn = Sample("s", Image.new("RGB", (1, 1)), H, W, "dust", (empty,))
    assert BrickFormat(2, scope="box").encode(drawn) == (
        "<ref>roi0</ref><box>[[200 200 400 400]]</box><seg><fg2><row><fg2></seg>"
    )


def test_a_target_without_a_mask_is_an_error():
    drawn = Sample("s7", Image.new("RGB", (1, 1)), H, W, "a dog", (Target((1.0, 2.0, 30.0, 40.0)),))
    with pytest.raises(ValueError, match="sample s7: bricks need a mask"):
        BrickFormat().encode(drawn)


def one(box: str = "0 0 3 2", bricks: str = "<fg3><row><fg3>") -> str:
    return f"<ref>roi0</ref><box>[[{box}]]</box><seg>{bricks}</seg>"


@pytest.mark.parametrize(
    "text",
    [
        one(),
        one(bricks="<fg1><fg2><row><bg1><bg1><fg1>"),  # two of a kind
        one(bricks="<bg3><row><fg3>"),
        f"\t{one()} \n",
        f"{one()}{one()}",
        f"{one()}\n{one('61 62 63 64', '<fg2><row><fg2>')}",
        one().replace("roi0", "roi17"),
    ],
)
def test_reads(text):
    assert len(found(BrickFormat(), text)) == text.count("<seg>")


@pytest.mark.parametrize("text", ["<none>", " <none>\n"])
def test_reads_no_target(text):
    assert BrickFormat().parse(text, H, W) == NoTarget()


@pytest.mark.parametrize(
    ("marked", "rule"),
    [  # ^ marks the place that the reason names
        ("^", "expected <ref>roi0</ref>, found the end"),
        ("  ^", "expected <ref>roi0</ref>, found the end"),
        ("^none", "expected <ref>roi0</ref>"),
        ("^<none><none>", "expected <ref>roi0</ref>, found '<none><none>'"),
        (f"^<none>{one()}", "expected <ref>roi0</ref>"),
        (f"{one()}^<none>", "expected <ref>roi0</ref>"),
        (f"{one()} ^and", "expected <ref>roi0</ref>, found 'and'"),
        ("^" + one().replace("roi0", "dog"), "expected <ref>roi0</ref>"),
        (one().replace("</ref>", "</ref>^ "), "expected <box>[["),
        (one("0^, 0, 3, 2"), "expected a blank, found ', 0, 3, 2"),
        (one("0 0 3^"), "expected a blank, found ']]</box>"),
        (one("0 0 ^3.0 2"), "expected an integer of at most 6 digits"),
        (one("0 0 ^\u0663 2"), "expected an integer of at most 6 digits"),
        (one("^3 0 0 2"), "box (3, 0, 0, 2) is inside out or has no area"),
        (one("^0 0 3 65"), "box (0, 0, 3, 65) leaves the grid of 64 x 64 cells"),
        (one("^-1 0 2 2"), "box (-1, 0, 2, 2) leaves the grid"),
        (one("^64 0 67 2"), "box (64, 0, 67, 2) lies outside the frame, 64 wide and 64 high"),
        (one(bricks="^"), "expected a brick, <row> or </seg>, found '</seg>'"),
        (one(bricks="<fg3><row>^"), "row 1 is 0 cells wide, not 3"),
        (one(bricks="^<row><fg3>"), "row 0 is 0 cells wide, not 3"),
        (one(bricks="<fg2>^<row><fg3>"), "row 0 is 2 cells wide, not 3"),
        (one(bricks="<fg2><bg2>^<row><fg2>"), "row 0 is 4 cells wide, not 3"),
        (one(bricks="<fg2>^<row><fg4>"), "row 0 is 2 cells wide, not 3"),
        (one(bricks="<fg3><row><fg4>^"), "row 1 is 4 cells wide, not 3"),
        (one(bricks="<fg6>^"), "row 0 is 6 cells wide, not 3"),
        (one(bricks="<fg7>^"), "row 0 is 7 cells wide, not 3"),
        (one(bricks="<fg3>^"), "the grid has 1 of 2 rows"),
        (one(bricks="<fg3><row><fg3><row><fg3>^"), "the grid has 3 of 2 rows"),
        (one(bricks="^<bg3><row><bg3>"), "no cell is foreground: an answer without an object is <none>"),
        (one(bricks="^<fg0><fg3><row><fg3>"), "expected a brick, <row> or </seg>, found '<fg0>"),
        (one(bricks="^<fg03><row><fg3>"), "expected a brick, <row> or </seg>, found '<fg03>"),
        (one(bricks="^<fg65><row><fg3>"), "expected a brick, <row> or </seg>, found '<fg65>"),
        (one(bricks="<fg3>^ <row><fg3>"), "expected a brick, <row> or </seg>, found ' <row>"),
        (one(bricks="^fg3><row><fg3>"), "expected a brick, <row> or </seg>, found 'fg3>"),
        (one(bricks="^xfg3><row><fg3>"), "expected a brick, <row> or </seg>, found 'xfg3>"),
        (one(bricks="<fg3><row>^<fg3"), "expected a brick, <row> or </seg>, found '<fg3'"),
        (one(bricks="<fg3><row>^<fg3x"), "expected a brick, <row> or </seg>, found '<fg3x'"),
        (one(bricks="<fg3>^<seg><fg3>"), "expected a brick, <row> or </seg>, found '<seg>"),
        (one(bricks="^<fg3><row><fg3>")[:-2], "expected a </seg> further on, found '<fg3><row><fg3><'"),
        (one()[:29] + "^]", "expected ]]</box><seg>, found ']'"),
    ],
)
def test_the_rest_is_invalid_and_says_where_and_why(marked, rule):
    assert_broken(BrickFormat(), marked, rule, H, W)


def columns(bricks: str) -> str:
    return f"<ref>roi0</ref><box>[[0 0 500 500]]</box><seg>{bricks}</seg>"


@pytest.mark.parametrize(
    ("marked", "rule"),
    [
        ("^", "expected <col> or </seg>, found '</seg>'"),
        ("^<fg1><col1><fg3>", "expected <col> or </seg>, found '<fg1><col1><fg3>"),
        ("<col1>^<col1><fg3>", "expected a brick of foreground or </seg>, found '<col1><fg3>'"),
        ("<col1>^<bg1><fg2><col>", "expected a brick of foreground or </seg>, found '<bg1><fg2><col>"),
        ("<col1><fg1>^<fg1><col>", "expected <col> or </seg>, found '<fg1><col>'"),
        ("<col1><fg1>^<bg2><col>", "expected <col> or </seg>, found '<bg2><col>'"),
        ("<col>^ <col1><fg1>", "expected <col> or </seg>, found ' <col1><fg1>'"),
        ("<col><col1>^<fg5>", "expected a brick, <col> or </seg>, found '<fg5>'"),
        ("<col>^<col4><fg1>", "expected a brick, <col> or </seg>, found '<col4><fg1>'"),
        ("<col>^<col01><fg1>", "expected a brick, <col> or </seg>, found '<col01><fg1>'"),
        ("^" + 129 * "<col1><fg3>", "129 columns are more than 128"),
        ("^<col><col>", "no cell is foreground: an answer without an object is <none>"),
    ],
)
def test_broken_columns_say_where_and_why(marked, rule):
    form = BrickFormat(4, scope="box", code="columns", columns=2)
    assert_broken(form, columns(marked), rule, H, W)


def test_as_many_columns_as_are_written_share_the_box_and_a_run_ends_with_the_grid():
    form = BrickFormat(4, scope="box", code="columns", columns=2)
    for written, meant in (("<col3><fg4>", "<col3><fg1><col3><fg1>"), ("<col0><fg4>" * 3, "<col0><fg4><col0><fg4>")):
        (one,), (other,) = found(form, columns(written)), found(form, columns(meant))
        assert one.mask == other.mask


def test_encode_columns():
    mask = np.zeros((H, W), bool)
    mask[96:192, 128:256] = True
    mask[96:144, 128:192] = False
    form = BrickFormat(4, scope="box", code="columns", columns=2)
    text = form.encode(sample(mask))
    assert text == "<ref>roi0</ref><box>[[200 200 400 400]]</box><seg><col2><fg2><col0><fg4></seg>"
    (instance,) = found(form, text)
    assert instance.mask is not None
    drawn = masks.decode(instance.mask)
    assert drawn[144:192, 128:256].all()
    assert drawn[96:144, 128 + 97 : 256].all()  # right of the second column's centre
    slope = [int(np.flatnonzero(drawn[:, x])[0]) for x in range(161, 224)]  # from one centre to the other
    assert slope == sorted(slope, reverse=True)
    assert not drawn[96:144, 128:160].any()


def test_scope_box_has_as_many_cells_as_the_grid_whatever_the_box():
    form = BrickFormat(3, scope="box")
    (instance,) = found(form, one("-5 500 1004 1001", "<row>".join(["<fg3>"] * 3)))  # slightly outside: clamped
    assert instance.box == (0, 240, 640, 480)
    prediction = form.parse(one(bricks="<fg2><row><fg2>"), H, W)
    assert isinstance(prediction, Invalid)
    assert prediction.reason.endswith("row 0 is 2 cells wide, not 3")


def test_too_many_objects_are_invalid():
    form = BrickFormat(max_instances=2)
    assert len(found(form, one() * 2)) == 2
    prediction = form.parse(one() * 3, H, W)
    assert isinstance(prediction, Invalid)
    assert prediction.reason == f"at character {2 * len(one())}: more than 2 objects"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "row"}, "format.scope='row' is not one of image, box."),
        ({"label": "name"}, "format.label='name' is not one of roi, phrase, none."),
        ({"grid": 0}, "format.grid=0, format.columns=16: a grid has at least one cell"),
        ({"columns": 0}, "format.grid=None, format.columns=0: a grid has at least one cell"),
        ({"columns": 65}, "format.columns=65 is more than 64"),
        ({"code": "runs"}, "format.code='runs' is not one of rows, wrapped, columns."),
        ({"code": "columns"}, "format.code=columns needs scope=box, resize=bilinear, not image, bilinear"),
        ({"code": "columns", "scope": "box", "resize": "nearest"}, "not box, nearest"),
        ({"scope": "box", "convention": "bins"}, "format.convention='bins' is not a convention"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BrickFormat(**options)


def test_the_brick_decoder_has_nothing_to_fill():
    prediction = BrickFormat().parse(one(), H, W)
    for answer in (prediction, NoTarget(), Invalid("at character 0: no")):
        assert BrickDecoder().fill(answer, H, W) == answer
        assert FilledBox().fill(answer, H, W) == answer
    with pytest.raises(ValueError, match="filled_box"):
        BrickDecoder().fill(Found((Instance((1.0, 2.0, 3.0, 4.0)),)), H, W)


@pytest.mark.parametrize("form", [BrickFormat(), BrickFormat(scope="box"), COLUMNS])
def test_structured_decoding_accepts_the_regex(form):
    xgrammar = pytest.importorskip("xgrammar")
    vocabulary = [*map(chr, range(32, 127)), *form.new_tokens, "</s>"]
    info = xgrammar.TokenizerInfo(vocabulary, stop_token_ids=[len(vocabulary) - 1])
    compiled = xgrammar.GrammarCompiler(info, max_threads=1).compile_regex(form.regex(64))
    for drawn in (sample(), sample(ellipse(200, 150, 120, 90))):
        assert xgrammar.GrammarMatcher(compiled).accept_string(form.encode(drawn))
    assert not xgrammar.GrammarMatcher(compiled).accept_string("<seg>")


def test_a_prefix_keeps_the_objects_before_the_break():
    assert len(found(BrickFormat(on_broken="prefix"), one() + one()[:-9])) == 1
    assert isinstance(BrickFormat().parse(one() + one()[:-9], H, W), Invalid)
    assert isinstance(BrickFormat(on_broken="prefix").parse(one()[:-9], H, W), Invalid)


def test_wrapped_runs_go_on_over_the_ends_of_rows():
    mask = np.zeros((H, W), bool)
    mask[75:90, 120:150] = True
    mask[75:82, 120:130] = False
    form = BrickFormat(code="wrapped")
    text = form.encode(sample(mask))
    assert text == "<ref>roi0</ref><box>[[12 10 15 12]]</box><seg><bg1><fg5></seg>"
    assert found(form, text)[0].mask == found(BrickFormat(), BrickFormat().encode(sample(mask)))[0].mask
    long = form.encode(sample(np.ones((H, W), bool)))
    assert long.endswith("<seg>" + "<fg64>" * 64 + "</seg>")
    for bricks, rule in (("<fg5>", "the bricks are 5 cells, not 2 x 3"), ("<fg3><row><fg3>", "a brick")):
        prediction = form.parse(one(bricks=bricks), H, W)
        assert isinstance(prediction, Invalid)
        assert rule in prediction.reason

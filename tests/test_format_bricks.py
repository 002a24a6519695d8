"""Bricks: the grids, what is written and read in both scopes, every decision the papers leave open, and real masks."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from transformers import AutoTokenizer

from segmentation import masks
from segmentation.decoders import BrickDecoder, FilledBox, decode_grid, encode_grid
from segmentation.formats import BrickFormat
from segmentation.sample import Found, Instance, Invalid, NoTarget, Sample, Target

H, W = 480, 640
grids = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays.arrays(bool, shape))


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


# grids


@given(grids, st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_bricks_of_a_grid_are_its_bricks_again(grid, at):
    form = BrickFormat(9)
    rows, columns = grid.shape
    read = form.read_grid(form.write_grid(grid), rows, columns, at)
    if grid.any():
        assert isinstance(read, np.ndarray)
        np.testing.assert_array_equal(read, grid)
    else:
        assert isinstance(read, Invalid)


@given(grids)
@settings(max_examples=200, deadline=None)
def test_a_grid_of_whole_pixels_survives_image_and_text(grid):
    rows, columns = grid.shape
    mask = np.kron(grid, np.ones((3, 3), bool))  # cells of 3 x 3 pixels
    box = (0.0, 0.0, 3.0 * columns, 3.0 * rows)
    for how in ("nearest", "area"):
        expected = grid if grid.any() else np.ones_like(grid)
        np.testing.assert_array_equal(encode_grid(mask, box, rows, columns, how), expected)
    np.testing.assert_array_equal(masks.decode(decode_grid(grid, box, 3 * rows, 3 * columns, "nearest")), mask)


@given(
    grids,
    st.tuples(st.floats(0, 30), st.floats(0, 20), st.floats(0.01, 40), st.floats(0.01, 30)),
)
@settings(max_examples=300, deadline=None)
def test_decoding_by_runs_is_decoding_by_pixels(grid, place):
    height, width = 37, 53
    x1, y1 = place[0], place[1]
    x2, y2 = min(x1 + place[2], width), min(y1 + place[3], height)
    rows, columns = grid.shape
    v = (np.arange(height) + 0.5 - y1) / (y2 - y1) * rows  # pixel centres in cells
    u = (np.arange(width) + 0.5 - x1) / (x2 - x1) * columns
    box = ((v >= 0) & (v < rows))[:, None] & ((u >= 0) & (u < columns))
    ring = np.pad(grid, 1).astype(float)

    def weights(positions: np.ndarray, cells: int) -> np.ndarray:  # (pixels, cells + 2), linear between cell centres
        return np.maximum(0, 1 - np.abs(positions[:, None] - (np.arange(cells + 2) - 0.5)))

    values = weights(v, rows) @ ring @ weights(u, columns).T
    got = masks.decode(decode_grid(grid, (x1, y1, x2, y2), height, width, "bilinear"))
    assert not got[~box].any()
    clear = box & (np.abs(values - 0.5) > 1e-5)  # at a tie rounding decides
    np.testing.assert_array_equal(got[clear], values[clear] > 0.5)

    got = masks.decode(decode_grid(grid, (x1, y1, x2, y2), height, width, "nearest"))
    assert not got[~box].any()
    clear = box & ((np.abs(v - np.rint(v)) > 1e-9)[:, None] & (np.abs(u - np.rint(u)) > 1e-9))
    row, column = np.clip(np.floor(v) + 1, 0, rows + 1), np.clip(np.floor(u) + 1, 0, columns + 1)
    under = ring[np.ix_(row.astype(int), column.astype(int))]
    np.testing.assert_array_equal(got[clear], under[clear] > 0)


@given(grids, st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_run_lengths_are_canonical(grid, height, width):
    for resize in ("bilinear", "nearest"):
        rle = decode_grid(grid, (0.0, 0.0, float(width), float(height)), height, width, resize)
        assert rle == masks.encode(masks.decode(rle))


def test_a_box_between_two_centres_has_no_pixel():
    assert decode_grid(np.ones((2, 2)), (3.6, 3.6, 4.4, 4.4), 9, 9) == masks.empty(9, 9)


def test_a_small_object_keeps_the_cells_it_touches():
    mask = np.zeros((64, 64), bool)
    mask[10, 20] = True  # not under the centre of any cell of 8 x 8 pixels, and a small part of its cell
    for how in ("nearest", "area"):
        grid = encode_grid(mask, (0.0, 0.0, 64.0, 64.0), 8, 8, how)
        assert np.argwhere(grid).tolist() == [[1, 2]]


# the text


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
        *("<ref>", "</ref>", "<box>", "</box>", "<seg>", "</seg>", "<row>", "<none>", "<fg1>", "<fg2>"),
    )
    assert form.new_tokens[-1] == "<bg64>"
    text = form.encode(sample(ellipse(100, 100, 50, 50)))
    rest = re.sub("|".join(map(re.escape, form.new_tokens)), "", text)
    assert re.fullmatch(r"\[\[\d+ \d+ \d+ \d+\]\]", rest)


FORMATS = [
    BrickFormat(),
    BrickFormat(16),
    BrickFormat(80, label="phrase"),
    BrickFormat(scope="box"),
    BrickFormat(8, scope="box", convention="resized_pixels", label="none"),
    BrickFormat(resize="nearest"),
    BrickFormat(scope="box", resize="nearest"),
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


@pytest.mark.parametrize("scope", ["image", "box"])
def test_an_object_of_one_pixel_survives(scope):
    form = BrickFormat(scope=scope)
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
    place, text = marked.index("^"), marked.replace("^", "")
    prediction = BrickFormat().parse(text, H, W)
    assert isinstance(prediction, Invalid)
    assert prediction.reason.startswith(f"at character {place}: {rule}")


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
        ({"scope": "row"}, "format.scope='row' is not a scope; there are image, box"),
        ({"label": "name"}, "format.label='name' is not a label; there are roi, phrase, none"),
        ({"grid": 0}, "format.grid=0: a grid has at least one cell"),
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


@pytest.mark.parametrize("form", [BrickFormat(), BrickFormat(scope="box")])
def test_structured_decoding_accepts_the_regex(form):
    xgrammar = pytest.importorskip("xgrammar")
    vocabulary = [*map(chr, range(32, 127)), *form.new_tokens, "</s>"]
    info = xgrammar.TokenizerInfo(vocabulary, stop_token_ids=[len(vocabulary) - 1])
    compiled = xgrammar.GrammarCompiler(info, max_threads=1).compile_regex(form.regex(64))
    for drawn in (sample(), sample(ellipse(200, 150, 120, 90))):
        assert xgrammar.GrammarMatcher(compiled).accept_string(form.encode(drawn))
    assert not xgrammar.GrammarMatcher(compiled).accept_string("<seg>")


# real masks


def real_masks(annotations: Path) -> list[masks.RLE]:
    content = json.loads(annotations.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    return [
        masks.from_polygons(annotation["segmentation"], *sizes[annotation["image_id"]])
        for annotation in content["annotations"]
        if not annotation["iscrowd"]
    ]


def around(rle: masks.RLE) -> Sample:
    height, width = rle["size"]
    box = masks.box(rle)
    assert box is not None
    return Sample("s", Image.new("RGB", (1, 1)), height, width, "it", (Target(box, rle),))


@pytest.mark.realdata
@pytest.mark.parametrize(("form", "least"), [(BrickFormat(), 0.965), (BrickFormat(scope="box"), 0.960)])
def test_real_refcoco_masks(real_data, form, least):
    tokenizer = AutoTokenizer.from_pretrained(real_data / "tokenizers" / "qwen2_5")
    tokenizer.add_tokens(list(form.new_tokens))
    ious, lengths = [], []
    rles = real_masks(real_data / "refer_mini" / "refcoco" / "instances.json")
    assert len(rles) == 67
    for rle in rles:
        text = form.encode(around(rle))
        (instance,) = found(form, text, *rle["size"])
        assert instance.mask is not None
        ious.append(iou(instance.mask, rle))
        lengths.append(len(tokenizer(text.split("<seg>")[1].split("</seg>")[0])["input_ids"]))
    print(f"scope {form.scope}, grid {form.grid}: {100 * np.mean(ious):.2f} mIoU at {np.mean(lengths):.1f} tokens")
    assert np.mean(ious) >= least
    if form.scope == "box":
        assert np.mean(lengths) <= 85


@pytest.mark.realdata
def test_no_real_object_vanishes(real_data):
    form = BrickFormat(scope="box")
    rles = real_masks(real_data / "coco128" / "annotations" / "instances_train2017.json")
    for rle in (rle for rle in rles if masks.area(rle)):
        (instance,) = found(form, form.encode(around(rle)), *rle["size"])
        assert instance.mask is not None
        assert masks.area(instance.mask) > 0

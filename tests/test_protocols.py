"""Every protocol against its published formula (`tests/published.py`), and by hand where protocols differ."""

from collections.abc import Callable

import pytest
from hydra import compose, initialize_config_dir

import configs
from segmentation import masks
from segmentation.figures import SIZES
from segmentation.metrics import Evaluator
from segmentation.protocols import Gsva, Lisa, Muse, Ors, Protocol, Rela, Rmsin, VisionReasoner, named
from segmentation.sample import Found, Instance, Invalid, NoTarget, Prediction, Sample, Target, prediction_mask
from tests import published
from tests.answers import HEIGHT, IMAGE, WIDTH, found, random_answers, random_masks, rectangle, sample
from tests.runs import ROOT

NAMES = ("lisa", "rela", "gsva", "rmsin", "vision_reasoner", "muse", "ors")
ALL = (Lisa(), Rela(), Gsva(), Rmsin(), VisionReasoner(), Muse(), Ors())
EMPTY = Found((Instance((0.0, 0.0, 1.0, 1.0), masks.empty(HEIGHT, WIDTH)),))
ANSWERS = random_answers(2000, seed=5)
MASKS = random_masks(ANSWERS, seed=6)
FORMULAS: list[tuple[Protocol, Callable[[list[published.Seen]], dict[str, float]]]] = [
    *((Lisa(ignore), published.lisa) for ignore in ("drop", "background", "target")),
    (Lisa(empty_iou=0), lambda seen: published.lisa(seen, empty_iou=0)),
    *((Rela(ignore), published.rela) for ignore in ("drop", "background", "target")),
    *((Gsva(ignore), published.gsva) for ignore in ("drop", "background", "target")),
    (Gsva(false_alarms=False), lambda seen: published.gsva(seen, false_alarms=False)),
    *((Rmsin(ignore), published.rmsin) for ignore in ("drop", "background", "target")),
    *((VisionReasoner(ignore), published.vision_reasoner) for ignore in ("target", "drop", "background")),
    *((Muse(ignore), published.muse) for ignore in ("drop", "background")),
    *((Ors(ignore), published.ors) for ignore in ("drop", "background")),
    (Lisa(empty_pixels=60), published.lisa),
    (Rela(empty_pixels=60), published.rela),
    (Gsva(empty_pixels=60), published.gsva),
    (VisionReasoner(empty_pixels=60), published.vision_reasoner),
    (Muse(empty_pixels=60), published.muse),
]


def seen_under(protocol: Protocol) -> list[published.Seen]:
    return [
        published.see(asked, answer, mask, protocol.ignore, protocol.empty_pixels)
        for (asked, answer), mask in zip(ANSWERS, MASKS, strict=True)
    ]


def scored(protocol: Protocol) -> dict:
    evaluator = Evaluator(protocol, n_expected=len(ANSWERS))
    for (asked, answer), mask in zip(ANSWERS, MASKS, strict=True):
        evaluator.add(asked, answer, mask)
    return evaluator.result()


@pytest.mark.parametrize(("protocol", "formula"), FORMULAS, ids=lambda value: getattr(value, "name", ""))
def test_agrees_with_the_published_formula(protocol: Protocol, formula: Callable):
    result = scored(protocol)
    expected = formula(seen_under(protocol))
    assert len(expected) >= 9
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-9), name
    assert result["n_scored"] == result["n_expected"] == 2000
    assert result["n_found"] + result["n_no_target"] + result["n_invalid"] == 2000


@pytest.mark.parametrize("empty_pixels", [0, 60])
def test_box_figures_agree_with_every_assignment_tried_out(empty_pixels: int):
    plain = [
        published.see(*answer, mask, "background", empty_pixels) for answer, mask in zip(ANSWERS, MASKS, strict=True)
    ]
    for one in plain:
        if not one.boxes:
            one.objects = []
    result = scored(Lisa(empty_pixels=empty_pixels))
    for name, value in published.box_figures(plain).items():
        assert result[name] == pytest.approx(value, abs=1e-9), name


def test_the_random_answers_tell_protocols_apart():
    results = [scored(protocol) for protocol in ALL]
    assert len({result["gIoU"] for result in results}) == 6  # ors has the pixels of muse
    assert len({result["cIoU"] for result in results}) == 5  # and rmsin those of lisa
    assert len({scored(VisionReasoner(ignore))["gIoU"] for ignore in ("drop", "background", "target")}) == 3


def iou(protocol: Protocol, asked: Sample, answer: Prediction, mask: masks.RLE | None = None) -> tuple[float, int]:
    row = Evaluator(protocol).add(asked, answer, mask or prediction_mask(answer, HEIGHT, WIDTH))
    assert row.iou is not None and row.union is not None
    return row.iou, row.union


def each(asked: Sample, answer: Prediction, mask: masks.RLE | None = None) -> list[tuple[float, int]]:
    """IoU and union of an answer under lisa, rela, gsva, rmsin, vision_reasoner, muse."""
    return [iou(protocol, asked, answer, mask) for protocol in ALL[:-1]]


def test_no_target_where_nothing_is_meant():
    assert each(sample(), NoTarget()) == [(1, 0), (1, 0), (1, 0), (0, 0), (1, 0), (1, 0)]


def test_an_empty_mask_where_nothing_is_meant():
    assert each(sample(), EMPTY) == [(1, 0), (0, 0), (0, 0), (0, 0), (0, 0), (1, 0)]
    assert iou(Lisa(empty_iou=0), sample(), EMPTY) == (0, 0)


def test_a_false_alarm():
    assert each(sample(), found((0, 0, 4, 2))) == [(0, 8)] * 6
    assert iou(Gsva(false_alarms=False), sample(), found((0, 0, 4, 2))) == (0, 0)


def test_a_rejected_target_with_a_mask():
    # 8 pixels are meant; the answer rejects, and beside it lies a mask of 16 that holds them.
    mask = masks.encode(rectangle(0, 0, 8, 2))
    expected = [(0, 8), (0, 16), (0.5, 16), (0, 8), (0, 8), (0, 8)]
    assert each(sample((0, 0, 4, 2)), NoTarget(), mask) == expected
    small = found((0, 0, 8, 2))
    assert [iou(p(empty_pixels=17), sample((0, 0, 4, 2)), small) for p in (Lisa, Rela, Gsva)] == expected[:3]


def test_all_that_is_meant_and_painted_is_ignored():
    # Meant: 8 pixels; ignored: 16 that hold them; painted: the same 8.
    asked = sample((0, 0, 4, 2), ignore=rectangle(0, 0, 8, 2))
    answer = found((0, 0, 4, 2))
    assert each(asked, answer) == [(1, 0), (0, 0), (0, 0), (0, 0), (0.5, 16), (1, 0)]
    targeted = [
        Evaluator(protocol).add(asked, answer, masks.encode(rectangle(0, 0, 4, 2))).targeted for protocol in ALL
    ]
    assert targeted == [True, True, False, True, True, True, True]


def test_an_invalid_answer_is_never_right():
    assert each(sample(), Invalid("x")) == [(0, 0)] * 6
    assert each(sample((0, 0, 4, 2)), Invalid("x")) == [(0, 8)] * 6


def test_two_objects_answered_with_one_mask_over_both():
    # Two of 4 x 4, far apart. One mask over both is exact as a union, and half of a match.
    asked = sample((0, 0, 4, 4), (10, 0, 14, 4))
    both = masks.encode(rectangle(0, 0, 4, 4) | rectangle(10, 0, 14, 4))
    answer = Found((Instance((0.0, 0.0, 14.0, 4.0), both),))
    assert iou(Lisa(), asked, answer) == (1, 32)
    assert iou(Muse(), asked, answer) == (16 / 48, 48)  # 16 of the 32 painted, and 16 missed


def test_matched_objects_by_hand():
    # Three targets of 16 pixels: one exact, one half covered, one missed; and a false alarm of 8.
    asked = sample((0, 0, 4, 4), (6, 0, 10, 4), (12, 0, 16, 4))
    evaluator = Evaluator(Ors())
    answer = found((20, 0, 22, 4), (6, 0, 10, 2), (0, 0, 4, 4))
    row = evaluator.add(asked, answer, prediction_mask(answer, HEIGHT, WIDTH))
    assert row.objects == (1.0, 0.5, 0.0)
    assert (row.intersection, row.union) == (16 + 8, 16 + 16 + 16 + 8)
    result = evaluator.result()
    assert [result[f"Pr@{t}"] for t in (0.5, 0.6, 0.9)] == [2 / 3, 1 / 3, 1 / 3]
    assert result["gIoU"] == result["cIoU"] == 24 / 56
    evaluator.add(sample(id="none"), NoTarget(), None)
    assert evaluator.result()["Pr@0.5"] == 2 / 3  # no object, no precision
    assert evaluator.result()["gIoU"] == (24 / 56 + 1) / 2


def test_precision_over_all_samples_is_rmsins_own():
    answers = [(sample((0, 0, 4, 2), id="a"), found((0, 0, 4, 2))), (sample(id="b"), NoTarget())]
    results = []
    for protocol in (Lisa(), Rmsin()):
        evaluator = Evaluator(protocol)
        for asked, answer in answers:
            evaluator.add(asked, answer, prediction_mask(answer, HEIGHT, WIDTH))
        results.append(evaluator.result())
    assert [result["Pr@0.5"] for result in results] == [1.0, 0.5]
    assert (results[1]["mIoU"], results[1]["oIoU"]) == (results[1]["gIoU"], results[1]["cIoU"]) == (0.5, 1.0)
    assert "mIoU" not in results[0]


def test_boxes_and_masks_can_disagree_in_rec():
    asked = sample((0, 0, 8, 8))
    wrong_box = Found((Instance((0.0, 0.0, 4.0, 4.0), masks.encode(rectangle(0, 0, 8, 8))),))
    wrong_mask = Found((Instance((0.0, 0.0, 8.0, 8.0), masks.encode(rectangle(0, 0, 4, 4))),))
    for answer, expected in (
        (wrong_box, (0, 1, 0)),
        (wrong_mask, (1, 0, 1)),
        (EMPTY, (0, 0, 0)),
        (NoTarget(), (0, 0, 0)),
    ):
        evaluator = Evaluator(VisionReasoner())
        evaluator.add(asked, answer, prediction_mask(answer, HEIGHT, WIDTH))
        result = evaluator.result()
        assert (result["Acc@0.5"], result["mask_Acc@0.5"], result["bbox_AP"]) == expected


def test_one_good_box_of_three_is_enough_for_bbox_ap_only():
    evaluator = Evaluator(VisionReasoner())
    answer = found((0, 0, 8, 8), (10, 10, 12, 12), (20, 0, 22, 2))
    evaluator.add(sample((0, 0, 8, 8)), answer, prediction_mask(answer, HEIGHT, WIDTH))
    result = evaluator.result()
    assert (result["bbox_AP"], result["Acc@0.5"], result["box_iou"]) == (1, 0, 1 / 3)


def test_scores_by_size():
    evaluator = Evaluator()
    for id, side, width in (("small", 31, 31), ("medium", 32, 16), ("edge", 95, 95), ("large", 96, 48)):
        box, half = (0.0, 0.0, float(side), float(side)), (0.0, 0.0, float(width), float(side))
        truth, mask = masks.from_box(box, 100, 100), masks.from_box(half, 100, 100)
        asked = Sample(id, IMAGE, 100, 100, "it", (Target(box, truth),))
        evaluator.add(asked, Found((Instance(half, mask),)), mask)
    evaluator.add(sample(id="none"), found((0, 0, 4, 4)), masks.encode(rectangle(0, 0, 4, 4)))
    result = evaluator.result()
    assert [result[f"gIoU_{size}"] for size in SIZES] == [1.0, 0.75, 0.5]
    assert result["cIoU_medium"] == (32 * 16 + 95 * 95) / (32 * 32 + 95 * 95)
    assert result["cIoU_large"] == 0.5
    assert result["gIoU"] == pytest.approx((1 + 0.5 + 1 + 0.5 + 0) / 5)


def test_sizes_that_no_sample_has_give_no_figure():
    evaluator = Evaluator()
    evaluator.add(sample((0, 0, 4, 4)), NoTarget(), None)
    result = evaluator.result()
    assert (result["gIoU_small"], result["gIoU_medium"], result["cIoU_large"]) == (0.0, None, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_is_chosen_by_its_name(name: str):
    """In code by name, in configs by `_target_`: the same object, which names itself in the result."""
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        made = configs.instantiate(compose("score", [f"protocol={name}"]).protocol, where="protocol")
    assert made == named(name) == Evaluator(name).protocol
    result = Evaluator(made).result()
    assert result["protocol"] == name
    assert (result["ignore"], result["empty_iou"], result["empty_pixels"]) == (made.ignore, made.empty_iou, 0)


def test_options_are_the_protocols():
    evaluator = Evaluator("gsva", ignore="background", empty_pixels=50, false_alarms=False)
    assert evaluator.protocol == Gsva("background", empty_pixels=50, false_alarms=False)
    assert Evaluator(Rela(empty_pixels=9), ignore="target").protocol == Rela("target", empty_pixels=9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rela("skip"), "drop, background, target"),  # type: ignore[arg-type]
        (lambda: Lisa(empty_iou=0.5), "scores 0 or 1"),
        (lambda: Lisa(empty_pixels=-1), "0 is off"),
        (lambda: Ors("target"), "ors: ignore='target'"),
        (lambda: named("rella"), "'rella' is unknown; the protocols are lisa, rela, gsva, rmsin, vision_reasoner"),
    ],
)
def test_wrong_options_are_named(make: Callable, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_has_no_mask_has_no_mask_score():
    unpainted = Found((Instance((0.0, 0.0, 4.0, 4.0)),))
    for protocol in ALL:
        row = Evaluator(protocol).add(sample((0, 0, 4, 4)), unpainted, None)
        assert (row.iou, row.mask_box_iou, row.box_iou, row.any_box) == (None, None, 1.0, True)
        boxes_only = Sample("0", IMAGE, HEIGHT, WIDTH, "it", (Target((0.0, 0.0, 4.0, 4.0)),))
        result = Evaluator(protocol)
        result.add(boxes_only, found((0, 0, 4, 4)), masks.encode(rectangle(0, 0, 4, 4)))
        figures = result.result()
        assert figures["gIoU"] is figures["gIoU_small"] is figures["Pr@0.5"] is None
        assert figures["Acc@0.5"] == figures["mask_Acc@0.5"] == 1
    token = Found((Instance(None, masks.encode(rectangle(0, 0, 4, 4))),))
    assert Evaluator().add(sample((0, 0, 4, 4)), token, masks.encode(rectangle(0, 0, 4, 4))).any_box is None


def test_a_painted_object_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"sample 0: the predicted mask is \[5, 5\]"):
        Evaluator(Muse()).add(sample((0, 0, 4, 4)), Found((Instance(None, masks.empty(5, 5)),)), masks.empty(5, 5))

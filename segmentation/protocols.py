"""Evaluation protocols: what one answer adds to the sums, by the rules of the evaluators that papers are scored with.

An answer has an IoU, which enters a mean (gIoU, mIoU), and pixels, which enter two sums (cIoU, oIoU). Where it finds
something about an expression that means something, all protocols but the matched ones agree: `I / U`. They part here:

| | `lisa` | `rela` | `gsva` | `rmsin` | `vision_reasoner` | `muse`, `ors` |
|---|---|---|---|---|---|---|
| nothing meant, `NoTarget` | 1 | 1 | 1 | 0 | 1 | 1 |
| nothing meant, `Found` with an empty mask | 1 | 0 | 0 | 0 | 0 | 1 |
| something meant, `NoTarget` with a mask | 0 | 0, the mask joins `U` | `I / U` of the mask | 0 | 0 | 0 |
| all that is meant, and all that is painted, is ignored | 1 | 0 | 0, as no target | 0 | `I / U` | 1 |
| ignored pixels, by default | drop | drop | drop | drop | target | drop |
| Pr@t is over | targeted | targeted | targeted | all | targeted | targeted; `ors`: objects |

**Options**, of every protocol. `ignore`: what ignored pixels are (`segmentation.overlap`). `empty_iou`: the IoU where
nothing is meant and nothing painted; under `rela` and `gsva` only where both are ignored, as `NoTarget` alone
is right about nothing. `empty_pixels`: a `Found` whose mask has fewer pixels counts as `NoTarget` in everything; some
gRefCOCO papers state 50, no public evaluator read does it, so it is off (0).

**Invalid** answers are in no published rule, whose code drops or crashes on them (VisionReasoner adds them as here):
IoU 0, what is meant joins the union, and they are right in neither N_acc nor T_acc.

Published code keeps 0/0 away by 1e-5, 1e-8 or 1e-10 in denominators; here they are left out: they would make a perfect
mask of 10 pixels score 0.999999.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from segmentation.masks import RLE, empty
from segmentation.overlap import Ignore, Overlap, matched_overlap, overlap
from segmentation.sample import Found, Invalid, NoTarget, Prediction, Sample


class Score(NamedTuple):
    """What one answer adds: its IoU to the mean, its pixels to the two sums.

    `targeted` says whether the sample counts as one with targets; `objects` holds the IoU of each target with its
    match, where the protocol matches.
    """

    iou: float
    intersection: int
    union: int
    targeted: bool
    objects: tuple[float, ...] | None = None


PrecisionOver = Literal["targeted", "all", "objects"]


@dataclass(frozen=True)
class Protocol:
    """What all protocols share: their options, `Invalid`, and `I / U` for the rest; the classes below say what differs.

    Raises:
        ValueError: an unknown ignore rule, an `empty_iou` other than 0 and 1, or a negative number of pixels.
    """

    ignore: Ignore = "drop"
    empty_iou: float = 1.0
    empty_pixels: int = 0

    name: ClassVar[str]
    precision_over: ClassVar[PrecisionOver] = "targeted"
    also: ClassVar[tuple[str, ...]] = ()  # figures of this protocol alone (`segmentation.figures`)

    def __post_init__(self) -> None:
        if self.ignore not in get_args(Ignore):
            raise ValueError(f"ignore={self.ignore!r} is unknown; ignored pixels can be {', '.join(get_args(Ignore))}.")
        if self.empty_iou not in (0, 1):
            raise ValueError(f"empty_iou={self.empty_iou!r}: an empty mask where nothing is meant scores 0 or 1.")
        if self.empty_pixels < 0:
            raise ValueError(f"empty_pixels={self.empty_pixels}: a mask cannot have fewer than 0 pixels; 0 is off.")

    def judge(self, sample: Sample, prediction: Prediction, mask: RLE | None) -> Score | None:
        """The score of one answer; None where there are no masks to tell it from.

        Args:
            mask: the union of what is painted; None for nothing, and for a `Found` that no decoder has painted.

        Raises:
            ValueError: a mask is of another size than the sample.
        """
        if mask is None and isinstance(prediction, Found):
            return None
        seen = overlap(sample, mask or empty(sample.height, sample.width), self.ignore)
        if seen is None:
            return None
        targeted = self.targeted(sample, seen)
        if isinstance(prediction, Invalid):
            return Score(0.0, 0, seen.meant, targeted)
        return self.score(isinstance(prediction, NoTarget), targeted, seen)

    def targeted(self, sample: Sample, seen: Overlap) -> bool:
        """Whether the sample is one with targets."""
        return bool(sample.targets)

    def score(self, rejected: bool, targeted: bool, seen: Overlap) -> Score:
        """The score of a `NoTarget` (`rejected`), which paints nothing whatever mask comes with it, or of a `Found`."""
        return self._iou(Overlap(0, 0, seen.meant) if rejected else seen, targeted)

    def _iou(self, seen: Overlap, targeted: bool) -> Score:
        iou = seen.iou if seen.union else float(self.empty_iou)
        return Score(iou, seen.intersection, seen.union, targeted)


@dataclass(frozen=True)
class Lisa(Protocol):
    """LISA (dvlab-research/LISA, `train_ds.py` validate, `utils/utils.py` intersectionAndUnionGPU); also Text4Seg's.

    `I / U`, and 1 where `U` is 0: painting nothing where nothing is meant is right.
    """

    name: ClassVar[str] = "lisa"


@dataclass(frozen=True)
class Rela(Protocol):
    """The official gRefCOCO rule (henghuiding/ReLA, `gres_model/evaluation/refer_evaluation.py`).

    Nothing meant: `NoTarget` scores 1 and adds no pixel; any other answer scores 0, whatever its mask, which joins the
    union. Something meant: `NoTarget` scores 0, and the union is that with its mask, should it have one.
    """

    empty_iou: float = 0.0
    name: ClassVar[str] = "rela"

    def score(self, rejected: bool, targeted: bool, seen: Overlap) -> Score:
        if targeted and not rejected:
            return self._iou(seen, targeted)
        right = rejected and not targeted
        return Score(float(right), 0, 0 if right else seen.union, targeted)


@dataclass(frozen=True)
class Gsva(Protocol):
    """GSVA's lenient rule (LeapLabTHU/GSVA, `solver.py` eval_gres); MLLMSeg's is the same.

    A sample is without target if its mask is empty. Unlike `rela`, a wrong `NoTarget` (its [REJ]) is scored by the mask
    that comes with it: a `Found` taken for `NoTarget` by `empty_pixels` keeps its IoU.

    Args:
        false_alarms: whether what is painted where nothing is meant joins the union; GSVA does so on gRefCOCO only.
    """

    empty_iou: float = 0.0
    false_alarms: bool = True
    name: ClassVar[str] = "gsva"

    def targeted(self, sample: Sample, seen: Overlap) -> bool:
        return bool(sample.targets) and seen.meant > 0

    def score(self, rejected: bool, targeted: bool, seen: Overlap) -> Score:
        if targeted:
            return self._iou(seen, targeted)
        return Score(float(rejected), 0, seen.union if self.false_alarms and not rejected else 0, targeted)


@dataclass(frozen=True)
class Rmsin(Protocol):
    """Remote sensing, RRSIS-D (Lsan2401/RMSIN, `test.py`; LAVT's before it): mIoU, oIoU, and Pr@t over all samples.

    `I / U`, and 0 where `U` is 0. RMSIN resizes ground truth to 480x480 and scores there; here it is the image's size.
    """

    empty_iou: float = 0.0
    name: ClassVar[str] = "rmsin"
    precision_over: ClassVar[PrecisionOver] = "all"
    also: ClassVar[tuple[str, ...]] = ("mIoU", "oIoU")


@dataclass(frozen=True)
class VisionReasoner(Protocol):
    """VisionReasoner (JIA-Lab-research/VisionReasoner, `evaluation/calculate_iou_with_bbox.py`, `..._nonobj.py`).

    `I / U`, and 0 where `U` is 0, but 1 for `NoTarget` where nothing is meant. Ignored pixels are targets: its data
    have them so. `bbox_AP` is of all samples (`segmentation.box_score.any_box`).
    """

    ignore: Ignore = "target"
    empty_iou: float = 0.0
    name: ClassVar[str] = "vision_reasoner"
    also: ClassVar[tuple[str, ...]] = ("bbox_AP",)

    def score(self, rejected: bool, targeted: bool, seen: Overlap) -> Score:
        score = super().score(rejected, targeted, seen)
        return score._replace(iou=1.0) if rejected and not targeted else score


@dataclass(frozen=True)
class Muse(Protocol):
    """Several objects by Hungarian matching, for MUSE (PixelLM, arXiv 2312.02228; without its GPT check of names).

    Objects are paired one to one, so as to make the sum of IoU largest; what is left over is paired with an empty mask.
    A sample's `I` and `U` are the sums over its pairs, its IoU their ratio.
    """

    name: ClassVar[str] = "muse"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ignore == "target":
            raise ValueError(f"{self.name}: ignore='target' gives ignored pixels to no object in particular; use drop.")

    def judge(self, sample: Sample, prediction: Prediction, mask: RLE | None) -> Score | None:
        instances = prediction.instances if isinstance(prediction, Found) else ()
        painted = [instance.mask for instance in instances if instance.mask is not None]
        if len(painted) < len(instances):
            return None
        pairs = matched_overlap(sample, painted, self.ignore)
        if pairs is None:
            return None
        sums = Overlap(*(sum(getattr(pair, part) for pair in pairs) for part in ("intersection", "predicted", "meant")))
        score = self._iou(sums, bool(sample.targets))
        objects = tuple(pair.iou for pair in pairs[: len(sample.targets)])
        return score._replace(iou=0.0 if isinstance(prediction, Invalid) else score.iou, objects=objects)


@dataclass(frozen=True)
class Ors(Muse):
    """Several objects by Hungarian matching, for ORS-Bench (Qwen3-VL-Seg, arXiv 2605.07141): cIoU and P@0.5.

    The pixels of `Muse`; Pr@t is the share of annotated objects whose match has an IoU of t. The paper says that it
    matches and not how it counts: P@0.5 over objects is this project's reading.
    """

    name: ClassVar[str] = "ors"
    precision_over: ClassVar[PrecisionOver] = "objects"


def named(name: str, **options: Any) -> Protocol:
    """The protocol of that name; configs name the class itself, in `configs/protocol/`.

    Raises:
        ValueError: an unknown name or a wrong option.
    """
    known = {protocol.name: protocol for protocol in (Lisa, Rela, Gsva, Rmsin, VisionReasoner, Muse, Ors)}
    if name not in known:
        raise ValueError(f"protocol={name!r} is unknown; the protocols are {', '.join(known)}.")
    return known[name](**options)

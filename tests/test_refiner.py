"""SAM 2 on masks that are there, with tiny random weights: what it is shown, what it leaves alone, what it refuses."""

import json
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from evaluation.predictions import read_predictions, read_run
from segmentation.data.scenes import Scenes
from segmentation.decoders import FilledBox, Sam2Refiner
from segmentation.decoders.refiner import Prompt
from segmentation.masks import area, box, decode, empty, encode, from_box
from segmentation.sample import BrokenImage, Found, Instance, Invalid, NoTarget, Prediction, Sample, prediction_mask
from tests.runs import BASE, launch
from tests.tiny_sam2 import save_tiny_sam2, save_tiny_sam2_video

HEIGHT, WIDTH = 48, 80  # not the model's frame, which is 64 x 64
LEFT, RIGHT = (5.0, 5.0, 30.0, 30.0), (40.0, 10.0, 70.0, 40.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="module")
def sam2(folder) -> Sam2Refiner:
    """With the prompts of the config: mask and box."""
    return Sam2Refiner(folder)


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Sample:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 10, 3), dtype=np.uint8)
    return Sample(str(seed), Image.fromarray(noise).resize((width, height)), height, width, "it")


def filled(*edges: float, height: int = HEIGHT, width: int = WIDTH) -> Instance:
    x1, y1, x2, y2 = edges
    return Instance((x1, y1, x2, y2), from_box(edges, height, width))


def one(sam2: Sam2Refiner, instance: Instance, sample: Sample | None = None) -> Instance:
    (answer,) = sam2.refine([Found((instance,))], [sample or picture(0)])
    assert isinstance(answer, Found)
    return answer.instances[0]


def only(sam2: Sam2Refiner, *prompts: Prompt) -> Sam2Refiner:
    """The same weights, shown other things."""
    other = copy(sam2)
    other.prompts = prompts
    return other


def test_masks_are_redrawn_and_all_else_stays(sam2):
    samples = [picture(0), picture(1), picture(2, 90, 33), picture(3)]
    named = replace(filled(*RIGHT), label="cat", point=(50.0, 20.0))
    said: list[Prediction] = [
        Found((filled(*LEFT), named)),
        NoTarget(),
        Found((filled(1, 2, 20, 60, height=90, width=33),)),
        Invalid("broken"),
    ]
    before = list(said)
    refined = sam2.refine(said, samples)
    assert said == before
    assert refined[1] is said[1] and refined[3] is said[3]
    for old, new, sample in zip(said, refined, samples, strict=True):
        if not isinstance(old, Found):
            continue
        assert isinstance(new, Found) and len(new.instances) == len(old.instances)
        for was, is_now in zip(old.instances, new.instances, strict=True):
            assert is_now.mask and is_now.mask["size"] == [sample.height, sample.width]
            assert is_now.mask != was.mask and 0 < area(is_now.mask) < sample.height * sample.width
            assert is_now.score is not None and 0 < is_now.score < 1
            assert replace(is_now, mask=was.mask, score=None) == was


@pytest.mark.parametrize("shown", [("mask",), ("box",), ("point",), ("mask", "box"), ("mask", "box", "point")])
def test_what_is_shown_changes_the_mask_and_nothing_else_does(sam2, shown):
    refiner = only(sam2, *shown)
    base = replace(filled(*LEFT), point=(10.0, 10.0))
    others = {
        "mask": replace(base, mask=from_box(RIGHT, HEIGHT, WIDTH)),
        "box": replace(base, box=RIGHT),
        "point": replace(base, point=(60.0, 30.0)),
    }
    first = one(refiner, base)
    for name, other in others.items():
        second = one(refiner, other)
        assert (second.score != first.score) == (name in shown)
        assert (second.mask != first.mask) == (name in shown)
    assert one(refiner, base, picture(1)).score != first.score


def test_a_box_and_a_point_are_where_sam2_itself_would_put_them(sam2):
    sample = picture(0)
    inputs = sam2.processor(
        images=sample.image, input_boxes=[[list(LEFT)]], input_points=[[[[12.0, 20.0]]]], return_tensors="pt"
    )
    sizes = inputs.pop("original_sizes")
    with torch.no_grad():
        output = sam2.model(**inputs, multimask_output=False)
    mask = sam2.processor.post_process_masks(output.pred_masks, sizes)[0][0, 0].numpy()
    refined = one(only(sam2, "box", "point"), Instance(LEFT, point=(12.0, 20.0)), sample)
    assert refined.mask is not None and (decode(refined.mask) == mask).all()
    assert refined.score == pytest.approx(output.iou_scores.item())


def test_a_mask_is_shown_as_logits_of_ten(sam2):
    sample = picture(0)
    pixels = sam2.processor(images=sample.image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = sam2.model(pixels, input_masks=torch.full((1, 1, 16, 16), 10.0), multimask_output=False)
    whole = Instance(None, encode(np.ones((HEIGHT, WIDTH), bool)))
    assert one(only(sam2, "mask"), whole, sample).score == pytest.approx(output.iou_scores.item())


def test_an_instance_without_a_box_is_prompted_by_the_one_around_its_mask(sam2):
    mask = from_box(LEFT, HEIGHT, WIDTH)
    with_box, without = one(sam2, Instance(LEFT, mask)), one(sam2, Instance(None, mask))
    assert without.mask == with_box.mask and without.mask
    assert without.box == box(without.mask)  # there was none to keep


def test_an_instance_without_a_point_is_prompted_by_the_deepest_of_its_mask(sam2):
    mask = from_box((10, 10, 21, 21), HEIGHT, WIDTH)
    refiner = only(sam2, "point")
    guessed, said = one(refiner, Instance(None, mask)), one(refiner, Instance(None, mask, point=(15.5, 15.5)))
    assert (guessed.mask, guessed.score) == (said.mask, said.score)


def test_without_a_mask_or_with_an_empty_one_the_box_is_the_prompt(sam2):
    alone = one(only(sam2, "box"), Instance(LEFT))
    assert alone.mask and alone == one(sam2, Instance(LEFT)) == one(sam2, Instance(LEFT, empty(HEIGHT, WIDTH)))
    assert alone.mask != one(sam2, filled(*LEFT)).mask


def test_what_can_not_be_prompted_stays_or_is_an_error(sam2):
    nothing = Instance(None, empty(HEIGHT, WIDTH))
    assert one(sam2, nothing) == nothing
    mixed = sam2.refine([Found((nothing, filled(*LEFT)))], [picture(0)])[0]
    assert mixed == Found((nothing, one(sam2, filled(*LEFT))))
    with pytest.raises(ValueError, match=r"sample 0 has no mask, .*\['mask', 'box'\]\); configure a decoder"):
        one(sam2, Instance(None))
    with pytest.raises(ValueError, match="sample second has no mask"):
        sample = picture(0)
        said = [Found((filled(*LEFT),)), Found((Instance(LEFT),))]
        only(sam2, "mask").refine(said, [sample, replace(sample, id="second")])


def test_a_batch_is_refined_as_its_answers_are_alone(sam2):
    shared = picture(0)
    samples = [shared, picture(1), replace(shared, id="again"), picture(2, 30, 41)]
    said = [
        Found((filled(*LEFT), filled(*RIGHT), Instance(LEFT))),
        Found((filled(0, 0, 80, 48),)),
        Found((Instance(None, from_box(RIGHT, HEIGHT, WIDTH)), filled(2, 2, 3, 3))),
        Found((filled(-4, 10, 60, 29, height=30, width=41),)),
    ]
    together = sam2.refine(said, samples)
    alone = [sam2.refine([answer], [sample])[0] for answer, sample in zip(said, samples, strict=True)]
    apart = [[one(sam2, instance, sample) for instance in a.instances] for a, sample in zip(said, samples, strict=True)]
    for batched, single, each in zip(together, alone, apart, strict=True):
        assert isinstance(batched, Found) and isinstance(single, Found)
        for first, *others in zip(batched.instances, single.instances, each, strict=True):
            for other in others:
                assert (first.mask, first.box) == (other.mask, other.box)
                assert first.score == pytest.approx(other.score, abs=1e-6)


def test_a_picture_is_encoded_once_and_only_where_something_was_found(sam2, tmp_path):
    path = tmp_path / "picture.png"
    picture(0).image.save(path)  # type: ignore[union-attr]
    samples = [replace(picture(0), id=str(row), image=Path(path)) for row in range(3)]
    seen = []
    hook = sam2.model.vision_encoder.register_forward_hook(lambda module, args, output: seen.append(1))
    try:
        refined = sam2.refine([Found((filled(*LEFT),)), NoTarget(), Found((filled(*RIGHT), filled(*LEFT)))], samples)
        assert len(seen) == 1
        sam2.refine([NoTarget(), Invalid("x")], samples[:2])
        sam2.refine([Found((Instance(None, empty(HEIGHT, WIDTH)),))], samples[:1])
        assert len(seen) == 1
    finally:
        hook.remove()
    assert isinstance(refined[2], Found) and one(sam2, filled(*LEFT)).mask == refined[2].instances[1].mask


def test_a_broken_picture_and_unequal_lengths_are_errors(sam2, tmp_path):
    with pytest.raises(BrokenImage, match=r"nothing\.png"):
        one(sam2, filled(*LEFT), replace(picture(0), image=tmp_path / "nothing.png"))
    with pytest.raises(ValueError, match=r"zip\(\)"):
        sam2.refine([NoTarget()], [])


def test_a_video_checkpoint_gives_its_image_weights(tmp_path):
    sam2 = Sam2Refiner(save_tiny_sam2_video(tmp_path))
    saved, loaded = load_file(tmp_path / "model.safetensors"), sam2.model.state_dict()
    assert loaded.keys() < saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.items())
    assert one(sam2, filled(*LEFT)).mask


def test_wrong_prompts_are_named(folder):
    for prompts in ((), ("mask", "mask"), ("lasso",)):
        with pytest.raises(ValueError, match=r"refiner\.prompts=.*choose one or more of mask, box, point"):
            Sam2Refiner(folder, prompts)  # type: ignore[arg-type]


def test_a_wrong_path_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"refiner\.path=.*/nowhere: no such folder"):
        Sam2Refiner(tmp_path / "nowhere")
    with pytest.raises(OSError, match=r"refiner\.path=nobody/nothing: "):
        Sam2Refiner("nobody/nothing")
    with pytest.raises(ValueError, match=r"refiner\.path=.*a model of type qwen2_5_vl; "):
        Sam2Refiner(BASE)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("mask_decoder.iou_token.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing, the first is mask_decoder\.iou_token\.weight"):
        Sam2Refiner(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")  # where pickles lie: not looked at
    with pytest.raises(OSError, match="safetensors"):
        Sam2Refiner(tmp_path)


def test_evaluation_writes_what_the_refiner_makes(sam2, folder, tmp_path):
    said = [f"model.path={BASE}", "format=box", "benchmark=scenes_val", "benchmark.length=8", "answers=annotated"]
    launch("evaluation/evaluate.py", *said, "refiner=sam2", f"refiner.path={folder}", f"output_dir={tmp_path}")
    records = {record.id: record.prediction for record in read_predictions(tmp_path / "predictions.jsonl")}
    samples = list(Scenes("val", 8))
    boxes = [records[sample.id] for sample in samples]  # the text's own; the masks are refined already
    bare = [
        Found(tuple(Instance(one.box) for one in answer.instances)) if isinstance(answer, Found) else answer
        for answer in boxes
    ]
    assert {type(answer) for answer in bare} == {Found, NoTarget}
    coarse = [
        FilledBox().fill(answer, sample.height, sample.width) for answer, sample in zip(bare, samples, strict=True)
    ]
    for written, expected in zip(boxes, sam2.refine(coarse, samples), strict=True):
        assert prediction_mask(written, 64, 64) == prediction_mask(expected, 64, 64)
    assert read_run(tmp_path / "predictions.jsonl")["refiner"]["prompts"] == ["mask", "box"]
    assert json.loads((tmp_path / "metrics.json").read_text())["gIoU"] is not None

"""`model.max_pixels`, and InternVL's frame: what was resized once stays as it is, in the trainer and in the engine."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GotOcr2ImageProcessor

from rollouts.policy import convention, image_frame, load_processor
from segmentation.boxes import Relative, ResizedPixels
from segmentation.data.resize import Tiles, fit
from sft.small_base.build import FAMILIES
from tests.families import internvl


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A processor of each family, saved as a released model's is; InternVL's says that it does not tile, and does."""
    made = {}
    for name, build in {**FAMILIES, "internvl": internvl}.items():
        made[name] = tmp_path_factory.mktemp(name)
        model, processor = build()
        if name == "internvl":
            processor.image_processor.crop_to_patches = False
        model.config.save_pretrained(made[name])
        processor.save_pretrained(made[name])
    return made


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("tiles", [Tiles(448, 1, 12), Tiles(448, 1, 4), Tiles(32, 2, 6), Tiles(28, 1, 1)], ids=str)
def test_a_canvas_of_tiles_is_kept_when_given_again(tiles):
    for width in range(1, 3000, 7):
        height = 1 + (width * 1213) % 2000
        size = tiles.size(height, width)
        assert tiles.size(*size) == size
        assert tiles.fewest <= size[0] * size[1] / tiles.side**2 <= tiles.most


@pytest.mark.parametrize("size", [(480, 640), (97, 301), (640, 427), (50, 50)])
def test_internvl_cuts_a_fitted_picture_without_resizing_it(size):
    tiles = Tiles(32, 1, 6)
    processor = GotOcr2ImageProcessor(size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=6)
    fitted = fit(noise(*size), tiles)
    cut = processor(images=fitted, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
    columns = fitted.width // 32
    pixels = torch.from_numpy(np.array(fitted)).permute(2, 0, 1)
    for index in range(columns * (fitted.height // 32)):
        y, x = 32 * (index // columns), 32 * (index % columns)
        assert cut[index].equal(pixels[:, y : y + 32, x : x + 32].to(cut.dtype))


def test_the_frame_of_internvl_is_its_tiles_and_its_coordinates_are_relative(folders):
    processor = load_processor(folders["internvl"])
    assert image_frame(processor) == Tiles(32, 1, 6)
    assert convention("internvl", processor) == Relative(1000)
    alone = processor.image_processor(images=noise(64, 96), return_tensors="pt")["pixel_values"]
    with_text = processor(images=[noise(64, 96)], text="<IMG_CONTEXT>", return_tensors="pt")["pixel_values"]
    assert alone.equal(with_text) and len(alone) == 7  # six tiles and the thumbnail, with a text or without


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl"])
def test_a_lower_limit_holds_everywhere_and_an_engine_without_it_changes_nothing(folders, family, tmp_path):
    limit = 4 * 64 * 64 if family != "internvl" else 4 * 32 * 32 + 5
    limited, engine = load_processor(folders[family], limit), load_processor(folders[family])
    frame = image_frame(limited)
    assert frame and frame == (Tiles(32, 1, 4) if family == "internvl" else ResizedPixels(16, 64 * 64, limit))
    large = noise(300, 400)
    picture = fit(large, frame)
    assert picture.width * picture.height <= limit
    ours, engines = (
        one.image_processor(images=picture, return_tensors="pt")["pixel_values"] for one in (limited, engine)
    )
    assert ours.equal(engines)
    limited.save_pretrained(tmp_path)  # as a trained policy is
    assert image_frame(load_processor(tmp_path)) == frame
    if family == "qwen2_5_vl":
        assert convention(family, limited) == frame  # it writes pixels of what it is shown


@pytest.mark.parametrize(("family", "limit"), [("qwen2_5_vl", 10**9), ("qwen2_5_vl", 100), ("internvl", 32 * 32 - 1)])
def test_a_limit_that_the_processor_cannot_have_is_refused(folders, family, limit):
    with pytest.raises(ValueError, match=rf"model.max_pixels={limit}: the processor at model.path takes \d+ to \d+"):
        load_processor(folders[family], limit)

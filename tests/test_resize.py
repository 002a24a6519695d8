import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from transformers import Qwen2VLImageProcessor

from segmentation.boxes import ResizedPixels
from segmentation.data.resize import fit

FRAMES = [ResizedPixels(), ResizedPixels(32, 64 * 32 * 32, 2560 * 32 * 32), ResizedPixels(16, 64 * 64, 256 * 256)]


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_the_size_given_is_kept_when_given_again(frame):
    """As many sizes as the sides allow in a second: every width, with a height that runs through all of them."""
    for width in range(1, 4097):
        height = 1 + (width * 1213) % 3072
        if max(height, width) <= 10 * min(height, width):
            given_size = frame.size(height, width)
            assert frame.size(*given_size) == given_size
            assert given_size[0] % frame.factor == given_size[1] % frame.factor == 0
            assert frame.min_pixels <= given_size[0] * given_size[1] <= frame.max_pixels


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(FRAMES))
def test_an_image_is_resized_once(height, width, frame):
    assume(max(height, width) <= 20 * min(height, width))
    image = Image.new("RGB", (width, height))
    fitted = fit(image, frame)
    assert fitted.size == frame.size(height, width)[::-1]
    assert fit(fitted, frame) is fitted


@pytest.mark.parametrize("size", [(480, 640), (427, 640), (97, 301), (1400, 900), (31, 33)])
def test_the_processor_leaves_a_fitted_image_as_it_is(size):
    frame = ResizedPixels(28, 56 * 56, 512 * 28 * 28)
    limits = {"shortest_edge": frame.min_pixels, "longest_edge": frame.max_pixels}
    processor = Qwen2VLImageProcessor(patch_size=14, merge_size=2, size=limits)
    fitted = fit(noise(*size), frame)
    resized = processor(images=fitted, return_tensors="pt")
    untouched = processor(images=fitted, do_resize=False, return_tensors="pt")
    assert resized["image_grid_thw"].tolist() == [[1, fitted.height // 14, fitted.width // 14]]
    assert resized["pixel_values"].equal(untouched["pixel_values"])


def test_resampling_is_bicubic():
    image = noise(100, 150)
    frame = ResizedPixels()
    height, width = frame.size(100, 150)
    assert fit(image, frame) == image.resize((width, height), Image.Resampling.BICUBIC)


def test_limits_too_close_to_settle_on_a_size_are_refused():
    with pytest.raises(ValueError, match=r"min_pixels=4096 and max_pixels=4096 are too close: an image of 640x480"):
        fit(noise(480, 640), ResizedPixels(16, 64 * 64, 64 * 64))
    assert fit(noise(64, 64), ResizedPixels(16, 64 * 64, 64 * 64)).size == (64, 64)


def test_a_strip_is_refused():
    with pytest.raises(ValueError, match="aspect ratio"):
        fit(noise(2, 500), ResizedPixels())

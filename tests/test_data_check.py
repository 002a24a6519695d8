import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import ConfigError
from rollouts.sections import check_samples
from segmentation import masks
from segmentation.data.check import BrokenData, Opened, check, main
from segmentation.data.export import export
from segmentation.data.scenes import Scenes
from segmentation.sample import BrokenImage, Sample, Target, open_image

HEIGHT, WIDTH = 40, 50
MASK = masks.from_box((5, 5, 20, 30), HEIGHT, WIDTH)


def photo(path: Path, height: int = HEIGHT, width: int = WIDTH) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def sample(path: Path | Image.Image, number: int = 0, **changes) -> Sample:
    made = Sample(f"s-{number}", path, HEIGHT, WIDTH, "the cup", (Target((5.0, 5.0, 20.0, 30.0), MASK),))
    return dataclasses.replace(made, **changes)


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    """12 expressions about 6 images."""
    paths = [photo(tmp_path / f"{i}.jpg") for i in range(6)]
    return [sample(paths[i // 2], i) for i in range(12)]


class Counted(Sequence):
    """A dataset that counts how often a sample is made."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples, self.made = samples, 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index):
        self.made += 1
        return self.samples[index]


def truncate(path: Path | Image.Image) -> str:
    assert isinstance(path, Path)
    path.write_bytes(path.read_bytes()[:400])
    return path.name


def test_sound_data_passes(samples):
    check(samples)
    check(samples, limit=3)
    check(samples, limit=100)


def test_no_samples_is_an_error():
    with pytest.raises(BrokenData, match="no samples"):
        check([])


def test_a_missing_image_is_found_wherever_it_is(samples):
    samples[11].image.unlink()
    with pytest.raises(BrokenData, match=r"2 of 12 samples .*:\n- .*5\.jpg \(sample s-10\): no such file") as error:
        check(samples, opened=0)
    assert "s-11" in str(error.value)
    check(samples, limit=10)


def test_unreadable_images_are_found_among_those_opened(samples):
    name = truncate(samples[0].image)
    with pytest.raises(BrokenData, match=f"{name}.*cannot be read"):
        check(samples, opened=2)
    check(samples[2:], opened=2)
    truncate(samples[11].image)
    check(samples[2:], opened=0)
    with pytest.raises(BrokenData, match=r"5\.jpg"):
        check(samples[2:], opened=len(samples))


def test_images_are_drawn_from_all_over_and_the_same_each_time(samples):
    for path in {s.image for s in samples[6:]}:
        truncate(path)

    def found(seed):
        try:
            check(samples, opened=4, seed=seed)
        except BrokenData as error:
            return str(error)
        return ""

    assert [found(seed) for seed in range(8)] == [found(seed) for seed in range(8)]
    assert len({found(seed) for seed in range(8)}) > 2


def test_an_image_of_another_size_than_annotated_is_found(samples):
    photo(samples[0].image, HEIGHT + 1)
    with pytest.raises(BrokenData, match="the image is 50x41, its annotation says 50x40"):
        check(samples)


def test_a_mask_of_another_size_than_its_image_is_found(samples):
    wrong = Target((1.0, 1.0, 2.0, 2.0), masks.from_box((1, 1, 2, 2), WIDTH, HEIGHT))
    samples[7] = dataclasses.replace(samples[7], targets=(samples[7].targets[0], wrong))
    samples[8] = dataclasses.replace(samples[8], ignore=masks.empty(8, 8))
    with pytest.raises(
        BrokenData, match=r"2 of 12 .*\n- sample s-7: a mask is \[50, 40\] high and wide, its image \[40, 50\]"
    ):
        check(samples, opened=0)


def test_an_empty_mask_a_box_without_one_and_no_target(samples):
    samples[3] = dataclasses.replace(samples[3], targets=(Target((1.0, 1.0, 2.0, 2.0)),))
    samples[4] = dataclasses.replace(samples[4], targets=())
    check(samples)
    samples[5] = dataclasses.replace(samples[5], targets=(Target((1.0, 1.0, 2.0, 2.0), masks.empty(HEIGHT, WIDTH)),))
    with pytest.raises(BrokenData, match="sample s-5: a target's mask has no pixel"):
        check(samples)


def test_two_samples_of_one_id_are_found(samples):
    samples[6] = dataclasses.replace(samples[6], id="s-1")
    with pytest.raises(BrokenData, match="sample s-1: another sample has the same id"):
        check(samples)


def test_a_sample_that_cannot_be_made_is_found(samples):
    class Failing(Counted):
        def __getitem__(self, index):
            if index in (0, 4):
                raise ValueError(f"annotation {index} is no good")
            return super().__getitem__(index)

    with pytest.raises(BrokenData, match=r"2 of 12 .*\n- annotation 0 is no good\n- annotation 4 is no good"):
        check(Failing(samples))


def test_only_the_first_problems_are_spelt_out(samples):
    for path in {s.image for s in samples}:
        path.unlink()
    with pytest.raises(BrokenData) as error:
        check(samples)
    assert str(error.value).count("no such file") == 5 and str(error.value).endswith("- and 7 more")


def test_a_box_that_is_not_around_its_mask_is_told(samples, caplog):
    check(samples)
    assert "not around their mask" not in caplog.text
    wide = dataclasses.replace(samples[3].targets[0], box=(5.0, 5.0, 12.0, 22.0))
    samples[3] = dataclasses.replace(samples[3], targets=(wide,))
    check(samples)
    assert "1 objects have a box that is not around their mask" in caplog.text and "sample s-3" in caplog.text


def test_a_section_says_how_to_go_on_without_broken_images(samples):
    truncate(samples[0].image)
    with pytest.raises(ConfigError, match=r"data: 2 of 12 samples[\s\S]*data\.on_error=skip leaves out"):
        check_samples(samples, "data")
    with pytest.raises(ConfigError, match=r"benchmark: 2 of 12 samples") as error:
        check_samples(samples, "benchmark")
    assert "on_error" not in str(error.value)


def test_the_command_looks_over_a_file_of_ones_own(tmp_path, capsys):
    made = list(Scenes(length=20))
    export(made, tmp_path / "mine.jsonl", tmp_path)
    main(["data=jsonl", f"data.root={tmp_path}", "data.file=mine.jsonl"])
    nothing = sum(not one.targets for one in made)
    assert capsys.readouterr().out == f"20 samples, {nothing} of them without a target: whole.\n"
    picture = next(tmp_path.rglob("*.png"))
    picture.write_bytes(picture.read_bytes()[:90])
    with pytest.raises(SystemExit) as end:
        main(["data=jsonl", f"data.root={tmp_path}", "data.file=mine.jsonl"])
    assert end.value.code == 2 and picture.name in capsys.readouterr().err


def test_with_skip_broken_images_are_logged_and_other_faults_still_stop(samples, caplog):
    samples[0].image.unlink()
    truncate(samples[2].image)
    with caplog.at_level(logging.WARNING):
        check(samples, on_error="skip")
    assert "4 samples without a readable image" in caplog.text and "0.jpg" in caplog.text and "1.jpg" in caplog.text
    samples[6] = dataclasses.replace(samples[6], targets=(Target((1.0, 1.0, 2.0, 2.0), masks.empty(HEIGHT, WIDTH)),))
    with pytest.raises(BrokenData, match="1 of 12"):
        check(samples, on_error="skip")


def test_of_pictures_made_in_memory_only_a_few_are_looked_at():
    endless = Counted(Scenes(length=1_000_000))
    check(endless)
    assert endless.made == 32
    check(endless, limit=40)
    assert endless.made == 72


def test_opened_gives_pictures(samples):
    opened = Opened(samples)
    assert len(opened) == 12
    assert [s.id for s in opened] == [s.id for s in samples]
    assert [s.id for s in opened[2:9:3]] == ["s-2", "s-5", "s-8"] and opened[-1].id == "s-11"
    picture = opened[3].image
    assert isinstance(picture, Image.Image) and picture.mode == "RGB" and picture.size == (WIDTH, HEIGHT)
    assert opened[3] == dataclasses.replace(samples[3], image=picture)
    with pytest.raises(IndexError):
        opened[12]


def test_a_broken_image_stops_the_run_unless_told_otherwise(samples):
    name = truncate(samples[4].image)
    with pytest.raises(BrokenImage, match=rf"{name} \(sample s-4\): cannot be read"):
        Opened(samples)[4]
    with pytest.raises(ValueError, match=r"data\.on_error='ignore'; it is 'raise' or 'skip'"):
        Opened(samples, "ignore")  # pyright: ignore[reportArgumentType]


def test_with_skip_the_next_readable_sample_takes_its_place(samples, caplog):
    truncate(samples[4].image)
    samples[11].image.unlink()
    opened = Opened(samples, "skip")
    with caplog.at_level(logging.WARNING):
        assert [s.id for s in opened] == [f"s-{i}" for i in (0, 1, 2, 3, 6, 6, 6, 7, 8, 9, 0, 0)]
        assert opened[-1].id == "s-0"
    assert list(opened.skipped) == ["s-4", "s-5", "s-10", "s-11"]
    assert "cannot be read" in opened.skipped["s-4"] and "no such file" in opened.skipped["s-11"]
    assert len(caplog.records) == 2, "one warning a file"


def test_when_no_image_can_be_read_skipping_ends(samples):
    for path in {s.image for s in samples}:
        path.unlink()
    with pytest.raises(BrokenImage, match="none of the 12 samples"):
        Opened(samples, "skip")[5]


def test_every_damage_to_an_image_file_is_a_broken_image(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("jpg", "png", "bmp", "gif", "webp", "ppm"):
        path = photo(tmp_path / f"x.{kind}")
        whole = path.read_bytes()
        for end in rng.integers(0, len(whole) // 2, 20):
            path.write_bytes(whole[:end])
            with pytest.raises(BrokenImage, match=f"x.{kind}"):
                open_image(sample(path))
        for _ in range(100):
            damaged = bytearray(whole)
            for position in rng.integers(0, min(len(whole), 200), 3):
                damaged[position] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                assert open_image(sample(path)).size == (WIDTH, HEIGHT)
            except BrokenImage as error:
                assert f"x.{kind}" in str(error)
    with pytest.raises(BrokenImage, match="cannot be read"):
        open_image(sample(tmp_path))
    grey = sample(Image.new("L", (WIDTH, HEIGHT)))
    assert open_image(grey).mode == "RGB"

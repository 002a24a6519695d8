"""The page of evaluation/serve.py in a real browser: a sample that is picked, a photo, and what cannot be asked."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import Browser, chromium
from tests.runs import ROOT, environment
from tests.taught import some_scenes

BINARY = chromium()
pytestmark = pytest.mark.skipif(
    BINARY is None, reason="no Chromium found: apt-get install chromium, or set REFSEG_CHROMIUM to its path"
)
TOLD = "document.querySelector('#{} textarea').value"
READ = TOLD.format("read")
PAID = "document.getElementById('paid').innerText"


@pytest.fixture
def site(taught: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a page about the policy that knows `some_scenes`, which are among its samples."""
    options = [f"model.path={taught}", "data.split=val", "data.length=60", "max_tokens=64", "port=0"]
    (tmp_path / "server").mkdir()
    server = subprocess.Popen(
        [sys.executable, "evaluation/serve.py", *options],
        cwd=ROOT,
        env=environment() | {"TMPDIR": str(tmp_path / "server")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout
    line = server.stdout.readline()
    assert line.startswith("http://127.0.0.1:"), line
    yield line.split()[0] + "/"
    server.terminate()
    server.wait()
    assert files(tmp_path / "server") == []  # nobody's pictures are left


def test_what_a_person_does_on_the_page(site, tmp_path):
    scene = some_scenes()[0]
    assert isinstance(scene.image, Image.Image)
    scene.image.save(tmp_path / "photo.png")
    Image.new("L", (10, 20)).save(tmp_path / "small.png")
    with Browser(BINARY or "", height=900, site=site) as browser:
        browser.open(site)
        browser.until("document.getElementById('ask') !== null")
        browser.click("#ask")
        assert browser.until(READ).startswith("cannot be asked: Picture: there is none")
        write(browser, "#index input", "60")
        browser.click("#pick")
        browser.until(f"{READ} === 'cannot be picked: Sample: there are 60; choose a number from 0 to 59.'")

        # A sample of data: what is meant is known, so there are rewards.
        write(browser, "#index input", scene.id.split("-")[3])
        browser.click("#pick")
        browser.until(f"{TOLD.format('expression')} === {scene.expression!r}")
        browser.until("document.querySelectorAll('#picture img, #truth img').length === 2")
        browser.click("#ask")
        browser.until(f"{READ}.startsWith('found')")
        edges = [float(edge) for edge in browser.value(READ).splitlines()[1].split()]
        assert edges == pytest.approx(scene.targets[0].box, abs=2)
        assert "bbox_2d" in browser.value(TOLD.format("text"))
        rewards = dict(line.split("\t", 1) for line in browser.value(PAID).splitlines()[1:])
        assert float(rewards["box_iou"].split()[-1]) > 0.9 and rewards["no_target"].split()[-1] == "-"
        assert float(rewards["total"].split()[-1]) > 1.5
        browser.until("document.querySelector('#answer img')?.naturalWidth > 400")
        browser.value("window.scrollTo(0, 0)")
        (kept,) = (tmp_path / "server").glob("refseg-rl-*")
        assert files(kept) == files(tmp_path / "server") != [] and kept.stat().st_mode & 0o77 == 0
        browser.screenshot(tmp_path / "page.png")
        assert np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).std() > 20

        # The same as a photo of one's own, with no more known than that.
        browser.open(site)
        browser.until("document.querySelector('#picture input[type=file]') !== null")
        browser.upload("#picture input[type=file]", tmp_path / "photo.png")
        browser.until("document.querySelector('#picture img') !== null")
        browser.click("#ask")
        assert browser.until(READ).startswith("cannot be asked: Expression: it is empty")
        write(browser, "#expression textarea", scene.expression)
        browser.click("#ask")
        browser.until(f"{PAID}.includes('Not known what is meant')")
        assert browser.value(READ).startswith("found")
        browser.upload("#truth input[type=file]", tmp_path / "small.png")
        browser.until("document.querySelector('#truth img') !== null")
        browser.click("#ask")
        browser.until(f"{READ}.includes('the mask is 10x20, the picture 64x64')")
        # gradio's own client warns so whenever an upload's stream ends.
        assert [one for one in browser.problems if "Method not implemented." not in one] == []


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def write(browser: Browser, field: str, text: str) -> None:
    """Replace what stands in a field, as a person types."""
    browser.value(f"document.querySelector('{field}').focus(); document.querySelector('{field}').select()")
    browser.type(text)

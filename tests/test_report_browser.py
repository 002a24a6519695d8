"""The page of evaluation/report.py in a real browser: filters, keyboard, light and dark; nothing runs or is fetched."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from evaluation.folder import read_folder
from evaluation.gallery import KINDS, choose, totals
from tests.browser import Browser, chromium
from tests.evaluated import attacked, evaluate_twice
from tests.runs import ROOT
from tests.test_overlay import history

BINARY = chromium()
pytestmark = pytest.mark.skipif(
    BINARY is None, reason="no Chromium found: apt-get install chromium, or set REFSEG_CHROMIUM to its path"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory):
    return evaluate_twice(tmp_path_factory.mktemp("evaluated"))


def test_the_page_in_a_browser(folders, tmp_path):
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": history(40)}))
    output = tmp_path / "report.html"
    overrides = [f"folders=[{','.join(map(str, folders))}]", f"training={tmp_path}", f"output={output}"]
    overrides += ["shown=4", "side=128"]
    subprocess.run(
        [sys.executable, "evaluation/report.py", *overrides],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    evaluations = [read_folder(folder) for folder in folders]
    cards = choose(evaluations, shown=4)

    def expected(kind: str, numbers: tuple[int, ...] = (0, 1)) -> int:
        return sum(any(kind in card.answers[number].kinds for number in numbers) for card in cards)

    visible = "[...document.querySelectorAll('.card')].filter((card) => card.checkVisibility())"
    with Browser(BINARY or "") as browser:
        browser.open(output)
        assert browser.value(f"{visible}.length") == len(cards)
        assert browser.value("[...document.images].every((image) => image.complete && image.naturalWidth === 128)")
        assert browser.value("document.querySelectorAll('.curves svg text').length") > 40
        for kind in KINDS:
            browser.click(f"[data-kind={kind}]")
            assert browser.value(f"{visible}.length") == expected(kind) > 0
            count = sum(totals(evaluation)[kind] for evaluation in evaluations)
            status = browser.value("document.getElementById('status').value")
            assert status == f"{expected(kind)} cards, of {count} such answers: {KINDS[kind].meaning}"
            assert browser.value("document.querySelectorAll('[aria-pressed=true]').length") == 1
            order = browser.value(
                f"{visible}.map((card) => [...card.querySelectorAll('.answer')]"
                f".filter((one) => one.dataset.kinds.split(' ').includes('{kind}'))"
                ".map((one) => Number(one.dataset.score)))"
            )
            scores = [max(values) if kind == "best" else min(values) for values in order]
            assert scores == sorted(scores, reverse=kind == "best")

        # By keyboard alone: from the first button two on, pressed with Enter; then typed into the search field.
        browser.value("document.querySelector('[data-kind=all]').focus()")
        for _ in range(2):
            browser.key("Tab", 9)
        browser.key("Enter", 13, "\r")
        assert browser.value("location.hash") == "#best"
        assert browser.value("document.activeElement.matches('[data-kind=best]:focus-visible')")
        browser.value("document.getElementById('words').focus()")
        browser.type("no such words")
        assert browser.value(f"{visible}.length") == 0
        browser.value("document.getElementById('words').value = ''")
        browser.open(output, "#worst")
        choose_second = (
            "const s = document.getElementById('evaluation'); s.value = '1'; s.dispatchEvent(new Event('change'))"
        )
        browser.value(f"(() => {{ {choose_second} }})()")
        assert browser.value(f"{visible}.length") == expected("worst", (1,))

        brightness = {}
        for scheme in ("light", "dark"):
            browser.scheme(scheme)
            browser.screenshot(tmp_path / f"{scheme}.png")
            brightness[scheme] = np.asarray(Image.open(tmp_path / f"{scheme}.png").convert("L")).mean()
        assert brightness["light"] > 180 > 80 > brightness["dark"]
        assert browser.problems == []


def test_no_text_of_a_model_runs(folders, tmp_path):
    written = tmp_path / "report.html"
    written.write_text(attacked([read_folder(folder) for folder in folders]), encoding="utf-8")
    with Browser(BINARY or "") as browser:
        browser.open(written)
        assert browser.value("document.title") == "A <title>"
        assert browser.value("document.scripts.length") == 1
        shown = "[...document.querySelectorAll('.card h3')].some((h) => h.textContent.includes('<script>document'))"
        assert browser.value(shown)
        assert browser.problems == []
        # And if one had got in: the page's policy lets no other script run.
        browser.value("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
        browser.value(
            "document.body.append(Object.assign(document.createElement('script'), {text: 'document.title=2'}))"
        )
        assert browser.value("document.title") == "A <title>"
        assert len(browser.problems) >= 2

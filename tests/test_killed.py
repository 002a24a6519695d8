"""A run that is killed, whatever it was doing, goes on as if it had not been."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from tests.runs import ROOT, environment

KILLS = 20


@pytest.mark.slow
def test_twenty_kills_at_random_moments_cost_nothing_but_time(tmp_path):
    script = [sys.executable, "tests/killed_runs.py", str(tmp_path), str(KILLS)]
    done = subprocess.run(script, cwd=ROOT, env=environment(), text=True, capture_output=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert Counter(one["same"] for one in said) == {True: KILLS}, said
    assert len({one["part"] for one in said}) == 5

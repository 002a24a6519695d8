"""Structured decoding with the real engine: a policy that knows no format writes nothing but its texts."""

import json
import re
import subprocess
import sys

import pytest

from tests.runs import ROOT, environment
from tests.structured_run import FORMATS

# What a regular expression cannot count. A policy that was taught a format keeps these rules by itself.
COUNTED = ("inside out", "outside", "cells wide", "cells, not", "cut off", "the grid has")


@pytest.mark.vllm
def test_under_its_regex_every_text_is_of_the_format(tmp_path):
    command = [sys.executable, "-m", "tests.structured_run", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said.keys() == FORMATS.keys()
    for name, rows in said.items():
        assert all(row["reason"] for row in rows["free"]), name  # or the test would show nothing
        regex = FORMATS[name].regex(2)
        for row in rows["structured"]:
            if not row["cut"]:
                assert re.fullmatch(regex, row["text"]), (name, row)
                assert row["reason"] is None or any(rule in row["reason"] for rule in COUNTED), (name, row)
        assert not all(row["cut"] for row in rows["structured"]), name

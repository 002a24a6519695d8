"""rollouts/deadline.py: a wait ends, and says for what."""

import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rollouts.deadline import EngineDied, deadline, limit_requests
from tests.runs import ROOT, environment

HANGS = """
import time
from rollouts.deadline import deadline
with deadline(0.5, "rollouts.time_limit: vLLM's completions of a batch"):
    time.sleep(60)
"""


class HangingServer(BaseHTTPRequestHandler):
    """Says that it is well, and never generates."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"data": [{"id": "policy"}]}')

    def do_POST(self) -> None:
        time.sleep(30)

    def log_message(self, format: str, *args) -> None:
        pass


def test_a_hang_ends_the_process_and_is_named():
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HANGS], cwd=ROOT, env=environment(), text=True, capture_output=True)
    assert done.returncode == 1
    assert "rollouts.time_limit: vLLM's completions of a batch: no answer for 0.5 s" in done.stderr
    assert "time.sleep" in done.stderr or "Thread" in done.stderr  # the stack says where it hung
    assert time.monotonic() - started < 50


def test_what_ends_in_time_is_left_alone():
    with deadline(0.05, "nothing"):
        pass
    time.sleep(0.1)
    with pytest.raises(KeyError), deadline(10, "an error of another kind"):
        raise KeyError("as it was")


@pytest.mark.vllm
def test_a_server_that_hangs_or_is_gone_is_reported_as_that():
    from trl.generation.vllm_client import VLLMClient

    server = ThreadingHTTPServer(("127.0.0.1", 0), HangingServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = VLLMClient(base_url=f"http://127.0.0.1:{server.server_port}")
    limit_requests(client, 0.5)
    started = time.monotonic()
    with (
        pytest.raises(EngineDied, match=r"new weights: the server does not answer: .*timed out"),
        deadline(30, "new weights"),
    ):
        client.generate([[1, 2]])
    assert time.monotonic() - started < 10  # asked once
    server.shutdown()
    server.server_close()
    adapter: Any
    for adapter in client.session.adapters.values():
        adapter.max_retries = adapter.max_retries.new(connect=0, total=0)  # no minute of waiting for it to restart
    with pytest.raises(EngineDied, match=r"a batch: the server does not answer"), deadline(30, "a batch"):
        client.generate([[1, 2]])

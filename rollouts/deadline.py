"""A limit to every wait for an engine: one that died, or hangs, is reported as that."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException

GRACE = 30.0  # seconds that an error of the engine's own has to be raised before the process is ended


class EngineDied(RuntimeError):
    """The engine does not answer."""


@contextmanager
def deadline(seconds: float, waiting_for: str) -> Iterator[None]:
    """Wait for the block at most that long.

    A block that hangs in an engine's own code, or in a collective with a process that is gone, cannot be interrupted
    from Python: the process is ended, with one line that says what it waited for, and the stack of every thread.

    Args:
        seconds: the limit.
        waiting_for: what the message names, and where its limit is set.

    Raises:
        EngineDied: the engine raised an error of its own that says it is dead, or a server cannot be reached.
    """
    timer = threading.Timer(seconds, _end, (seconds, waiting_for))
    timer.daemon = True
    timer.start()
    try:
        yield
    except RequestException as error:
        raise EngineDied(f"{waiting_for}: the server does not answer: {error}") from error
    except Exception as error:
        if type(error).__name__ != "EngineDeadError":  # vllm.v1.engine.exceptions; vLLM may not be installed
            raise
        raise EngineDied(f"{waiting_for}: the engine's process is dead: {error}") from error
    finally:
        timer.cancel()


def limit_requests(client: Any, seconds: float) -> None:
    """Let each request of TRL's VLLMClient wait for its answer at most that long.

    TRL 1.16 sets no timeout, and asks again five times where an answer does not come; can go when it takes one. A
    refused connection is still tried again, as TRL does: servers restart.
    """
    session = client.session
    for scheme, adapter in list(session.adapters.items()):
        retries = adapter.max_retries.new(read=0)
        session.mount(scheme, HTTPAdapter(max_retries=retries, pool_maxsize=adapter._pool_maxsize))
    send = session.request

    def request(*args: Any, **kwargs: Any) -> Any:
        return send(*args, **{"timeout": seconds, **kwargs})

    session.request = request


def _end(seconds: float, waiting_for: str) -> None:
    print(f"\n{waiting_for}: no answer for {seconds:g} s, the run is ended.", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    os._exit(1)

"""A headless Chromium driven over its debugging pipe (DevTools protocol), with nothing but the standard library.

Debian and Ubuntu: `apt-get install chromium`. REFSEG_CHROMIUM names another binary.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
FLAGS = ["--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
FLAGS += ["--no-first-run", "--disable-background-networking"]
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # no network
PATIENCE = 60  # seconds; a busy machine is no failure
# Chromium reads commands from descriptor 3 and writes to 4; another process puts the pipes there and becomes it.
LAUNCH = """import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3), os.dup2(ends[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])"""


def chromium() -> str | None:
    """The path of a Chromium, None if none is installed."""
    return os.environ.get("REFSEG_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page. `problems` collects what the page logs as an error and every address that it asks for and is neither a
    file nor of the site.

    Use it as a context manager.

    Args:
        site: how addresses begin that pages may ask for, such as http://127.0.0.1:7860/.
    """

    def __init__(self, binary: str, width: int = 1280, height: int = 1000, site: str = "file:") -> None:
        self._own = ("file:", "data:", "about:", "blob:", site)
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        command = [binary, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out),
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs_in, theirs_out):
            os.close(end)
        self._in, self._out = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self._number, self._session, self._rest = 0, None, b""
        self.problems: list[str] = []
        self._loaded = False
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()  # Chromium ends with its pipe
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._in.close()
        self._profile.cleanup()

    def open(self, page: Path | str, fragment: str = "") -> None:
        """Load a file or an address, and wait until it is loaded."""
        self._loaded = False
        address = page if isinstance(page, str) else page.resolve().as_uri()
        answer = self._call("Page.navigate", url=address + fragment)
        while "loaderId" in answer and not self._loaded:  # another fragment of the same page loads nothing
            self._read()

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, as JSON carries it."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise ValueError(f"{expression}: {answer['exceptionDetails']['exception'].get('description')}")
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """The value of an expression as soon as it is true, and no element; a busy machine is waited for."""
        end = time.monotonic() + 5 * PATIENCE
        while not (value := self.value(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {expression}")
            time.sleep(0.2)
        return value

    def upload(self, selector: str, file: Path) -> None:
        """Choose a file in an `<input type=file>`."""
        answer = self._call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self._call("DOM.setFileInputFiles", files=[str(file)], objectId=answer["result"]["objectId"])

    def click(self, selector: str) -> None:
        """Scroll to an element, and press and release the mouse in its middle."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{element}.scrollIntoView({{block: 'nearest'}})")
        box = f"{element}.getBoundingClientRect()"
        x, y = self.value(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({box})")
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key; `code` is its Windows virtual key code."""
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            said = {"text": text} if text and kind == "keyDown" else {}
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **said)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self._call("Input.insertText", text=text)

    def scheme(self, name: str) -> None:
        """`light` or `dark`, as the reader's system prefers."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self._call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path) -> None:
        """What is seen, as a PNG."""
        data = self._call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise ValueError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        """The next message; events are noted on the way."""
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], PATIENCE)[0]:
                raise TimeoutError(f"Chromium said nothing for {PATIENCE} s.")
            more = os.read(self._in.fileno(), 1 << 16)
            if not more:
                raise RuntimeError(f"Chromium ended with status {self._process.wait()}.")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(params["exceptionDetails"]))
            case "Log.entryAdded" | "Runtime.consoleAPICalled":
                self.problems.append(json.dumps(params))
            case "Page.javascriptDialogOpening":
                self.problems.append(f"a dialog: {params['message']}")
            case "Network.requestWillBeSent":
                address = params["request"]["url"]
                if not address.startswith(self._own):
                    self.problems.append(f"asked for {address}")
        return message

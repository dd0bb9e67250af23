"""A headless Chromium, driven through its own protocol over a pipe: no port, no package.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_MESSAGES = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


class Tab:
    """One page. `messages`: what the console got since the last `open`."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._buffer = b""
        self._last = 0
        self._session = ""
        self.messages: list[Any] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Sends a command and returns its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._until(lambda got: got.get("id") == message["id"])["result"]

    def open(self, page: Path | str, width: int, *, dark: bool = False) -> None:
        """Loads a file, or an address, in a window of this width."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.messages.clear()
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        self._until(lambda got: got.get("method") == "Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, or what its promise becomes."""
        got = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return got["result"].get("value")

    def until(self, condition: str) -> None:
        """Waits until a JavaScript expression is true in the page."""
        again = f"(function look(done) {{ ({condition}) ? done(true) : setTimeout(look, 50, done); }})"
        assert self.evaluate(f"new Promise({again})")

    def picture(self, file: Path, height: int) -> None:
        """Writes a PNG of the first `height` pixels of the page."""
        width = self.evaluate("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(shot["data"]))

    def _until(self, wanted: Any) -> Any:
        while True:
            while b"\0" not in self._buffer:
                if not (more := os.read(self._read, 1 << 20)):
                    raise EOFError("Chromium ended")
                self._buffer += more
            line, _, self._buffer = self._buffer.partition(b"\0")
            got = json.loads(line)
            if got.get("method") in _MESSAGES:
                self.messages.append(got["params"])
            if "error" in got:
                raise RuntimeError(got["error"])
            if wanted(got):
                return got


@contextmanager
def tab() -> Iterator[Tab]:
    """A tab of a new Chromium with a profile of its own."""
    assert EXECUTABLE
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # Chromium reads commands from descriptor 3 and writes to 4.
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]

    def place() -> None:
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank",
        )  # fmt: skip
        browser = subprocess.Popen(
            [EXECUTABLE, *flags], pass_fds=(3, 4), preexec_fn=place, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (theirs_in, theirs_out, *high):
            os.close(end)
        try:
            yield Tab(ours_out, ours_in)
        finally:
            browser.kill()
            browser.wait()
            os.close(ours_out)
            os.close(ours_in)

"""Headless Chromium by its own protocol, over two pipes: no driver, no port, no package."""

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

import pytest

FLAGS = (
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-dev-shm-usage",
    ),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--remote-debugging-pipe",
    ),
)


def find() -> str:
    """The browser; skips the test where there is none."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return path or pytest.skip("no Chromium: install Debian's package chromium to test pages in a browser")


class Browser:
    """One tab. events: what the page said, as pairs of method and parameters."""

    def __init__(self) -> None:
        path = find()
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()

        # The protocol wants the descriptors 3 and 4; a process of its own places them, as JAX's threads bear
        # no fork here.
        program = (
            "import os, sys, fcntl; a, b = (fcntl.fcntl(int(x), fcntl.F_DUPFD, 10) for x in sys.argv[1:3]); "
        )
        program += "os.dup2(a, 3); os.dup2(b, 4); os.execv(sys.argv[3], sys.argv[3:])"
        browser = [path, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, str(theirs_in), str(theirs_out), *browser],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._id, self._session = b"", 0, None
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and gives its result."""
        self._id += 1
        session = {"sessionId": self._session} if self._session else {}
        os.write(
            self._out,
            json.dumps({"id": self._id, "method": method, "params": parameters, **session}).encode() + b"\0",
        )
        while True:
            said = self._next()
            if said.get("id") == self._id:
                assert "error" not in said, said["error"]
                return said["result"]
            if "method" in said:
                self.events.append((said["method"], said["params"]))

    def _next(self, patience: float = 60.0) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], patience)
            got = os.read(self._in, 1 << 20) if ready else b""
            assert got, "the browser says nothing any more"
            self._buffer += got
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        said = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def open(self, file: Path, *, width: int = 1280, height: int = 900, scheme: str = "light") -> int:
        """Opens a report and waits for its charts; gives the milliseconds until the last was drawn."""
        self.events.clear()
        self._opened = file.resolve().as_uri()
        phone = width < 600
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Page.navigate", url="about:blank")
        self("Page.navigate", url=self._opened)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if drawn := self.js("document.documentElement?.dataset.drawn"):
                return int(drawn)
            time.sleep(0.05)
        raise AssertionError(f"the charts were never drawn: {self.troubles()}")

    def troubles(self) -> list[str]:
        """Errors and warnings of the console, and exceptions."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [json.dumps(said)[:500] for method, said in self.events if method in kinds]

    def requests(self) -> list[str]:
        """What the page asked the network or the disk for, other than itself and what it holds."""
        asked = [
            said["request"]["url"] for method, said in self.events if method == "Network.requestWillBeSent"
        ]
        return [
            url for url in asked if not url.startswith("data:") and url not in ("about:blank", self._opened)
        ]

    def screenshot(self, file: Path) -> None:
        """The whole page as an image."""
        size = self("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 8000), "scale": 1}
        said = self("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(said["data"]))

    def pdf(self, file: Path) -> None:
        """The page as it is printed."""
        file.write_bytes(base64.b64decode(self("Page.printToPDF", printBackground=False)["data"]))

    def close(self) -> None:
        """Ends it."""
        os.close(self._out)
        os.close(self._in)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

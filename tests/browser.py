"""A headless Chromium, driven over its DevTools: open a page, look at it, click in it.

Only the standard library: a WebSocket client of a hundred lines.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_SECONDS = 60.0
ANSWER_SECONDS = 60.0
# The worst of these tests' machines has one busy core: software rendering, no sandbox as root.
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
    *("--remote-debugging-port=0", "--hide-scrollbars", "--mute-audio", "--disable-sync"),
    *("--disable-component-update", "--password-store=basic", "--force-device-scale-factor=1"),
)


def find() -> str:
    """Return the path of Chromium; skip the test if there is none."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    message = "no Chromium here: `make system` as root on Debian installs it"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a Chromium with a profile of its own; it ends with the block."""
    program = find()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Browser(_port(Path(profile), process))
        finally:
            process.terminate()
            process.wait(30)


def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    file = profile / "DevToolsActivePort"
    until = time.monotonic() + START_SECONDS
    while not (file.exists() and file.read_text().count("\n") >= 1):
        assert process.poll() is None, "Chromium ended at once"
        assert time.monotonic() < until, "Chromium does not start"
        time.sleep(0.02)
    return int(file.read_text().splitlines()[0])


class Browser:
    """A running Chromium."""

    def __init__(self, port: int) -> None:
        self._port = port

    @contextmanager
    def page(self, width: int = 1280, height: int = 800) -> Iterator[Page]:
        """Open a tab."""
        address = f"http://127.0.0.1:{self._port}/json/new?about:blank"
        request = urllib.request.Request(address, method="PUT")
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            about = json.load(answer)
        page = Page(about["webSocketDebuggerUrl"], width, height)
        try:
            yield page
        finally:
            page.close()


class Page:
    """A tab.

    Attributes
    ----------
    requests : addresses that it asked for, the page's own first.
    problems : errors that its scripts raised or wrote to the console.
    n_bytes : bytes received over its WebSockets.
    """

    def __init__(self, address: str, width: int, height: int) -> None:
        self._socket = _WebSocket(address)
        self._n_calls = 0
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.n_bytes = 0
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, address: str) -> None:
        """Open an address."""
        self.requests.clear()
        self.problems.clear()
        self._call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression, which may be a promise."""
        answer = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, condition: str, seconds: float = 60.0) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        until = time.monotonic() + seconds
        while True:
            try:
                if value := self.run(condition):
                    return value
            except AssertionError:  # the page is still loading
                if time.monotonic() > until:
                    raise
            assert time.monotonic() < until, f"{condition} is not true; problems: {self.problems}"
            time.sleep(0.05)

    def settled(self, script: str) -> Any:
        """Return the value of a JavaScript expression once it has stayed the same for a while.

        A page whose parts still move would be clicked at the wrong place.
        """
        last, since = self.run(script), time.monotonic()
        until = since + 60
        while time.monotonic() < since + 0.5:
            time.sleep(0.05)
            if (now := self.run(script)) != last:
                last, since = now, time.monotonic()
            assert time.monotonic() < until, f"{script} changes all the time"
        return last

    def screenshot(self, path: Path | None = None, *, full: bool = False) -> bytes:
        """Return a picture as PNG, and write it to a file; ``full``: beyond the window."""
        answer = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        picture = base64.b64decode(answer["data"])
        if path is not None:
            path.write_bytes(picture)
        return picture

    def click(self, x: float, y: float, modifiers: int = 0) -> None:
        """Click at a place in the window."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._mouse(kind, x, y, modifiers=modifiers)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press at one place and release at another."""
        self._mouse("mouseMoved", *start)
        self._mouse("mousePressed", *start)
        for step in range(1, 6):
            x, y = (a + (b - a) * step / 5 for a, b in zip(start, end, strict=True))
            self._mouse("mouseMoved", x, y, buttons=1)
        self._mouse("mouseReleased", *end)

    def drag_until(
        self, ends: Callable[[], tuple[tuple[float, float], tuple[float, float]]], condition: str
    ) -> None:
        """Drag until a JavaScript expression is true, at places that are asked for each time.

        Bokeh takes a mouse that rests for 0.3 s after the press for a press, not for a drag: on a
        busy machine the first move may come later.
        """
        for _ in range(8):
            self.drag(*ends())
            try:
                self.wait_for(condition, 5)
            except AssertionError:
                continue
            return
        raise AssertionError(f"{condition} is not true after eight drags: {self.problems}")

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        pressed = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed, **more)

    def close(self) -> None:
        """Close the tab."""
        self._call("Page.close")
        self._socket.close()

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._n_calls += 1
        number = self._n_calls
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.receive())
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self._heard(message)

    def _heard(self, message: dict[str, Any]) -> None:
        about = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(about["url"])
            case "Network.webSocketFrameReceived":
                self.n_bytes += len(about["response"]["payloadData"])
            case "Runtime.exceptionThrown":
                self.problems.append(str(about["exceptionDetails"].get("exception", about)))
            case "Runtime.consoleAPICalled" if about["type"] == "error":
                self.problems.append(str([each.get("value") for each in about["args"]]))
            case "Log.entryAdded" if about["entry"]["level"] == "error":
                self.problems.append(f"{about['entry']['text']} {about['entry'].get('url')}")


class _WebSocket:
    """The client's side of a WebSocket (RFC 6455) to this machine."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        assert parts.hostname is not None
        self._socket = socket.create_connection((parts.hostname, parts.port), ANSWER_SECONDS)
        self._buffer = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        assert b" 101 " in head.splitlines()[0], head

    def send(self, text: str) -> None:
        data, mask = text.encode(), os.urandom(4)
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", 0x81, 0x80 | size)
        elif size < 65536:
            head = struct.pack("!BBH", 0x81, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x81, 0x80 | 127, size)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        self._socket.sendall(head + mask + masked)

    def receive(self) -> str:
        """Return the next message of text."""
        parts = []
        while True:
            first, second = self._take(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", self._take(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self._take(8))
            data = self._take(size)
            if first & 0x0F in (0, 1, 2):
                parts.append(data)
            assert first & 0x0F != 8, "Chromium closed the connection"
            if first & 0x80 and first & 0x0F in (0, 1, 2):
                return b"".join(parts).decode()

    def _take(self, n: int) -> bytes:
        while len(self._buffer) < n:
            self._fill()
        data, self._buffer = self._buffer[:n], self._buffer[n:]
        return data

    def _fill(self) -> None:
        data = self._socket.recv(1 << 20)
        assert data, "Chromium closed the connection"
        self._buffer += data

    def close(self) -> None:
        self._socket.close()

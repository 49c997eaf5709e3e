"""A browser driven from tests: chromedriver spoken to in the W3C WebDriver protocol, with nothing but this file."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib import request
from urllib.error import HTTPError, URLError

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name for what an element is known by
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--force-device-scale-factor=1",
)  # fmt: skip


def missing() -> list[str]:
    """The programs that are needed and not there."""
    found = {"chromium": _chromium(), "chromedriver": shutil.which("chromedriver")}
    return [name for name, place in found.items() if place is None]


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One window.

    Args:
        address: of a session of chromedriver.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def open(self, page: Path) -> None:
        """Show a file."""
        call(f"{self.address}/url", {"url": page.resolve().as_uri()})

    def open_blank(self) -> None:
        """Show nothing."""
        call(f"{self.address}/url", {"url": "about:blank"})

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of a function of JavaScript returns."""
        return call(f"{self.address}/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector: str) -> None:
        """Click an element, which must be visible, as a person would."""
        found = call(f"{self.address}/element", {"using": "css selector", "value": selector})
        call(f"{self.address}/element/{found[_ELEMENT]}/click", {})

    def press(self, selector: str, keys: str) -> None:
        """Send keys to an element."""
        found = call(f"{self.address}/element", {"using": "css selector", "value": selector})
        call(f"{self.address}/element/{found[_ELEMENT]}/value", {"text": keys})

    def click_at(self, x: float, y: float) -> None:
        """Move the mouse to a point of the window, and click."""
        steps = [
            {"type": "pointerMove", "duration": 50, "x": round(x), "y": round(y)},
            {"type": "pause", "duration": 150},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}
        call(f"{self.address}/actions", {"actions": [mouse]})
        time.sleep(0.5)  # Plotly waits whether a click becomes a double one

    def resize(self, width: int, height: int) -> None:
        """Give the window another size."""
        call(f"{self.address}/window/rect", {"width": width, "height": height})
        time.sleep(0.7)  # Plotly follows a little later

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What came since the last call, of "browser" (the console) or "performance" (the network)."""
        entries: list[dict[str, Any]] = call(f"{self.address}/se/log", {"type": kind})
        return entries

    def screenshot(self, path: Path) -> None:
        """Save what the window shows as a PNG."""
        path.write_bytes(base64.b64decode(call(f"{self.address}/screenshot")))


def call(address: str, body: Any = None, method: str | None = None) -> Any:
    """One command of the protocol; a failure has the browser's words."""
    data = None if body is None else json.dumps(body).encode()
    asked = request.Request(address, data=data, method=method, headers={"Content-Type": "application/json"})
    direct = request.build_opener(request.ProxyHandler({}))
    try:
        with direct.open(asked, timeout=60) as answer:
            return json.load(answer)["value"]
    except HTTPError as error:
        raise RuntimeError(json.load(error)["value"]["message"]) from error


@contextmanager
def browser(folder: Path, size: tuple[int, int]) -> Iterator[Browser]:
    """A fresh browser with a profile in a folder, closed at the end.

    Args:
        folder: for the profile, and the log of chromedriver, which says its port there.
        size: width and height of the window.
    """
    log = folder / "chromedriver.log"
    with log.open("w") as file:
        driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=file, stderr=subprocess.STDOUT)
    try:
        address = _address(log)
        flags = [*_FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}"]
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": _chromium(), "args": flags},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = call(f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})
        session = f"{address}/session/{made['sessionId']}"
        try:
            yield Browser(session)
        finally:
            call(session, method="DELETE")
    finally:
        driver.terminate()
        driver.wait(timeout=30)


def _address(log: Path, patience: float = 30.0) -> str:
    """Where chromedriver listens, once it does."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        _, _, rest = log.read_text().partition("started successfully on port ")
        if rest:
            address = f"http://127.0.0.1:{rest.split('.')[0]}"
            try:
                call(f"{address}/status")
            except URLError:
                pass
            else:
                return address
        time.sleep(0.1)
    raise RuntimeError(f"chromedriver did not start: {log.read_text()}")

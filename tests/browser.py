"""A headless Chromium that tests speak to in DevTools' own protocol, through a pipe: no library and
no open port.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium is installed: the page is not opened in a browser"
)
PATIENCE = 60.0  # seconds for one answer, on a busy machine
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe"


class Browser:
    """The process, and the two ends of its pipe that are ours."""

    def __init__(self, process: subprocess.Popen[bytes], commands: int, answers: int) -> None:
        self.process = process
        self.commands = commands
        self.answers = answers
        self.events: list[Mapping[str, Any]] = []
        self._text = b""
        self._sent = 0

    def ask(self, method: str, session: str = "", **params: Any) -> Any:
        """What a command of the protocol returns; events that come before it are kept."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._sent:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self) -> Mapping[str, Any]:
        """The next message; an event is kept too."""
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._text:
            ready, _, _ = select.select([self.answers], [], [], end - time.monotonic())
            assert ready, "the browser does not answer"
            read = os.read(self.answers, 1 << 20)
            assert read, "the browser is gone"
            self._text += read
        first, _, self._text = self._text.partition(b"\0")
        message: Mapping[str, Any] = json.loads(first)
        if "method" in message:
            self.events.append(message)
        return message


class Tab:
    """A page that is open."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser = browser
        self.session = session

    def ask(self, method: str, **params: Any) -> Any:
        """What a command to this page returns."""
        return self.browser.ask(method, self.session, **params)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; of a promise what it comes to."""
        answer = self.ask(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key of the keyboard, pressed and let go."""
        texts = {"Enter": "\r", " ": " "}
        codes = {"Enter": 13, " ": 32, "Tab": 9}
        pressed = {
            "key": key,
            "text": texts.get(key, ""),
            "windowsVirtualKeyCode": codes[key],
        }
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, **pressed)

    def click(self, selector: str) -> None:
        """The mouse pressed and let go in the middle of an element."""
        place = self.value(
            "(() => { const found = document.querySelector(" + json.dumps(selector) + ");"
            " found.scrollIntoView({block: 'center', inline: 'center'});"
            " const {x, y, width, height} = found.getBoundingClientRect();"
            " return [x + width / 2, y + height / 2]; })()"
        )
        mouse = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, **mouse)

    def picture(self, file: Path, *, whole: bool = True) -> None:
        """A screenshot of the page as a PNG."""
        answer = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        answer = self.ask("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(answer["data"])

    def complaints(self) -> list[Any]:
        """What stands in the console, errors among it, and what was thrown."""
        kinds = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
        return [event["params"] for event in self._events() if event["method"] in kinds]

    def requests(self) -> list[str]:
        """The addresses that were asked for, the page's own first; what an address itself holds is
        asked of nobody.
        """
        sent = [event for event in self._events() if event["method"] == "Network.requestWillBeSent"]
        urls = [event["params"]["request"]["url"] for event in sent]
        return [url for url in urls if not url.startswith("data:")]

    def _events(self) -> list[Mapping[str, Any]]:
        return [event for event in self.browser.events if event.get("sessionId") == self.session]


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """A browser of its own, closed at the end."""
    ours, theirs = os.pipe(), os.pipe()
    command = f"exec {BROWSER} {FLAGS} --user-data-dir='{profile}' 3<&{ours[0]} 4>&{theirs[1]}"
    process = subprocess.Popen(
        ["bash", "-c", command],
        pass_fds=(ours[0], theirs[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(ours[0])
    os.close(theirs[1])
    try:
        yield Browser(process, ours[1], theirs[0])
    finally:
        process.terminate()
        process.wait(PATIENCE)
        os.close(ours[1])
        os.close(theirs[0])


def open_tab(
    browser: Browser,
    file: Path,
    *,
    width: int = 1200,
    height: int = 900,
    dark: bool = False,
    script: bool = True,
) -> Tab:
    """A file in a new tab of this width, loaded."""
    tab = empty_tab(browser, width, height)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    tab.ask("Emulation.setEmulatedMedia", features=[scheme])
    tab.ask("Emulation.setScriptExecutionDisabled", value=not script)
    tab.ask("Page.navigate", url=file.as_uri())
    while tab.value("location.protocol + document.readyState") != "file:complete":
        time.sleep(0.02)
    return tab


def empty_tab(
    browser: Browser,
    width: int,
    height: int,
) -> Tab:
    """A new tab of this size, in which nothing is loaded yet."""
    target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
    session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    tab = Tab(browser, session)
    for domain in ("Runtime", "Network", "Page", "Log"):
        tab.ask(f"{domain}.enable")
    tab.ask(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 500,
    )
    return tab

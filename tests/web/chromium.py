"""A real headless Chromium, driven over the DevTools protocol on a pair of pipes.

Laws: the browser has a profile of its own and reaches nothing but loopback: every other name is unknown to it; what
the page complains of (console, exceptions, policy) and every address it asks for is kept; it ends with its block.

Follows https://chromedevtools.github.io/devtools-protocol/, transport `--remote-debugging-pipe`: JSON, each ended by a
zero byte, read by the browser from descriptor 3 and written to 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",  # as root there is none, and the page is our own
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # containers have little of it
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*",
    "--remote-debugging-pipe",
)
START_S = 30.0  # one to two seconds, many times that on a busy machine
ANSWER_S = 20.0
POLL_S = 0.05

# Gives the descriptors the numbers that the browser knows them by; copies above 9 first, so that none is overwritten.
_BECOME = """
import fcntl, os, sys
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
os.dup2(high[0], 3)
os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def executable() -> str | None:
    """Return the browser: the one that CHROMIUM names, else Debian's; None where there is none."""
    return shutil.which(os.environ.get("CHROMIUM") or "chromium")


class Browser:
    """A browser that runs; `commands` and `answers` are its pipes."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._last = 0
        self._rest = b""
        self._pages: dict[str, Page] = {}

    @contextmanager
    def page(self) -> Iterator[Page]:
        """Open a tab that knows nothing of the others, for a block."""
        context = self.call("Target.createBrowserContext", timeout_s=START_S)["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        try:
            for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
                page.call(f"{domain}.enable")
            yield page
        finally:
            del self._pages[session]
            self.call("Target.disposeBrowserContext", browserContextId=context)

    def call(
        self, method: str, session: str | None = None, timeout_s: float = ANSWER_S, **parameters: Any
    ) -> dict[str, Any]:
        """Return the answer to a command of the protocol; what comes before it is noted."""
        self._last += 1
        command = {"id": self._last, "method": method, "params": parameters}
        if session is not None:
            command["sessionId"] = session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + timeout_s
        while True:
            for message in self._messages(deadline, method):
                if message.get("id") == self._last:
                    assert "error" not in message, (method, message["error"])
                    result: dict[str, Any] = message["result"]
                    return result

    def _messages(self, deadline: float, awaited: str) -> list[dict[str, Any]]:
        ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"the browser does not answer {awaited}"
        part = os.read(self._answers, 1 << 20)
        assert part, f"the browser has ended, before answering {awaited}"
        *whole, self._rest = (self._rest + part).split(b"\0")
        messages: list[dict[str, Any]] = [json.loads(each) for each in whole]
        for message in messages:
            if page := self._pages.get(message.get("sessionId", "")):
                page.take(message)
        return messages


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.complaints: list[str] = []
        self.asked: list[str] = []  # addresses, in order
        self._browser = browser
        self._session = session

    def open(self, url: str) -> None:
        """Go to an address, and wait for the document to be there."""
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer["errorText"]
        self.until("document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str, timeout_s: float = ANSWER_S) -> None:
        """Wait until an expression is true in the page."""
        deadline = time.monotonic() + timeout_s
        while not self.evaluate(condition):
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {condition}; the page: {self.text()}"
            time.sleep(POLL_S)

    def text(self) -> str:
        """Return what a person can read."""
        return str(self.evaluate("document.body.innerText"))

    def shape(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Give the screen a width in CSS pixels and a scheme of colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """Write all of the page as PNG."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer to a command of the protocol to this tab."""
        return self._browser.call(method, self._session, **parameters)

    def take(self, message: dict[str, Any]) -> None:
        """Note what the browser says of this tab."""
        event, told = message.get("method"), message.get("params", {})
        if event == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif event == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif event == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning", "assert"}:
            self.complaints.append(str(told["args"]))
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif event == "Audits.issueAdded" and told["issue"]["code"] == "ContentSecurityPolicyIssue":
            self.complaints.append(str(told["issue"]["details"]))


@contextmanager
def browsing(directory: Path) -> Iterator[Browser]:
    """Run a browser with a profile of its own below a directory."""
    program = executable()
    assert program is not None, "the tests of the page were left in although there is no browser"
    theirs_in, commands = os.pipe()
    answers, theirs_out = os.pipe()
    argv = [program, *FLAGS, f"--user-data-dir={directory / 'profile'}", "about:blank"]
    with (directory / "chromium.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _BECOME, str(theirs_in), str(theirs_out), *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(theirs_in, theirs_out),
            start_new_session=True,  # a browser is many processes: they are ended together
            env={**os.environ, "HOME": str(directory)},
        )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(commands, answers)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(commands)
        os.close(answers)

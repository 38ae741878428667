"""Real agents as processes on this machine's loopback addresses, and what a client of theirs needs."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import trio

from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.ocilayout import LayoutWriter
from tests.store.images import Image

WAIT_S = 20.0  # for what takes half a second on a machine that has nothing else to do
NOBODY = "ab" * 20  # the id of a peer that there is not: its downloads go at upload_rate_max


def free_host() -> str:
    """Return a loopback address that nobody else is likely to use at the moment."""
    return f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(2, 254)}"


def write_image(directory: Path, image: Image) -> None:
    """Write an image into a layout."""

    async def write() -> None:
        writer = LayoutWriter(directory, HostFiles())
        for digest, (data, _) in image.content.items():
            async with writer.blob(digest, len(data)) as sink:
                await sink.write(data)
        for tag in image.tags:
            await writer.tag(tag, image.root)

    trio.run(write)


class Agent:
    """One `p2pmirror agent`; `settings` are flags, `environment` is added to a clean one."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None, **settings: str) -> None:
        self.host = free_host()
        texts = {
            "registry_addr": f"{self.host}:29999",
            "router_addr": f"{self.host}:29998",
            "observability_addr": f"{self.host}:9090",
            "store": "none",
            **settings,
        }
        flags = [part for key, text in texts.items() for part in (f"--{key.replace('_', '-')}", text)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("P2PMIRROR_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "p2pmirror", "agent", *flags, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**clean, **(environment or {})},
        )
        self.lines: list[str] = []

    def running(self) -> dict:
        """Wait until the agent says that it runs; return what it says."""
        return self.event("agent.running")

    def event(self, name: str) -> dict:
        """Read lines until one of this event; return it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            entry = json.loads(line)
            if entry["event"] == name:
                return entry
        raise AssertionError("".join(self.lines))

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self, timeout_s: float = WAIT_S) -> tuple[int, list[str]]:
        """Wait for its end; return its exit code and the rest of its lines."""
        out, errors = self.process.communicate(timeout=timeout_s)
        assert out == ""
        rest = errors.splitlines()
        self.lines += rest
        return self.process.returncode, rest

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    # --- as a client ---

    def get(self, path: str, *, port: int = 29999, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Ask once, over a connection of its own."""
        connection = HTTPConnection(self.host, port, timeout=WAIT_S)
        try:
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def ready(self) -> tuple[int, str]:
        status, body = self.get("/readyz", port=9090)
        return status, body.decode()

    def wait_ready(self) -> None:
        wait_for(lambda: self.ready()[0] == 200)


class Download:
    """A blob on its way at the speed of peers."""

    def __init__(self, agent: Agent, path: str) -> None:
        self.connection = HTTPConnection(agent.host, 29999, timeout=WAIT_S)
        self.connection.request("GET", path, headers={"P2PMirror-Peer": NOBODY})
        self.response = self.connection.getresponse()
        assert self.response.status == 200
        self.data = self.response.read1(1)

    def rest(self) -> bytes:
        """Read until the end or until it is cut; a reset is an error."""
        while chunk := self.response.read1():
            self.data += chunk
        self.connection.close()
        return self.data


def refuses(agent: Agent) -> bool:
    """Whether new connections are refused."""
    try:
        socket.create_connection((agent.host, 29999), timeout=WAIT_S).close()
    except (ConnectionRefusedError, ConnectionResetError):  # the latter when the port closes in this very moment
        return True
    return False


def wait_for(condition, timeout_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def agents():
    """Yield a function that starts agents, which are all gone afterwards."""
    started: list[Agent] = []

    def start(*arguments: str, **settings) -> Agent:
        started.append(Agent(*arguments, **settings))
        return started[-1]

    try:
        yield start
    finally:
        for agent in started:
            agent.kill()

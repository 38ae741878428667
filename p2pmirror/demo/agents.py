"""The demo's agents: started as anybody would start them, asked through their observability port, and ended for sure.

Laws: an agent dies with this process even when that is killed, unless it is to be kept; what it prints goes to a file;
settings of the environment that the demo was started from do not reach it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

import trio
from prometheus_client.parser import text_string_to_metric_families

from p2pmirror.demo.failed import DemoFailed
from p2pmirror.demo.place import UPSTREAM, UPSTREAM_NAME, Place
from p2pmirror.errors import MirrorError, Unreachable
from p2pmirror.wire.http_client import HttpClient

ANSWER_S: Final = 5.0  # seconds for one answer: they take milliseconds, on a machine that has some to spare
ANSWER_BYTES_MAX: Final = 4 << 20  # 4 MiB: metrics have some 30 KiB, 200 requests some 100 KiB
START_S: Final = 30.0  # until it is ready: a second or two, many times that on a busy machine
POLL_S: Final = 0.1
TAIL_LINES: Final = 12  # of a log, in an error

# Becomes the agent after having asked the kernel for SIGKILL (9) at its parent's death (PR_SET_PDEATHSIG, 1); a wrapper
# does it, since code between fork and exec may hang where threads run.
_BECOME: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
# The demo's registry has a private address and no TLS, which only a table in a file allows.
_REGISTRIES: Final = f"""
[[registries]]
name = "{UPSTREAM_NAME}"
url = "http://{UPSTREAM}"
private_addresses = true
"""
_AGENT: Final = ("-m", "p2pmirror", "agent")


class Agent:
    """The agent of one node."""

    def __init__(self, place: Place, client: HttpClient) -> None:
        """Describe an agent that is not started yet; `client` asks it."""
        self.place = place
        self.node_id = ""  # hexadecimal; known when it is ready
        self.killed = False  # on purpose
        self._client = client
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, routers: list[str], upload_rate: str, *, keep: bool) -> None:
        """Start it, with `routers` to join; `keep`: it outlives this process. Call it from the main thread only.

        The kernel means the thread when it says parent.
        """
        self.place.directory.mkdir(parents=True, exist_ok=True)
        self.place.settings.write_text(_REGISTRIES)
        with self.place.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *_AGENT] if keep else [sys.executable, "-c", _BECOME, str(os.getpid()), *_AGENT],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(self.place, routers, upload_rate),
                start_new_session=True,  # a Ctrl-C in the terminal is for the demo, which then ends its agents
            )

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def ended_by_itself(self) -> bool:
        """Whether it has ended, and nobody wanted that."""
        return self._process is not None and not self.killed and self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL; twice does no harm."""
        self.killed = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def wait_ready(self, members: int) -> None:
        """Wait until it serves and knows `members` nodes, itself included. Raises `DemoFailed`."""
        lacking = "it does not answer"
        with trio.move_on_after(START_S):
            while lacking := await self._lacking(members):  # noqa: ASYNC110  # another process: nothing to be woken by
                await trio.sleep(POLL_S)
            return
        raise DemoFailed(f"{self} was not ready within {START_S:.0f} s: {lacking}")

    async def get(self, target: str) -> dict[str, Any]:
        """Return the JSON object at `target`. Raises `Unreachable`."""
        value = json.loads(await self._read(target))
        assert isinstance(value, dict)
        return value

    async def wait_to_find(self, digest: str, provider: str) -> None:
        """Wait until it finds a node (its id) as a provider of a digest. Raises `Unreachable`; sets no limit."""
        while not await self._finds(digest, provider):  # noqa: ASYNC110  # another process: nothing to be woken by
            await trio.sleep(POLL_S)

    async def metric(self, name: str) -> float:
        """Return the sum of the samples of this name. Raises `Unreachable`."""
        text = (await self._read("/metrics")).decode()
        families = text_string_to_metric_families(text)
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    def tail(self) -> str:
        """Return the end of what it printed."""
        try:
            lines = self.place.log.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join([f"--- {self}, end of its log:", *lines[-TAIL_LINES:]])

    async def _lacking(self, members: int) -> str:
        """Say what it lacks for being ready; nothing when it is."""
        try:
            status = await self.get("/api/v1/status")
        except Unreachable as error:
            return str(error)
        self.node_id = status["node_id"]
        alive = sum(1 for each in status["members"] if each["state"] == "alive")
        if status["ready"] and alive < members:
            return f"it knows {alive} of {members} nodes"
        return "; ".join(status["reasons"])

    async def _finds(self, digest: str, provider: str) -> bool:
        found = await self.get(f"/api/v1/find?digest={digest}")
        return provider in {each["node_id"] for each in found["providers"]}

    async def _read(self, target: str) -> bytes:
        with trio.move_on_after(ANSWER_S):
            try:
                async with self._client.request(self.place.observability, "GET", target, {}) as response:
                    body = await response.read(ANSWER_BYTES_MAX)
            except MirrorError as error:
                raise Unreachable(f"{self} does not answer {target}: {error}") from error
            if response.status == 200:
                return body
            raise Unreachable(f"{self} answers {target} with {response.status}: {body[:200].decode(errors='replace')}")
        raise Unreachable(f"{self} does not answer {target} within {ANSWER_S:.0f} s")

    def __str__(self) -> str:
        return f"the agent of node {self.place.number} ({self.place.host})"


def _environment(place: Place, routers: list[str], upload_rate: str) -> Mapping[str, str]:
    settings = {
        "registry_addr": str(place.registry),
        "router_addr": str(place.router),
        "observability_addr": str(place.observability),
        "advertise_addr": place.host,
        "store": f"oci-layout:{place.layout}",
        "data_dir": str(place.directory / "data"),
        "bootstrap": f"static:{','.join(routers)}",
        "upload_rate_max": upload_rate,
        "cache_dir": str(place.cache),
        "config": str(place.settings),
        "log_format": "text",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("P2PMIRROR_")}
    return {**inherited, **{f"P2PMIRROR_{key.upper()}": value for key, value in settings.items()}}

"""A simulation: one seed, one world, its nodes, and what a scenario does to them.

Laws: all chance comes from streams that are named and drawn from the seed, so that one more consumer shifts no other; a
log line of the agent that tells of a bug ends the run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, TypeVar

import trio
from prometheus_client import CollectorRegistry

from p2pmirror.resolve.flight import PieceSizes
from p2pmirror.routing.dht.codec import Seal
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.address import Address
from p2pmirror.wire.http_client import ClientOptions, HttpClient
from p2pmirror.wire.memory import Link, MemoryNetwork, MemoryWorld
from simulations.checks import Checks, Violation
from simulations.clock import VirtualClock
from simulations.nodes import ROUTER_PORT, RouterAlone, Surroundings, WholeNode
from simulations.trace import Trace

BOOTSTRAP_HOSTS = 3  # the first nodes, whose addresses every node is given
CLIENT_HOST = "10.255.0.1"
NODES_MAX = 1 << 20  # what 10.0.0.0/12 has addresses for

Node = RouterAlone | WholeNode
_Added = TypeVar("_Added", RouterAlone, WholeNode)


class Simulation:
    """What a scenario is given; see the README. `nodes` is how many were asked for, `members` those that were added."""

    def __init__(
        self, seed: int, nodes: int, *, link: Link, clock: VirtualClock, trace: Trace, nursery: trio.Nursery
    ) -> None:
        self.seed = seed
        self.nodes = nodes
        self.clock = clock
        self.trace = trace
        self.nursery = nursery
        self.checks = Checks(clock.current_time)
        self.members: list[Node] = []
        self.metrics = CollectorRegistry()  # of all routers alone
        self._streams: dict[str, Random] = {}
        self.world = MemoryWorld(self.random("world"), link=link, agenda=clock, observe=trace.observe)
        self.client_host = self.world.host(CLIENT_HOST)
        self.client = HttpClient(self.client_host, ClientOptions(dial_timeout_s=1.0))
        self._networks: dict[str, MemoryNetwork] = {}
        self.files = MemoryFiles()  # of all routers alone: what their bootstrap may be read from
        self._around = Surroundings(
            self.world, clock.current_time, nursery, self.random, self.files, RoutingMetrics(self.metrics)
        )

    # --- time and chance ---

    @property
    def now(self) -> float:
        """The virtual time in seconds."""
        return self.clock.current_time()

    def random(self, name: str) -> Random:
        """Return the stream of chance of this name; the same object each time."""
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = Random(f"{self.seed}/{name}")
        return stream

    def every(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` at this interval, outside any task, until the function that is returned is called."""
        state = {"on": True}

        def tick() -> None:
            if state["on"]:
                callback()
                self.clock.at(self.now + seconds, tick)

        self.clock.at(self.now + seconds, tick)
        return lambda: state.update(on=False)

    # --- nodes ---

    async def add_router(
        self,
        *,
        host: str | None = None,
        zone: str = "",
        bootstrap: str | None = None,
        seal: Seal | None = None,
        start: bool = True,
        **options: Any,
    ) -> RouterAlone:
        """Add a router alone; `bootstrap` is its setting ("" for none), the first three hosts unless given.

        `seal` is for its datagrams, where the cluster has a key; `options` are more of its `DhtOptions`. `host` may be
        that of a node that runs no more.
        Returns once it runs, or at once with `start` False.
        """
        number, where = self._next(host)
        setting = self.bootstrap if bootstrap is None else bootstrap
        node = RouterAlone(
            number, where, self._network(where), zone, self._around, setting=setting, seal=seal, options=options
        )
        return await self._added(node, start=start)

    async def add_node(
        self,
        *,
        host: str | None = None,
        zone: str = "",
        files: MemoryFiles | None = None,
        piece_sizes: PieceSizes | None = None,
        start: bool = True,
        **settings: Any,
    ) -> WholeNode:
        """Add a whole agent with these settings (as flags); `files` is its disk, an empty one unless given.

        Its store is none unless set; `store="oci-layout:/images"` is an empty layout. Else as `add_router`.
        """
        number, where = self._next(host)
        texts = {"bootstrap": self.bootstrap, **settings}
        node = WholeNode(
            number,
            where,
            self._network(where),
            zone,
            self._around,
            files=files or MemoryFiles(),
            settings=texts,
            piece_sizes=piece_sizes,
        )
        return await self._added(node, start=start)

    @property
    def bootstrap(self) -> str:
        """The setting that names the first three hosts."""
        hosts = (host_of(number) for number in range(min(BOOTSTRAP_HOSTS, self.nodes)))
        return "static:" + ",".join(f"{host}:{ROUTER_PORT}" for host in hosts)

    def alive(self) -> list[Node]:
        """Return the nodes whose processes run."""
        return [node for node in self.members if node.alive]

    def networks(self, numbers: Iterable[int]) -> list[MemoryNetwork]:
        """Return the hosts of the nodes of these numbers."""
        return [self.members[number].network for number in numbers]

    # --- questions over HTTP ---

    async def get(self, address: Address, target: str, *, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        """Ask an address from the client's host; return the status and the whole body. Raises `Unreachable`."""
        fields = {"Host": str(address), **{name.replace("_", "-"): value for name, value in headers.items()}}
        body = bytearray()
        async with self.client.request(address, method, target, fields) as response:
            while data := await response.read(1 << 16):
                body += data
            return response.status, bytes(body)

    async def get_json(self, address: Address, target: str) -> Any:
        """Ask an address for JSON. Raises `Unreachable`; ValueError when the status is not 200."""
        status, body = await self.get(address, target)
        if status != 200:
            raise ValueError(f"{address}{target} answered {status}")
        return json.loads(body)

    # ---

    def _next(self, host: str | None) -> tuple[int, str]:
        number = len(self.members)
        if number >= NODES_MAX:
            raise ValueError(f"a world has room for {NODES_MAX} nodes")
        return number, host or host_of(number)

    def _network(self, host: str) -> MemoryNetwork:
        if any(node.host == host and node.alive for node in self._at(host)):
            raise ValueError(f"a node runs on {host}")
        network = self._networks.get(host)
        if network is None:
            network = self._networks[host] = self.world.host(host)
        else:
            self.world.power_on(network)
        return network

    def _at(self, host: str) -> list[Node]:
        return [node for node in self.members if node.host == host] if host in self._networks else []

    async def _added(self, node: _Added, *, start: bool) -> _Added:
        self.members.append(node)
        if start:
            await node.start()
        return node


def host_of(number: int) -> str:
    """Return the host of the node of this number: 10.0.0.1 for node 0, and so on."""
    value = number + 1
    return f"10.{value >> 16}.{value >> 8 & 255}.{value & 255}"


class BugsEndTheRun(logging.Handler):
    """Takes what the agent logs: notes warnings in the trace, and ends the run at an error."""

    def __init__(self, clock: VirtualClock, trace: Trace) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        """Take one line."""
        text = record.getMessage()
        self._trace.note(f"{record.name} logs: {text}")
        if record.levelno < logging.ERROR:
            return
        violation = Violation("no line of the log tells of a bug", text, self._clock.current_time())
        if record.exc_info is not None:
            violation.__cause__ = record.exc_info[1]

        def end() -> None:
            raise violation

        self._clock.at(self._clock.current_time(), end)

"""Nodes that live in a simulated world: whole agents, and routers alone where thousands are wanted.

Laws: only production code runs in them; a node that is killed or loses its power runs no further line than its tasks'
cancellation, and nobody hears of that; what a node keeps on its disk outlives it, its id for one; every node tells the
others a monotonic clock, and reads a wall clock, that are its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from p2pmirror.config import load
from p2pmirror.node import Node
from p2pmirror.resolve.flight import PieceSizes
from p2pmirror.resolve.hashing import hashing_inline
from p2pmirror.rooms import Running, Seams
from p2pmirror.routing import bootstrap
from p2pmirror.routing.dht.codec import Seal
from p2pmirror.routing.dht.node import DhtOptions, DhtRouter
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.store.files import Files
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.store.ocilayout import LayoutWriter
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import BOOT_ID_BYTES
from p2pmirror.wire.identity import NODE_ID_BYTES, NodeId
from p2pmirror.wire.memory import MemoryNetwork, MemoryWorld

REGISTRY_PORT, ROUTER_PORT, PAGE_PORT = 29999, 29998, 9090  # DESIGN.md, "Ports and endpoints"
LAYOUT = Path("/images")
DATA = Path("/data")
UPTIME_S = 86_400.0, 30 * 86_400.0  # what monotonic clocks say in the beginning: hosts were booted on other days
EPOCH_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z, when every simulation begins
GRACE = "5s"  # a stop in order: nobody in a simulation downloads for longer after it was told to stop


@dataclass(frozen=True)
class Surroundings:
    """What a node is given by its simulation; `random` returns the stream of chance of a name."""

    world: MemoryWorld
    now: Callable[[], float]
    nursery: trio.Nursery
    random: Callable[[str], Random]
    files: Files  # of nodes without a disk of their own
    metrics: RoutingMetrics  # of all routers alone: counted together, since a registry each costs more than the router


@dataclass(slots=True)
class _Life:
    """From a start to its end."""

    stop: trio.Event = field(default_factory=trio.Event)
    began: trio.Event = field(default_factory=trio.Event)  # it says that it runs, or it never will
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)


class SimulatedNode(ABC):
    """One node: its host, its lives, its clocks. `kill` and `power_off` act at once, between two tasks' turns."""

    def __init__(self, number: int, host: str, network: MemoryNetwork, zone: str, around: Surroundings) -> None:
        self.number = number
        self.host = host
        self.network = network
        self.zone = zone
        self.clock_offset_s = 0.0  # of the monotonic clock that it tells others, besides what it began with
        self.wall_offset_s = 0.0  # of its wall clock
        self.boots = 0
        self.died_at: float | None = None  # virtual time of the last kill, power failure or stop
        self.is_on = True  # its host has power
        self._around = around
        self._booted_s = around.random(f"clock of node {number}").uniform(*UPTIME_S)
        self._life: _Life | None = None
        self._last: _Life | None = None

    @property
    @abstractmethod
    def node_id(self) -> NodeId:
        """Its id; it must have been started once."""

    @property
    @abstractmethod
    def router(self) -> DhtRouter:
        """The router of its present life, or of its last one. It must have been started once."""

    @property
    def address(self) -> Address:
        """Where its router is, or was, heard."""
        return Address(self.host, ROUTER_PORT)

    @property
    def registry(self) -> Address:
        """The address of its registry port, as the others are told it."""
        return Address(self.host, REGISTRY_PORT)

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._life is not None and not self._life.ended.is_set()

    @property
    def up(self) -> bool:
        """Whether its process runs and has its ports: it can be asked."""
        return self._life is not None and self._life.began.is_set() and not self._life.ended.is_set()

    def __str__(self) -> str:
        return f"node {self.number} ({self.host})"

    async def start(self) -> None:
        """Let it run; returns once it does, or died on the way. RuntimeError when it runs, or has no power."""
        if self.alive or not self.is_on:
            raise RuntimeError(f"{self} {'runs already' if self.alive else 'has no power'}")
        life = self._life = _Life()
        last, self._last = self._last, life
        if last is not None:
            await last.ended.wait()
        self.boots += 1
        self._around.nursery.start_soon(self._live, life)
        await life.began.wait()

    def kill(self) -> None:
        """End its process: the kernel closes its sockets."""
        self._around.world.kill(self.network)
        self._end()

    def power_off(self) -> None:
        """Cut its power: silence."""
        self._around.world.power_off(self.network)
        self.is_on = False
        self._end()

    def power_on(self) -> None:
        """Give its host power again; `start` lets the node run again."""
        self._around.world.power_on(self.network)
        self.is_on = True

    async def stop(self) -> None:
        """Stop it in order; returns once it has."""
        life = self._life
        if life is not None:
            life.stop.set()
            await life.ended.wait()
            if self._life is life:
                self._end()

    async def restart(self) -> None:
        """Stop it in order if it runs, power its host if that is off, and start it again with what is on its disk."""
        await self.stop()
        if self.alive:
            return  # somebody else started it meanwhile
        if not self.is_on:
            self.power_on()
        await self.start()

    async def while_alive(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Do what belongs to its present life; return whether it came to its end before that one did."""
        life, ended = self._life, False
        if life is None:
            return False
        async with trio.open_nursery() as nursery:

            async def end() -> None:
                await life.ended.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(end)
            await work()
            ended = True
            nursery.cancel_scope.cancel()
        return ended

    @abstractmethod
    async def _run(self, life: _Life) -> None:
        """Run one life, until its `stop` has been obeyed; say when it began."""

    async def _live(self, life: _Life) -> None:
        try:
            with life.scope:
                await self._run(life)
        finally:
            life.began.set()
            life.ended.set()

    def _end(self) -> None:
        if self._life is not None:
            self.died_at = self._around.now()
            self._life.scope.cancel()
            self._life = None

    def _clock_ms(self) -> int:
        return int((self._booted_s + self._around.now() + self.clock_offset_s) * 1000)

    def _wall_s(self) -> float:
        return EPOCH_S + self._around.now() + self.wall_offset_s


class RouterAlone(SimulatedNode):
    """A production `DhtRouter` and nothing else: the light node."""

    def __init__(
        self,
        number: int,
        host: str,
        network: MemoryNetwork,
        zone: str,
        around: Surroundings,
        *,
        setting: str,
        seal: Seal | None,
        options: Mapping[str, Any],
    ) -> None:
        """Give it `setting` as its `bootstrap`, a `seal` where there is a key, more `DhtOptions`; start nothing."""
        super().__init__(number, host, network, zone, around)
        self._random = around.random(f"node {number}")
        self._id = NodeId(self._random.randbytes(NODE_ID_BYTES))
        self._bootstrap = bootstrap.parse(setting).on(network, around.files, self._random) if setting else None
        self._seal = seal
        self._options = options
        self._router: DhtRouter | None = None

    @property
    def node_id(self) -> NodeId:
        """Its id."""
        return self._id

    @property
    def router(self) -> DhtRouter:
        """Its router."""
        assert self._router is not None, "it was never started"
        return self._router

    async def _run(self, life: _Life) -> None:
        options = DhtOptions(
            node_id=self._id,
            boot_id=self._random.randbytes(BOOT_ID_BYTES),
            listen=self.address,
            registry=self.registry,
            zone=self.zone,
            bootstrap=self._bootstrap,
            **self._options,
        )
        router = self._router = DhtRouter(
            options,
            self.network,
            random=self._random,
            metrics=self._around.metrics,
            seal=self._seal,
            clock_ms=self._clock_ms,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(router.run)
            life.began.set()
            await life.stop.wait()
            await router.leave()
            nursery.cancel_scope.cancel()


class WholeNode(SimulatedNode):
    """A production `Node`: all rooms, on a disk in memory, with ports that answer HTTP."""

    def __init__(
        self,
        number: int,
        host: str,
        network: MemoryNetwork,
        zone: str,
        around: Surroundings,
        *,
        files: MemoryFiles,
        settings: dict[str, Any],
        piece_sizes: PieceSizes | None = None,
    ) -> None:
        """Take `settings` as flags, in place of those that a simulation gives by itself; start nothing."""
        super().__init__(number, host, network, zone, around)
        self._piece_sizes = piece_sizes or PieceSizes()
        self.files = files
        self._settings = {"store": "none", "data_dir": str(DATA), "shutdown_grace": GRACE, "zone": zone, **settings}
        self._random = around.random(f"node {number}")
        self._node: _NodeWithRouter | None = None
        self._running: Running | None = None
        self._metrics = CollectorRegistry()

    @property
    def node_id(self) -> NodeId:
        """Its id."""
        assert self._running is not None, "it was never started"
        return self._running.node_id

    @property
    def router(self) -> DhtRouter:
        """Its router."""
        assert self._node is not None, "it was never started"
        assert self._node.router is not None, "it was never started"
        return self._node.router

    def counted(self, metric: str) -> float:
        """Return what its present life has counted under this name, without labels. Raises `KeyError`: no such."""
        value = self._metrics.get_sample_value(metric)
        if value is None:
            raise KeyError(metric)
        return value

    @property
    def page(self) -> Address:
        """The address of its observability port."""
        return Address(self.host, PAGE_PORT)

    def power_on(self) -> None:
        """Give its host power again; what was not put on the disk is lost or torn."""
        super().power_on()
        self.files.crash(self._random)

    async def _run(self, life: _Life) -> None:
        if self._settings["store"] == f"oci-layout:{LAYOUT}" and self.boots == 1:
            await LayoutWriter(LAYOUT, self.files).prepare()
        self._metrics = CollectorRegistry()
        seams = Seams(
            self.network,
            self.files,
            self._random,
            hashing_inline,
            self._metrics,
            clock_ms=self._clock_ms,
            wall_s=self._wall_s,
            piece_sizes=self._piece_sizes,
        )
        node = self._node = _NodeWithRouter(load({}, self._settings), seams)
        async with trio.open_nursery() as nursery:
            self._running = await nursery.start(node.run, life.stop)
            life.began.set()


class _NodeWithRouter(Node):
    """A `Node` that shows its router."""

    router: DhtRouter | None = None

    def _router(self, *args: Any, **keywords: Any) -> DhtRouter:
        router = self.router = super()._router(*args, **keywords)
        return router

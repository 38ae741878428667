"""Real datagrams of a small cluster, what can be made of them, and a running router that takes them in.

Laws: one seed is one run; what is made is told apart by how it came to be, so that a failing case names its parent.
"""

from collections.abc import Iterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec
import trio
from prometheus_client import CollectorRegistry

from p2pmirror.routing.bootstrap import parse
from p2pmirror.routing.dht.codec import NullSeal, Seal
from p2pmirror.routing.dht.messages import Malformed
from p2pmirror.routing.dht.node import DhtOptions, DhtRouter
from p2pmirror.routing.dht.seal import KeyedSeal
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.routing.protocol import Offer
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import UNBOUND, Binding
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.keyring import KeyRing
from p2pmirror.wire.memory import Link, MemoryWorld
from tests.hostile.mutation import LENGTHS, NOT_FINITE, NUMBERS, bytes_changed, part_changed
from tests.routing.conformance import claim, find_all, key

HOSTS = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
PORT = 29998
KEY = bytes(range(32))
EDGES: tuple[Any, ...] = (
    *NUMBERS,
    *NOT_FINITE,
    "",
    "\u0000",
    "z" * 64,
    b"",
    bytes(6),
    bytes(8),
    bytes(18),
    bytes(20),
    b"\xff" * 6,
    b"\x7f\x00\x00\x01\x75\x2e",
    b"\xff" * 20,
    [],
    [[]],
    {},
)
"""Values at which something begins or ends; each may come in place of any part of a datagram."""


class Target:
    """The first of four routers: what it is sent, by whom, and what it sends in that moment."""

    def __init__(self, world: MemoryWorld, routers: list[DhtRouter], seal: Seal) -> None:
        self.world = world
        self.routers = routers
        self.router = routers[0]
        self.seal = seal
        self.sent: list[tuple[bytes, Address]] = []  # while something is handed in
        self._carry = world.carry
        world.carry = self._tapped  # type: ignore[method-assign]
        self.port: Any = self.router._running.datagrams  # type: ignore[union-attr]
        self.rpc = self.router._running.rpc  # type: ignore[union-attr]

    def _tapped(self, data: bytes, source: Address, home: Any, to: Address) -> None:
        if source == self.port.address:
            self.sent.append((data, to))
        self._carry(data, source, home, to)

    def hand_in(self, datagram: bytes, source: Address) -> list[tuple[bytes, Address]]:
        """Hand in a datagram; return what was sent in that moment. Raises what the router raises."""
        self.sent.clear()
        self.port.arrive(datagram, source, self.port.address)
        if self.port._failure is not None:
            raise self.port._failure
        return list(self.sent)

    def sealed(self, payload: bytes) -> bytes:
        """Seal a payload as a member does that knows this router."""
        binding = Binding(self.rpc._boot_id, self.rpc.clock_ms()) if self.seal.binds else UNBOUND
        return self.seal.seal(payload, binding)

    def in_place(self, payload: bytes, source: Address, random: Random) -> tuple[bytes, Address]:
        """Return the payload as a proven sender's: with the right cookie, or as the answer to a question under way."""
        try:
            message: Any = msgspec.msgpack.decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return payload, source
        if not isinstance(message, list) or len(message) < 4:
            return payload, source
        if message[0] == "q":
            message[3] = self.rpc._cookie_for(source)
        elif message[0] == "r" and (pending := list(self.rpc._pending.values())):
            asked = random.choice(pending)
            message[1], source = asked.request.id, asked.to
            message[2] = asked.expected or message[2]
        try:
            return msgspec.msgpack.encode(message), source
        except (msgspec.MsgspecError, ValueError, OverflowError):
            return payload, source


@asynccontextmanager
async def cluster(*, keyed: bool, seed: int = 1) -> Any:
    """Run four routers that have met; yield them with all datagrams so far, a list that grows."""
    random = Random(seed)
    captured: list[bytes] = []
    world = MemoryWorld(
        Random(seed + 1),
        link=Link(latency_s=0.0002),
        observe=lambda _kind, _now, _from, _to, data: captured.append(data),
    )
    seal: Seal = KeyedSeal(KeyRing([KEY])) if keyed else NullSeal()
    routers = []
    async with trio.open_nursery() as nursery:
        for number, host in enumerate(HOSTS):
            network = world.host(host)
            options = DhtOptions(
                NodeId(random.randbytes(20)),
                random.randbytes(8),
                Address(host, PORT),
                Address(host, 29999),
                "zone",
                parse(f"static:{HOSTS[0]},{HOSTS[1]}").on(network, MemoryFiles(), Random(seed)),
            )
            metrics = RoutingMetrics(CollectorRegistry())
            routers.append(DhtRouter(options, network, random=Random(seed + number), metrics=metrics, seal=seal))
            await nursery.start(routers[-1].run)
        with trio.fail_after(30):
            while not all(len(router.members()) == len(HOSTS) - 1 for router in routers):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.1)
        yield Target(world, routers, seal), captured
        nursery.cancel_scope.cancel()


async def live(target: Target) -> None:
    """Do all that makes routers talk, but for dying."""
    for number, router in enumerate(target.routers):
        router.advertise({key(10 * number + each): Offer(tag=claim(each) if each % 2 else None) for each in range(5)})
    await trio.sleep(1)
    for number, router in enumerate(target.routers):
        for each in range(0, 40, 7):
            await find_all(router, key(each + number))
        await router.trace(key(number))
    for number, router in enumerate(target.routers):
        for each in range(6):
            await router.want(key(100 + each))
            if each % 4 == number:
                router.report(key(100 + each), 1 << 20)
        if number == 2:
            router.resign(key(102))
    target.routers[3].failed(target.routers[2].node_id)
    target.routers[1].withdraw([key(10)])
    await trio.sleep(20)


def mutants(captured: list[bytes], seal: Seal, random: Random) -> Iterator[tuple[str, bytes, bool]]:
    """Make datagrams without end: how, the bytes, and whether they are payloads that are yet to be sealed."""
    payloads = []
    for datagram in captured:
        try:
            payloads.append(seal.open(datagram)[0])
        except Malformed:
            continue
    while True:
        one, other = random.choice(captured), random.choice(captured)
        if random.random() < 0.4:
            yield (*bytes_changed(one, other, random, LENGTHS), False)
            continue
        one, other = random.choice(payloads), random.choice(payloads)
        if random.random() < 0.2:
            yield (*bytes_changed(one, other, random, LENGTHS), True)
        else:
            yield "part", _part_changed(one, other, random), True


def _part_changed(payload: bytes, other: bytes, random: Random) -> bytes:
    message: Any = msgspec.msgpack.decode(payload)
    try:
        return msgspec.msgpack.encode(part_changed(message, [msgspec.msgpack.decode(other)], random, EDGES))
    except OverflowError:
        return payload

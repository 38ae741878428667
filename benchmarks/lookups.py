"""Lookups among 30 routers in this process, over real sockets on loopback."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import trio
from prometheus_client import CollectorRegistry

from benchmarks.processes import undisturbed
from benchmarks.rows import Budget, Row
from benchmarks.stage import Stage
from p2pmirror.oci import Digest
from p2pmirror.routing import bootstrap
from p2pmirror.routing.dht.node import DhtOptions, DhtRouter
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.routing.protocol import Key, Offer, key_of
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.wire.address import Address
from p2pmirror.wire.hosts import HostNetwork
from p2pmirror.wire.identity import NODE_ID_BYTES, NodeId

NODES = 30
KEYS = 300  # each held by one node
FIRST_PORT = 29600
SETTLE_S = 2.0  # within this everybody knows everybody, and what was advertised is found
JOIN_S = 10.0


@dataclass
class Measured:
    """Seconds to the first provider, to the end, of lookups that found nobody; processor time of all nodes."""

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    nobody: list[float] = field(default_factory=list)
    cpu: float = 0.0
    not_found: int = 0
    strangers: int = 0  # routers that did not know all others within JOIN_S


def lookup(stage: Stage) -> list[Row]:
    """Look up keys that one node has, from random others, one after another."""
    with undisturbed() as is_first:  # what other work on the machine costs is not what is asked here
        measured = trio.run(_measure, stage.scale.lookups, stage.scale.settle_s)
    count = stage.scale.lookups
    note = f"{count} lookups of {KEYS} keys, {NODES} routers in one process; {measured.not_found} found nobody"
    note += ", before all other work" if is_first else ""
    if measured.strangers:
        note += f"; {measured.strangers} routers did not know all others {JOIN_S:g} s after they started together"
    cpu_note = "all routers together, less what they cost at rest"
    p99 = _quantile(measured.first, 0.99)
    return [
        Row("lookup, first provider, p50", "ms", _quantile(measured.first, 0.5), note=note),
        Row("lookup, first provider, p99", "ms", p99, budget=Budget("<=", 3)),
        Row("lookup, to its end, p99", "ms", _quantile(measured.whole, 0.99)),
        Row("lookup of a key that nobody has, p99", "ms", _quantile(measured.nobody, 0.99)),
        Row("CPU of a lookup", "ms", measured.cpu / count * 1000, budget=Budget("<=", 0.5), note=cpu_note),
    ]


async def _measure(count: int, rest_s: float) -> Measured:
    random = Random(1)
    measured = Measured()
    async with trio.open_nursery() as nursery:
        routers = [_router(number, random) for number in range(NODES)]
        for router in routers:
            await nursery.start(router.run)
        await _wait_for_members(routers, measured)
        keys = _advertise(routers)
        await trio.sleep(SETTLE_S)
        at_rest = await _cpu_share_at_rest(rest_s)
        asked = [(random.randrange(KEYS), random.randrange(1, NODES)) for _ in range(count)]
        cpu, began = time.process_time(), time.perf_counter()
        for number, distance in asked:  # whoever asks is not the one who has it
            await _look_up(routers[(number + distance) % NODES], keys[number], measured)
        measured.cpu = time.process_time() - cpu - at_rest * (time.perf_counter() - began)
        for number in range(count // 10):
            before = time.perf_counter()
            async with routers[number % NODES].find(key_of(Digest.of(b"nobody %d" % number))) as providers:
                async for _ in providers:
                    measured.not_found -= 1  # there is nobody to find
            measured.nobody.append(time.perf_counter() - before)
        nursery.cancel_scope.cancel()
    return measured


async def _wait_for_members(routers: Sequence[DhtRouter], measured: Measured) -> None:
    with trio.move_on_after(JOIN_S):
        while True:
            measured.strangers = sum(len(router.members()) < NODES - 1 for router in routers)
            if not measured.strangers:
                return
            await trio.sleep(0.05)


async def _look_up(router: DhtRouter, key: Key, measured: Measured) -> None:
    before = time.perf_counter()
    first = None
    async with router.find(key) as providers:
        async for _ in providers:
            first = first or time.perf_counter()
    measured.whole.append(time.perf_counter() - before)
    if first is None:
        measured.not_found += 1
    else:
        measured.first.append(first - before)


async def _cpu_share_at_rest(seconds: float) -> float:
    cpu, began = time.process_time(), time.perf_counter()
    await trio.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - began)


def _router(number: int, random: Random) -> DhtRouter:
    options = DhtOptions(
        node_id=NodeId(random.randbytes(NODE_ID_BYTES)),
        boot_id=random.randbytes(8),
        listen=Address("127.0.0.1", FIRST_PORT + number),
        registry=Address("127.0.0.1", FIRST_PORT + NODES + number),
        bootstrap=bootstrap.parse(f"static:127.0.0.1:{FIRST_PORT}").on(HostNetwork(), HostFiles(), random),
    )
    return DhtRouter(options, HostNetwork(), random=random, metrics=RoutingMetrics(CollectorRegistry()))


def _advertise(routers: Sequence[DhtRouter]) -> list[Key]:
    keys = [key_of(Digest.of(b"content %d" % number)) for number in range(KEYS)]
    for number, router in enumerate(routers):
        router.advertise({key: Offer() for key in keys[number::NODES]})  # key n is held by router n mod 30
    return keys


def _quantile(seconds: list[float], part: float) -> float | None:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000 if ordered else None

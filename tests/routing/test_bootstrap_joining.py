"""Nodes find one another through bootstraps that are mostly wrong, and ask little of those who are not meant."""

from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry

from p2pmirror.routing.bootstrap import parse
from p2pmirror.routing.dht.node import DhtOptions, DhtRouter
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.memory import Link, MemoryWorld
from p2pmirror.wire.network import Datagrams

ROUTER_PORT = 29998
KNOCKS_PER_S_MAX = 112  # of a node: 32 at a time, thrice in a second each, and others in place of 15 that answer sooner


class Cluster:
    """Nodes in one world that all have the same `bootstrap`, and files with the same content."""

    def __init__(self, nursery: trio.Nursery, bootstrap: str) -> None:
        self.sent: list[tuple[float, Address]] = []
        self.world = MemoryWorld(Random(1), link=Link(latency_s=0.001), observe=self._observe)
        self.files = MemoryFiles()
        self.routers: list[DhtRouter] = []
        self._nursery = nursery
        self._bootstrap = bootstrap
        self._random = Random(2)

    def _observe(self, kind: str, now: float, source: Address, target: Address, data: bytes) -> None:
        self.sent.append((now, target))

    async def add(self, host: str) -> DhtRouter:
        """Start a node."""
        network = self.world.host(host)
        options = DhtOptions(
            NodeId(self._random.randbytes(20)),
            self._random.randbytes(8),
            Address(host, ROUTER_PORT),
            Address(host, 29999),
            bootstrap=parse(self._bootstrap).on(network, self.files, self._random),
        )
        router = DhtRouter(options, network, random=self._random, metrics=RoutingMetrics(CollectorRegistry()))
        await self._nursery.start(router.run)
        self.routers.append(router)
        return router

    async def other_service(self, host: str) -> None:
        """Add a host whose router port answers each datagram with another, which is none of ours."""
        port = await self.world.host(host).open_datagrams(Address(host, ROUTER_PORT))

        async def answer(port: Datagrams) -> None:
            await port.deliver(lambda data, source: port.send(data[::-1] + b"?", source))

        self._nursery.start_soon(answer, port)

    async def silent(self, *hosts: str) -> list[float]:
        """Add a host with these addresses that takes datagrams and says nothing; return when they come, as they do."""
        port = await self.world.host(*hosts).open_datagrams(Address("0.0.0.0", ROUTER_PORT))
        times: list[float] = []

        def take(data: bytes, source: Address) -> None:
            times.append(trio.current_time())

        self._nursery.start_soon(port.deliver, take)
        return times

    async def until_whole(self, limit_s: float) -> None:
        """Wait until everybody knows everybody."""
        with trio.fail_after(limit_s):
            while any(_alive(router) < len(self.routers) - 1 for router in self.routers):  # noqa: ASYNC110 - see below
                await trio.sleep(0.1)  # a router tells nobody when it knows somebody


def _alive(router: DhtRouter) -> int:
    return sum(member.state == "alive" for member in router.members())


@asynccontextmanager
async def cluster(bootstrap: str) -> AsyncIterator[Cluster]:
    async with trio.open_nursery() as nursery:
        yield Cluster(nursery, bootstrap)
        nursery.cancel_scope.cancel()


async def test_a_name_of_thousands_most_of_whom_are_gone(autojump_clock: Any) -> None:
    """Three nodes behind a name with 1,500 addresses, their own among them, meet, without a burst at any time."""
    async with cluster("dns:pods") as nodes:
        live = ["10.200.0.1", "10.200.0.2", "10.200.0.3"]
        stale = [f"10.0.{number // 250}.{number % 250}" for number in range(1500)]
        for host in stale[::100]:
            await nodes.other_service(host)  # some of the addresses belong to somebody else by now
        asked = await nodes.silent(*(host for host in stale if host not in stale[::100]))
        nodes.world.names["pods"] = [*stale, *live]
        for host in live:
            await nodes.add(host)
        await nodes.until_whole(3000)
        busiest = max(bisect_left(asked, start + 1) - index for index, start in enumerate(asked))
        assert 30 < busiest <= len(live) * KNOCKS_PER_S_MAX


@pytest.mark.parametrize("bootstrap", ["static:10.0.0.1", "dns:self", "file:/etc/peers"])
async def test_a_node_that_finds_itself_is_alone(bootstrap: str, autojump_clock: Any) -> None:
    """A bootstrap that names this node and nobody else makes a cluster of one, which asks itself ever less often."""
    async with cluster(bootstrap) as nodes:
        nodes.world.names["self"] = ["10.0.0.1", "127.0.0.1"]
        nodes.files.put(Path("/etc/peers"), b"10.0.0.1\nself\n")
        router = await nodes.add("10.0.0.1")
        await trio.sleep(5)
        assert router.joined
        assert router.members() == []
        nodes.sent.clear()
        await trio.sleep(300)
        assert router.members() == []
        assert len(nodes.sent) < 300


async def test_a_service_with_new_pods_joins_two_halves(autojump_clock: Any) -> None:
    """Two clusters under one name, each of which knew only itself, are one some time after the name has both."""
    async with cluster("dns:pods") as nodes:
        for half in (1, 2):
            nodes.world.names["pods"] = [f"10.0.{half}.1"]
            for number in (1, 2):
                await nodes.add(f"10.0.{half}.{number}")
            await trio.sleep(3)
        assert [_alive(router) for router in nodes.routers] == [1, 1, 1, 1]
        nodes.world.names["pods"] = ["10.0.1.1", "10.0.2.1"]
        await nodes.until_whole(90)


async def test_a_file_that_is_written_later_is_followed(autojump_clock: Any) -> None:
    """Nodes that are a cluster already meet others within seconds when the file names them."""
    async with cluster("file:/etc/peers") as nodes:
        for half in (1, 2):
            nodes.files.put(Path("/etc/peers"), f"10.0.{half}.1\n".encode())
            for number in (1, 2):
                await nodes.add(f"10.0.{half}.{number}")
            await trio.sleep(1)
        nodes.files.put(Path("/etc/peers"), b"10.0.2.1\n")
        await nodes.until_whole(15)

"""Which addresses a node dials: those of members that answer, and never one that a request or a dead record names."""

from random import Random
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry

from p2pmirror.oci import Digest
from p2pmirror.routing.bootstrap import parse
from p2pmirror.routing.dht.answers import Answers
from p2pmirror.routing.dht.messages import COMPLETE, Found, Providers, Request, pack_address
from p2pmirror.routing.dht.node import DhtOptions, DhtRouter
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.routing.protocol import Key, Offer, key_of
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.memory import MemoryNetwork
from tests.node.cluster import DEATH_S, NEWS_S, REGISTRY_PORT, ROUTER_PORT, Cluster, cluster

TRAP, LIAR = "10.66.0.1", "10.66.0.2"
TRAP_NAME = "trap.example"
PORTS = (80, 443, 5000, REGISTRY_PORT)
DIGEST = Digest.of(b"nobody has it")
ADDRESSES = (TRAP, f"{TRAP}:5000", f"{TRAP}:{REGISTRY_PORT}", TRAP_NAME, f"{TRAP_NAME}:443", "[::ffff:10.66.0.1]:80")


class Trap:
    """A host that listens wherever somebody might knock, and counts who does; also who asks for its name."""

    def __init__(self, whole: Cluster, nursery: trio.Nursery) -> None:
        self.dials = 0
        self.pings = 0
        self._network = whole.world.host(TRAP)
        self._nursery = nursery
        whole.world.names[TRAP_NAME] = [TRAP]

    async def listen(self) -> None:
        """Listen on every port."""
        for port in PORTS:
            self._nursery.start_soon(self._accept, await self._network.listen(Address(TRAP, port)))
        datagrams = await self._network.open_datagrams(Address(TRAP, ROUTER_PORT))
        self._nursery.start_soon(datagrams.deliver, self._heard)

    async def _accept(self, listener: Any) -> None:
        while True:
            stream = await listener.accept()
            self.dials += 1
            await stream.aclose()

    def _heard(self, _data: bytes, _source: Address) -> None:
        self.pings += 1


async def test_ns_is_never_dialled(autojump_clock: Any) -> None:
    """Whatever address or name `ns` says, for whatever is asked, nobody knocks there: it is a name to look up."""
    async with cluster(2) as nodes, trio.open_nursery() as nursery:
        trap = Trap(nodes, nursery)
        await trap.listen()
        for ns in ADDRESSES:
            for path in (
                f"blobs/{DIGEST}",
                f"manifests/{DIGEST}",
                "manifests/latest",
                "tags/list",
                f"referrers/{DIGEST}",
            ):
                for method in ("GET", "HEAD"):
                    answer = await nodes.get(nodes.members[0], f"/v2/app/{path}", ns=ns, method=method)
                    assert answer.status in (400, 404), (ns, path, answer.status)
            await nodes.page(nodes.members[0], f"/api/v1/find?ref={ns}/app:latest")
        await trio.sleep(10)
        assert (trap.dials, trap.pings) == (0, 0)
        stream = await nodes.client_host.connect(Address(TRAP, 5000))  # the trap works
        await trio.sleep(1)
        await stream.aclose()
        assert trap.dials == 1
        nursery.cancel_scope.cancel()


async def test_a_record_of_somebody_silent_is_never_dialled(autojump_clock: Any) -> None:
    """What a record names is dialled as long as its member answers pings, and never once it does not."""
    async with cluster(3) as nodes, trio.open_nursery() as nursery:
        trap = Trap(nodes, nursery)
        await trap.listen()
        liar_host = nodes.world.host(LIAR)
        router = liar(liar_host)
        await nursery.start(router.run)
        await trio.sleep(NEWS_S)
        router.advertise({key_of(DIGEST): Offer()})
        await trio.sleep(NEWS_S)
        assert router.node_id.hex() in await nodes.knows(nodes.members[0], DIGEST)
        nodes.world.power_off(liar_host)
        await trio.sleep(DEATH_S)
        for member in nodes.members:
            assert (await nodes.get(member, f"/v2/app/blobs/{DIGEST}")).status == 404
        assert trap.dials == 0
        nursery.cancel_scope.cancel()


async def test_an_invented_record_is_never_dialled(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder that names providers where none are has them pinged, and nobody asks them for anything."""
    lies = 0
    honest = Answers._providers

    def lie(self: Answers, request: Request, source: Address, key: Key, zone: str) -> Providers:
        nonlocal lies
        if self._view.own_id != router.node_id:
            return honest(self, request, source, key, zone)
        lies += 1
        trap_router, trap_registry = (pack_address(Address(TRAP, port)) for port in (ROUTER_PORT, REGISTRY_PORT))
        member = pack_address(Address(nodes.members[1].host, ROUTER_PORT))
        real = NodeId(bytes.fromhex(nodes.members[1].id))
        named = ((NodeId(b"x" * 20), trap_router), (NodeId(b"y" * 20), member), (real, trap_router))
        return Providers(True, tuple(Found(who, at, trap_registry, "", COMPLETE, 600, None) for who, at in named), ())

    monkeypatch.setattr(Answers, "_providers", lie)
    async with cluster(3) as nodes, trio.open_nursery() as nursery:
        trap = Trap(nodes, nursery)
        await trap.listen()
        router = liar(nodes.world.host(LIAR))
        await nursery.start(router.run)
        await trio.sleep(NEWS_S)
        for number in range(20):
            digest = Digest.of(b"%d" % number)
            for member in nodes.members:
                answer = await nodes.get(member, f"/v2/app/blobs/{digest}")
                assert answer.status == 404
        assert lies > 20
        assert trap.pings > 0
        assert trap.dials == 0
        nursery.cancel_scope.cancel()


def liar(network: MemoryNetwork) -> DhtRouter:
    """Build a member that says that its registry is where the trap is."""
    random = Random(5)
    options = DhtOptions(
        node_id=NodeId(random.randbytes(20)),
        boot_id=random.randbytes(8),
        listen=Address(LIAR, ROUTER_PORT),
        registry=Address(TRAP, REGISTRY_PORT),
        zone="",
        bootstrap=parse(f"static:10.0.0.1:{ROUTER_PORT}").on(network, MemoryFiles(), random),
    )
    return DhtRouter(options, network, random=random, metrics=RoutingMetrics(CollectorRegistry()))

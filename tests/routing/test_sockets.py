"""Five routers on real sockets of this machine find, withdraw, leave and die as they do in the simulation."""

from collections.abc import Awaitable, Callable
from random import Random

import trio
from prometheus_client import CollectorRegistry

from p2pmirror.routing.bootstrap import parse
from p2pmirror.routing.dht.node import DhtOptions, DhtRouter
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.routing.protocol import Offer
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.wire.address import Address
from p2pmirror.wire.hosts import HostNetwork
from p2pmirror.wire.identity import NodeId
from tests.routing.conformance import find_all, ids, key


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(30):
        while not await condition():  # noqa: ASYNC110 - a router tells nobody when it knows somebody
            await trio.sleep(0.02)


async def test_five_nodes_on_loopback() -> None:
    """Advertised is found, withdrawn is not, and who left is no provider any more."""
    random = Random(1)
    routers: list[DhtRouter] = []
    async with trio.open_nursery() as nursery:
        for number in range(5):
            setting = parse(f"static:{routers[0].address}") if routers else None
            options = DhtOptions(
                NodeId(random.randbytes(20)),
                random.randbytes(8),
                Address("127.0.0.1", 0),
                Address("127.0.0.1", 40000 + number),
                bootstrap=setting.on(HostNetwork(), HostFiles(), random) if setting is not None else None,
            )
            router = DhtRouter(options, HostNetwork(), random=random, metrics=RoutingMetrics(CollectorRegistry()))
            await nursery.start(router.run)
            routers.append(router)

        async def all_know_all() -> bool:
            return all(router.joined and len(router.members()) == 4 for router in routers)

        async def is_found() -> bool:
            return await ids(routers[4], key(1)) == {routers[0].node_id, routers[1].node_id}

        async def is_withdrawn() -> bool:
            return await ids(routers[4], key(1)) == {routers[1].node_id}

        await until(all_know_all)
        for router in routers[:2]:
            router.advertise({key(1): Offer()})
        await until(is_found)
        routers[0].withdraw([key(1)])
        await until(is_withdrawn)
        await routers[1].leave()
        assert await find_all(routers[4], key(1)) == []
        nursery.cancel_scope.cancel()

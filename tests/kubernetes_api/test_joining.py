"""Nodes find one another by the endpoints of their service, whenever their pods start and whoever names them when."""

from __future__ import annotations

from random import Random
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from p2pmirror.routing.bootstrap import KubernetesSetting, parse
from p2pmirror.routing.bootstrap.kubernetes import GATHER_S
from p2pmirror.routing.dht.node import DhtOptions, DhtRouter
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from tests.kubernetes_api.certificates import Certificate
from tests.kubernetes_api.setting import SERVICE, Pod, pod


async def start(place: Pod, nursery: trio.Nursery, host: str) -> DhtRouter:
    """Start a node of its own host, whose API is that of `place`."""
    setting = parse(SERVICE)
    assert isinstance(setting, KubernetesSetting)
    network, random = place.world.host(host), Random(host)
    options = DhtOptions(
        NodeId(random.randbytes(20)),
        random.randbytes(8),
        Address(host, 29998),
        Address(host, 29999),
        bootstrap=setting.within(place.environ).on(network, place.files, random),
    )
    router = DhtRouter(options, network, random=random, metrics=RoutingMetrics(CollectorRegistry()))
    await nursery.start(router.run)
    return router


async def until_whole(routers: list[DhtRouter], limit_s: float) -> None:
    with trio.fail_after(limit_s):
        while any(alive(router) < len(routers) - 1 for router in routers):  # noqa: ASYNC110 - nobody is told of it
            await trio.sleep(0.1)


def alive(router: DhtRouter) -> int:
    return sum(member.state == "alive" for member in router.members())


async def test_pods_that_start_together_and_are_not_ready(certificate: Certificate, autojump_clock: Any) -> None:
    """Each pod's address is named when it has one, none of them ready: within seconds everybody knows everybody."""
    async with pod(certificate) as place, trio.open_nursery() as nursery:
        hosts = [f"10.0.0.{number}" for number in range(1, 7)]
        routers = []
        for count, host in enumerate(hosts, 1):
            place.api.put("p2pmirror-1", hosts[:count])
            routers.append(await start(place, nursery, host))
        await until_whole(routers, limit_s=10)
        asked = len(place.api.asked)
        await trio.sleep(30)
        assert len(place.api.lists()) <= 3 * len(hosts), "a list at the start, or a few while it was alone"
        assert place.api.watches() == len(hosts)
        assert len(place.api.asked) - asked <= len(hosts), "what is new is told once: one watch more for each"
        nursery.cancel_scope.cancel()


async def test_two_halves_that_are_named_late_become_one(certificate: Certificate, autojump_clock: Any) -> None:
    """Clusters that did not know of one another meet when the service names both, without anybody being alone."""
    async with pod(certificate) as place, trio.open_nursery() as nursery:
        routers = []
        for half in (1, 2):
            place.api.put("p2pmirror-1", [f"10.0.{half}.1", f"10.0.{half}.2"])
            routers += [await start(place, nursery, f"10.0.{half}.{number}") for number in (1, 2)]
            await trio.sleep(0.5)
            if half == 1:
                place.api.may = set()  # so that the first half is not told of the second
                place.api.break_watches()
                await trio.sleep(0.1)
                place.api.may = {"list"}
        assert [alive(router) for router in routers] == [1, 1, 1, 1]
        place.api.may = {"list", "watch"}
        place.api.put("p2pmirror-1", [f"10.0.{half}.{number}" for half in (1, 2) for number in (1, 2)])
        await until_whole(routers, limit_s=75 + 2 * GATHER_S)
        nursery.cancel_scope.cancel()

"""The memory twin keeps every router's promises, and a few of its own."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from p2pmirror.routing.memory import MemoryRouters
from p2pmirror.routing.protocol import Offer, Provider
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import UNBOUND
from p2pmirror.wire.identity import NodeId
from tests.routing.conformance import Cluster, RouterConformance, find_all, ids, key
from tests.routing.leading import LeaderConformance


def node_id(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


@asynccontextmanager
async def memory_cluster(
    count: int, zones: list[str] | None = None, *, seeds: Sequence[int] = ()
) -> AsyncIterator[Cluster]:
    world = MemoryRouters()
    addresses = [Address.of(f"10.0.0.{number + 1}", 29999) for number in range(count)]
    zones = zones or [""] * count
    routers = [world.router(node_id(n), addresses[n], zones[n], seed=n in seeds) for n in range(count)]
    yield Cluster(list(routers), addresses, lambda number: world.kill(routers[number].node_id), zones)


class TestMemoryRouter(RouterConformance, LeaderConformance):
    def cluster(self, count: int, zones: list[str] | None = None, *, seeds: Sequence[int] = ()) -> Any:
        return memory_cluster(count, zones, seeds=seeds)


async def test_what_was_only_said_is_found_until_it_is_unsaid(autojump_clock: Any) -> None:
    """A provider without a router (a liar, say) is handed out as it was put."""
    world = MemoryRouters()
    router = world.router(node_id(1), Address.of("10.0.0.1", 29999))
    liar = Provider(node_id(9), Address.of("10.0.0.9", 29999), complete=False)
    world.say(key(1), liar)
    assert await find_all(router, key(1)) == [liar]
    world.unsay(key(1), liar.node_id)
    assert await find_all(router, key(1)) == []


async def test_providers_come_after_the_latency_that_was_asked_for(autojump_clock: Any) -> None:
    """A lookup takes the time that the world was given for it."""
    world = MemoryRouters(find_latency_s=0.5)
    router = world.router(node_id(1), Address.of("10.0.0.1", 29999))
    world.router(node_id(2), Address.of("10.0.0.2", 29999)).advertise({key(1): Offer()})
    start = trio.current_time()
    assert len(await find_all(router, key(1))) == 1
    assert trio.current_time() - start == 0.5


async def test_a_revived_node_is_found_again(autojump_clock: Any) -> None:
    """A killed node that is revived is handed out with what it had said."""
    world = MemoryRouters(noticed_after_s=0.0)
    router = world.router(node_id(1), Address.of("10.0.0.1", 29999))
    world.router(node_id(2), Address.of("10.0.0.2", 29999)).advertise({key(1): Offer()})
    world.kill(node_id(2))
    assert await ids(router, key(1)) == set()
    world.revive(node_id(2))
    assert await ids(router, key(1)) == {node_id(2)}


async def test_a_trace_is_one_step_of_the_asker_itself(autojump_clock: Any) -> None:
    """The way of a look-up in this world: the node reads the world's records, which takes the world's time."""
    world = MemoryRouters(find_latency_s=0.5)
    router = world.router(node_id(1), Address.of("10.0.0.1", 29999))
    world.router(node_id(2), Address.of("10.0.0.2", 29999)).advertise({key(1): Offer()})
    trace = await router.trace(key(1))
    assert (trace.key, trace.seconds, trace.holders) == (key(1), 0.5, (router.node_id,))
    (step,) = trace.steps
    assert (step.node_id, step.hop, step.answered_s, step.records, step.closer) == (router.node_id, 0, 0.5, 1, 0)
    assert router.binding(node_id(2)) == UNBOUND

"""The DHT keeps every router's promises, in a simulated network and with lost and doubled datagrams."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry

from p2pmirror.routing.bootstrap import parse
from p2pmirror.routing.dht.codec import NullSeal, decode, encode
from p2pmirror.routing.dht.messages import (
    Challenge,
    Contact,
    DialFailed,
    FindNode,
    FindProviders,
    Goodbye,
    Knock,
    Led,
    MembersAfter,
    NodeInfo,
    Noted,
    Ping,
    PingThrough,
    Reply,
    Report,
    Request,
    Resign,
    Store,
    Want,
    pack_address,
)
from p2pmirror.routing.dht.node import DhtOptions, DhtRouter
from p2pmirror.routing.dht.table import distance
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.routing.protocol import Offer, Provider
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import UNBOUND
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.memory import Link, MemoryNetwork, MemoryWorld
from tests.routing.conformance import SETTLE_S, Cluster, RouterConformance, find_all, find_first, ids, key
from tests.routing.leading import LeaderConformance
from tests.wire.datagrams import inbox

LAN = Link(latency_s=0.0002)


class World:
    """Routers on simulated hosts; node n has the host 10.0.x.y and bootstraps at the first two."""

    def __init__(self, nursery: trio.Nursery, *, link: Link = LAN, seed: int = 1) -> None:
        self.nursery = nursery
        self.random = Random(seed)
        self.world = MemoryWorld(Random(seed + 1), link=link)
        self.routers: list[DhtRouter] = []
        self.networks: list[MemoryNetwork] = []
        self.registries: list[CollectorRegistry] = []
        self.scopes: list[trio.CancelScope] = []
        self.seeds: Sequence[int] = ()

    def host(self, number: int) -> str:
        return f"10.0.{number // 200}.{number % 200 + 1}"

    def add(self, zone: str = "", *, bootstrap: str | None = None) -> int:
        """Add a node; return its number. It does not run yet."""
        number = len(self.routers)
        host = self.host(number)
        network = self.world.host(host)
        self.networks.append(network)
        self.registries.append(CollectorRegistry())
        self.scopes.append(trio.CancelScope())
        text = bootstrap if bootstrap is not None else f"static:{self.host(0)},{self.host(1)}"
        if bootstrap is None and number == 0:
            text = f"static:{host}"
        self.routers.append(self.router(number, NodeId(self.random.randbytes(20)), zone, text))
        return number

    def router(self, number: int, node_id: NodeId, zone: str, bootstrap: str) -> DhtRouter:
        options = DhtOptions(
            node_id,
            self.random.randbytes(8),
            Address(self.host(number), 29998),
            Address(self.host(number), 29999),
            zone,
            parse(bootstrap).on(self.networks[number], MemoryFiles(), self.random) if bootstrap else None,
            seed=number in self.seeds,
        )
        metrics = RoutingMetrics(self.registries[number])
        return DhtRouter(options, self.networks[number], random=Random(self.random.random()), metrics=metrics)

    async def start(self, number: int) -> None:
        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with self.scopes[number]:
                await self.routers[number].run(task_status=task_status)

        await self.nursery.start(run)

    async def until(self, condition: Callable[[], bool], *, limit_s: float = 10.0) -> None:
        with trio.fail_after(limit_s):
            while not condition():  # noqa: ASYNC110 - a router tells nobody when it knows somebody
                await trio.sleep(0.1)

    def kill(self, number: int) -> None:
        """End a node without a goodbye: its host falls silent."""
        self.world.power_off(self.networks[number])
        self.scopes[number].cancel()

    async def restart(self, number: int) -> None:
        """Let a killed node begin anew, with its id and another boot id."""
        old = self.routers[number]
        self.world.power_on(self.networks[number])
        self.registries[number] = CollectorRegistry()
        self.scopes[number] = trio.CancelScope()
        self.routers[number] = self.router(number, old.node_id, "", f"static:{self.host(0)},{self.host(1)}")
        await self.start(number)

    def metric(self, number: int, name: str, **labels: str) -> float:
        return self.registries[number].get_sample_value(f"p2pmirror_routing_{name}", labels) or 0.0

    def datagrams_out(self, number: int) -> float:
        return sum(
            sample.value
            for metric in self.registries[number].collect()
            for sample in metric.samples
            if sample.name == "p2pmirror_routing_datagrams_total" and sample.labels["direction"] == "out"
        )


@asynccontextmanager
async def dht_world(
    count: int, zones: list[str] | None = None, *, link: Link = LAN, seed: int = 1, seeds: Sequence[int] = ()
) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        world = World(nursery, link=link, seed=seed)
        world.seeds = seeds
        for number in range(count):
            await world.start(world.add((zones or [""] * count)[number]))
        await world.until(lambda: all(each.joined and len(each.members()) == count - 1 for each in world.routers))
        yield world
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def dht_cluster(
    count: int, zones: list[str] | None = None, *, seeds: Sequence[int] = ()
) -> AsyncIterator[Cluster]:
    async with dht_world(count, zones, seeds=seeds) as world:
        addresses = [Address(world.host(number), 29999) for number in range(count)]
        yield Cluster(list(world.routers), addresses, world.kill)


class TestDhtRouter(RouterConformance, LeaderConformance):
    def cluster(self, count: int, zones: list[str] | None = None, *, seeds: Sequence[int] = ()) -> Any:
        return dht_cluster(count, zones, seeds=seeds)


async def test_many_lost_and_doubled_datagrams(autojump_clock: Any) -> None:
    """With 5 % of all datagrams lost, 2 % doubled and all of them reordered, every key of every node is found."""
    lossy = Link(latency_s=0.0003, jitter_s=0.001, loss=0.05, duplication=0.02)
    async with dht_world(12, link=lossy) as world:
        for number, router in enumerate(world.routers):
            router.advertise({key(10 * number + each): Offer() for each in range(10)})
        await trio.sleep(5)
        for number, router in enumerate(world.routers):
            asker = world.routers[(number + 5) % 12]
            for each in range(10):
                assert await ids(asker, key(10 * number + each)) == {router.node_id}


async def test_a_tenth_dead_a_lookup_is_still_quick(autojump_clock: Any) -> None:
    """Right after three of thirty nodes died, the first provider still comes within 30 ms."""
    async with dht_world(30) as world:
        world.routers[0].advertise({key(each): Offer() for each in range(40)})
        await trio.sleep(SETTLE_S)
        for number in (27, 28, 29):
            world.kill(number)
        for each in range(40):
            with trio.fail_after(0.030):
                found = await find_first(world.routers[3], key(each))
                assert found is not None
                assert found.node_id == world.routers[0].node_id


async def test_a_miss_is_over_soon(autojump_clock: Any) -> None:
    """A key that nobody has is known to be nobody's within 40 ms, also with dead nodes among the holders."""
    async with dht_world(30) as world:
        world.kill(29)
        world.kill(28)
        for each in range(30):
            with trio.fail_after(0.040):
                assert await find_all(world.routers[1], key(each)) == []


async def test_records_live_through_renewals(autojump_clock: Any) -> None:
    """When twice the time that a record lives has passed all is found, and nobody keeps more records than there are."""
    async with dht_world(5) as world:
        world.routers[0].advertise({key(each): Offer() for each in range(50)})
        for _ in range(2):
            await trio.sleep(640)
            assert await ids(world.routers[3], key(7)) == {world.routers[0].node_id}
        assert [router.records_held for router in world.routers] == [50] * 5


async def test_new_holders_are_told(autojump_clock: Any) -> None:
    """Keys said to a small cluster are found when all who held them then are gone, since newcomers were told."""
    async with dht_world(3) as world:
        world.routers[2].advertise({key(each): Offer() for each in range(30)})
        await trio.sleep(SETTLE_S)
        for _ in range(6):
            await world.start(world.add(bootstrap=f"static:{world.host(2)}"))
        await world.until(lambda: all(len(router.members()) == 8 for router in world.routers))
        await trio.sleep(SETTLE_S)
        world.kill(0)
        world.kill(1)
        for each in range(30):
            assert await ids(world.routers[8], key(each)) == {world.routers[2].node_id}


async def test_a_restarted_node_does_not_have_what_it_had(autojump_clock: Any) -> None:
    """A node that comes back under its id, empty, provides only what it says now, not what it had said."""
    async with dht_world(4) as world:
        world.routers[3].advertise({key(1): Offer(), key(2): Offer()})
        await trio.sleep(SETTLE_S)
        world.kill(3)
        await trio.sleep(0.5)
        await world.restart(3)
        world.routers[3].advertise({key(2): Offer()})
        await trio.sleep(5)
        assert await ids(world.routers[2], key(1)) == set()
        assert await ids(world.routers[2], key(2)) == {world.routers[3].node_id}
        assert {member.state for member in world.routers[0].members()} == {"alive"}


async def test_a_restarted_holder_is_told_again(autojump_clock: Any) -> None:
    """A node that lost its memory holds the records of the others again soon after it came back."""
    async with dht_world(3) as world:
        world.routers[0].advertise({key(each): Offer() for each in range(20)})
        await trio.sleep(SETTLE_S)
        world.kill(2)
        await trio.sleep(1)
        await world.restart(2)
        await trio.sleep(5)
        assert world.routers[2].records_held == 20


async def test_the_dead_are_gone_and_the_living_are_not(autojump_clock: Any) -> None:
    """Everybody learns of a death within 15 s in a cluster of 20, and is sure soon; nobody else is taken for dead."""
    async with dht_world(20) as world:
        world.kill(7)
        await trio.sleep(15)
        for number, router in enumerate(world.routers):
            if number != 7:
                states = {member.node_id: member.state for member in router.members()}
                gone = [node_id for node_id, state in states.items() if state != "alive"]
                assert gone == [world.routers[7].node_id]
        await world.until(lambda: world.metric(0, "members", state="gone") == 1, limit_s=5)
        assert world.metric(0, "members", state="alive") == 18


async def test_a_helper_does_not_take_a_node_for_alive_that_it_heard_before(autojump_clock: Any) -> None:
    """Who is asked to ping a dead node says no, although it heard that node a moment ago and would hand it out."""
    async with dht_world(3) as world:
        await trio.sleep(10)
        helper, dead = world.routers[0], world.routers[2]
        running, address = helper._running, dead.address
        assert running is not None
        assert address is not None
        assert await running.liveness.reaches(dead.node_id, address)
        world.kill(2)
        await trio.sleep(0.1)
        assert helper._view.may_hand_out(dead.node_id, trio.current_time())
        assert not await running.liveness.reaches(dead.node_id, address)


async def test_a_split_cluster_finds_together_again(autojump_clock: Any) -> None:
    """Two halves that took one another for dead know and find one another again within a minute."""
    async with dht_world(6) as world:
        world.routers[0].advertise({key(1): Offer()})
        world.routers[5].advertise({key(2): Offer()})
        await trio.sleep(SETTLE_S)
        world.world.partition(world.networks[:3])
        await trio.sleep(60)
        assert await ids(world.routers[4], key(1)) == set()
        assert await ids(world.routers[1], key(1)) == {world.routers[0].node_id}
        world.world.heal()
        await trio.sleep(60)
        for router in world.routers:
            assert {member.state for member in router.members()} == {"alive"}
        assert await ids(world.routers[4], key(1)) == {world.routers[0].node_id}
        assert await ids(world.routers[1], key(2)) == {world.routers[5].node_id}


async def test_a_node_waits_for_nobody_and_finds_those_who_come_later(autojump_clock: Any) -> None:
    """A node whose bootstrap does not answer has joined (alone) within 2 s, and finds the others when they come."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        first = world.add(bootstrap=f"static:{world.host(1)}")
        await world.start(first)
        await world.until(lambda: world.routers[first].joined, limit_s=2)
        await trio.sleep(100)
        second = world.add(bootstrap="")
        await world.start(second)
        await world.until(lambda: len(world.routers[first].members()) == 1, limit_s=40)
        nursery.cancel_scope.cancel()


async def test_a_moved_node_is_followed(autojump_clock: Any) -> None:
    """A node id that answers from another address is believed there once its old address is silent."""
    async with dht_world(3) as world:
        moved = world.routers[2].node_id
        world.kill(2)
        world.networks[2] = world.world.host("10.9.9.9")
        world.registries[2] = CollectorRegistry()
        world.scopes[2] = trio.CancelScope()
        world.host = lambda number: "10.9.9.9" if number == 2 else f"10.0.0.{number + 1}"  # type: ignore[method-assign]
        world.routers[2] = world.router(2, moved, "", "static:10.0.0.1,10.0.0.2")
        await world.start(2)
        await trio.sleep(10)
        for router in world.routers[:2]:
            (member,) = [each for each in router.members() if each.node_id == moved]
            assert (member.state, member.router_address) == ("alive", Address("10.9.9.9", 29998))


async def test_garbage_is_counted_and_dropped(autojump_clock: Any) -> None:
    """Random bytes, too long datagrams and answers nobody asked for are counted, get no answer and do no harm."""
    async with dht_world(2) as world:
        stranger = world.world.host("10.8.8.8")
        port = await stranger.open_datagrams(Address("10.8.8.8", 5))
        target = Address(world.host(0), 29998)
        random = Random(3)
        for length in (0, 1, 2, 30, 500, 1200):
            port.send(random.randbytes(length), target)
        port.send(NullSeal().seal(b"\xc1", UNBOUND), target)
        port.send(bytes(1201), target)
        unasked = Reply(bytes(8), bytes(20), Noted())
        port.send(NullSeal().seal(encode(unasked), UNBOUND), target)
        with trio.move_on_after(1):
            await port.deliver(lambda data, _: pytest.fail(f"{data!r} came back"))
        assert world.metric(0, "dropped_total", reason="undecodable") == 7
        assert world.metric(0, "dropped_total", reason="too_large") == 1
        assert world.metric(0, "dropped_total", reason="unasked") == 1
        world.routers[0].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        assert await ids(world.routers[1], key(1)) == {world.routers[0].node_id}


async def test_a_stranger_gets_a_cookie_and_no_more_bytes_than_it_sent(autojump_clock: Any) -> None:
    """Every question without a valid cookie is answered by a challenge that is shorter than the question."""
    async with dht_world(2) as world:
        port = await world.world.host("10.8.8.8").open_datagrams(Address("10.8.8.8", 5))
        target = Address(world.host(0), 29998)
        info = NodeInfo(b"s" * 20, b"b" * 8, 0, b"", pack_address(Address("10.8.8.8", 6)), "")
        contact = Contact(b"c" * 20, info.registry)
        questions: list[Any] = [
            Knock(),
            Ping(info, b"c" * 8, 1),
            PingThrough(contact),
            FindNode(bytes(20)),
            FindProviders(bytes(20), ""),
        ]
        questions += [Store(b"b" * 8, info.registry, "", 60, ()), MembersAfter(bytes(20)), Goodbye(b"b" * 8)]
        questions += [
            Want(bytes(20), info, 1),
            Report(bytes(20), info, 1, 5),
            Resign(bytes(20), 1),
            Led(bytes(20), info, 1),
        ]
        for question in [*questions, DialFailed(bytes(20))]:
            sent = NullSeal().seal(encode(Request(b"i" * 8, b"s" * 20, b"wrong!!!" + bytes(24), question)), UNBOUND)
            port.send(sent, target)
            async with inbox(port) as received:
                with trio.fail_after(1):
                    answer, _ = await received.receive()
            assert len(answer) <= len(sent)
            reply = decode(NullSeal().open(answer)[0])
            assert isinstance(reply, Reply)
            assert isinstance(reply.answer, Challenge)
        assert len(world.routers[0].members()) == 1
        assert len(world.routers[0]._view.leases) == 0


async def test_whoever_is_pinged_has_the_cookie_for_the_way_back(autojump_clock: Any) -> None:
    """A newcomer knocks at each node once; they ask it without a knock ever after."""
    async with dht_world(2) as world:
        await trio.sleep(5)
        before = [world.metric(n, "datagrams_total", kind="knock", direction="out") for n in (0, 1)]
        await world.start(world.add())
        await trio.sleep(5)
        assert [world.metric(n, "datagrams_total", kind="knock", direction="out") for n in (0, 1)] == before
        assert world.metric(2, "datagrams_total", kind="knock", direction="out") == 2
        assert world.metric(2, "datagrams_total", kind="ping", direction="in") >= 4


async def test_idle_costs_little(autojump_clock: Any) -> None:
    """Thirty nodes that say nothing send at most ten datagrams a second each."""
    async with dht_world(30) as world:
        await trio.sleep(10)
        before = world.datagrams_out(4)
        await trio.sleep(100)
        assert 100 < world.datagrams_out(4) - before < 1000


async def test_everything_before_the_port_is_open(autojump_clock: Any) -> None:
    """A router that does not run yet finds nobody, knows nobody, and keeps what it is told to say for later."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        for _ in range(2):
            world.add()
        router = world.routers[1]
        router.advertise({key(1): Offer()})
        router.failed(NodeId(bytes(20)))
        await router.leave()
        assert await find_all(router, key(1)) == []
        assert (router.joined, router.members(), router.address, router.advertised) == (False, [], None, 1)
        await world.start(0)
        await world.start(1)
        await trio.sleep(SETTLE_S)
        assert await ids(world.routers[0], key(1)) == {router.node_id}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("registry", "zone"),
    [(Address("0.0.0.0", 1), ""), (Address("10.0.0.1", 0), ""), (Address("10.0.0.1", 1), "z" * 64)],
)
def test_what_cannot_be_announced(registry: Address, zone: str) -> None:
    """A registry that nobody can dial, or a zone that no label can be, is refused before anything starts."""
    with pytest.raises(ValueError, match=r"dialled|zone"):
        DhtOptions(NodeId(bytes(20)), bytes(8), Address("0.0.0.0", 29998), registry, zone)


async def test_a_thousand_askers_share_one_lookup(autojump_clock: Any) -> None:
    """Who asks for a key that is being looked up follows that lookup, and gets everything from the first on."""
    async with dht_world(30) as world:
        for holder in (0, 1):
            world.routers[holder].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        asker = next(router for router in world.routers[2:] if not router.records_held)
        before = _sent(asker, "findproviders")
        results: list[set[bytes]] = []

        async def ask() -> None:
            results.append(await ids(asker, key(1)))

        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(ask)
        expected = {world.routers[0].node_id, world.routers[1].node_id}
        assert results == [expected] * 1000
        assert _sent(asker, "findproviders") - before <= 8


async def test_nobody_is_asked_for_what_our_own_records_say(autojump_clock: Any) -> None:
    """A holder of the key finds a provider at once and without a question; who waits for more has the others asked."""
    async with dht_world(5) as world:
        for number in (0, 1):
            world.routers[number].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        asker = world.routers[2]
        before = _sent(asker, "findproviders")
        async with asker.find(key(1)) as providers:
            known = [providers.receive_nowait(), providers.receive_nowait()]
            with pytest.raises(trio.WouldBlock):
                providers.receive_nowait()
            await trio.sleep(1)
            assert _sent(asker, "findproviders") == before
        expected = {world.routers[0].node_id, world.routers[1].node_id}
        assert {each.node_id for each in known if isinstance(each, Provider)} == expected
        assert await ids(asker, key(1)) == expected
        assert _sent(asker, "findproviders") > before


async def test_a_router_that_stops_ends_its_lookups(autojump_clock: Any) -> None:
    """Who follows a lookup when the router stops hears the end of it, whether others were asked or not."""
    async with dht_world(3) as world:
        world.routers[0].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        async with world.routers[2].find(key(1)) as providers:
            assert isinstance(providers.receive_nowait(), Provider)
            world.kill(2)
            await trio.testing.wait_all_tasks_blocked()
            assert [each async for each in providers] == []


async def test_a_lookup_outlives_its_first_asker(autojump_clock: Any) -> None:
    """The one who asked first leaves; whoever joined goes on, and the next one begins anew."""
    async with dht_world(30) as world:
        world.routers[0].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        asker = next(router for router in world.routers[1:] if not router.records_held)
        async with trio.open_nursery() as nursery:
            found: list[set[bytes]] = []

            async def follow() -> None:
                found.append(await ids(asker, key(1)))

            async with asker.find(key(1)):
                nursery.start_soon(follow)
                await trio.testing.wait_all_tasks_blocked()
        assert found == [{world.routers[0].node_id}]
        assert await ids(asker, key(1)) == {world.routers[0].node_id}


def _sent(router: DhtRouter, kind: str) -> float:
    counts = router._metrics.datagrams.counts
    return sum(count for (each, way), count in counts.items() if (each.__name__.lower(), way) == (kind, "out"))


async def test_a_provider_that_is_a_holder_itself_needs_no_ping(autojump_clock: Any) -> None:
    """Who keeps the record of what it has itself is found in one round trip, by those who keep none, without a ping."""
    async with dht_world(20) as world:
        ids_by_number = [router.node_id for router in world.routers]

        def closest(number: int) -> list[int]:
            ordered = sorted(ids_by_number, key=lambda node_id: distance(node_id, key(number)))
            return [ids_by_number.index(node_id) for node_id in ordered]

        kept = [number for number in range(50) if 0 in closest(number)[:3]]
        world.routers[0].advertise({key(number): Offer() for number in kept})
        await trio.sleep(SETTLE_S)
        for number in kept:
            begun = trio.current_time()
            async with world.routers[closest(number)[-1]].find(key(number)) as found:
                said = [each async for each in found]
            assert [getattr(each, "node_id", each) for each in said] == [world.routers[0].node_id]
            assert trio.current_time() - begun < 0.02

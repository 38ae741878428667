"""Promises of leases among real routers: holders that die, forget, are lied to, and networks that lose."""

from typing import Any

import pytest
import trio

from p2pmirror.routing.dht.messages import Led, NodeInfo, Report, Resign, pack_address
from p2pmirror.routing.dht.node import DhtRouter
from p2pmirror.routing.dht.rpc import Rpc
from p2pmirror.routing.dht.table import distance
from p2pmirror.routing.protocol import LEASE_S, Grant, Key, Offer
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.memory import Link
from tests.routing.conformance import SETTLE_S, key
from tests.routing.leading import lead, want_all
from tests.routing.test_dht import World, dht_world


def by_distance(world: World, wanted: Key) -> list[int]:
    """Return the numbers of the nodes, the closest to a key first."""
    ids = [router.node_id for router in world.routers]
    return sorted(range(len(ids)), key=lambda number: distance(ids[number], wanted))


def rpc(router: DhtRouter) -> Rpc:
    assert router._running is not None
    return router._running.rpc


def leader_of(grant: Grant) -> NodeId | None:
    return None if grant.leader is None else grant.leader.node_id


async def test_when_holders_die_the_next_ones_know_who_leads(autojump_clock: Any) -> None:
    """The holder that granted dies, then the next one: whoever asks is still told the leader, which reports on."""
    async with dht_world(20) as world:
        first, second, third, *others = by_distance(world, key(1))
        leader = others[-1]
        assert (await world.routers[leader].want(key(1))).leads
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lead, world.routers[leader], key(1))
            for victim in (first, second):
                await trio.sleep(0.3)
                world.kill(victim)
                for number in (third, *others[:3]):
                    grant = await world.routers[number].want(key(1))
                    assert (grant.leads, leader_of(grant)) == (False, world.routers[leader].node_id)
            nursery.cancel_scope.cancel()


async def test_a_holder_that_began_anew_learns_the_leader_from_a_report(autojump_clock: Any) -> None:
    """A restarted holder, the closest one, has forgotten all; half a second later it names the leader again."""
    async with dht_world(5) as world:
        first, *others = by_distance(world, key(1))
        leader = others[-1]
        assert (await world.routers[leader].want(key(1))).leads
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lead, world.routers[leader], key(1))
            world.kill(first)
            await trio.sleep(0.3)
            await world.restart(first)
            await world.until(lambda: len(world.routers[first].members()) == 4)
            await trio.sleep(0.6)
            for number in (first, *others[:-1]):
                assert leader_of(await world.routers[number].want(key(1))) == world.routers[leader].node_id
            nursery.cancel_scope.cancel()


async def test_a_dead_leader_that_is_reported_is_replaced_at_once(autojump_clock: Any) -> None:
    """Somebody's dial to the leader fails: of all who ask then one leads, well before the lease would have ended."""
    async with dht_world(20) as world:
        *_, leader = by_distance(world, key(1))
        assert (await world.routers[leader].want(key(1))).leads
        world.routers[leader].report(key(1), 1)
        world.kill(leader)
        others = [router for number, router in enumerate(world.routers) if number != leader]
        await want_all(others, key(1))
        for router in others[:3]:
            router.failed(world.routers[leader].node_id)
        await trio.sleep(0.05)
        with trio.fail_after(1.0):
            grants = await want_all(others, key(1))
            while not any(grant.leads for grant in grants):
                grants = await want_all(others, key(1))
        assert sum(grant.leads for grant in grants) == 1


async def test_a_leader_that_began_anew_does_not_lead(autojump_clock: Any) -> None:
    """What a node led before it was restarted is free as soon as its new life is known."""
    async with dht_world(4) as world:
        first, *_, leader = by_distance(world, key(1))
        assert (await world.routers[leader].want(key(1))).leads
        world.kill(leader)
        await world.restart(leader)
        await world.until(lambda: len(world.routers[leader].members()) == 3, limit_s=1.0)
        await trio.sleep(0.2)
        assert (await world.routers[first].want(key(1))).leads


async def test_a_provider_that_died_is_no_reason_to_grant_nothing(autojump_clock: Any) -> None:
    """Who had all of it and was not heard lately is pinged before anybody is sent to it: then the asker leads."""
    async with dht_world(3) as world:
        world.routers[0].advertise({key(1): Offer()})
        await trio.sleep(SETTLE_S)
        world.kill(0)
        world.routers[1]._view.members.doubt(world.routers[0].node_id)
        world.routers[2]._view.members.doubt(world.routers[0].node_id)
        with trio.fail_after(1.0):
            grants = await want_all(world.routers[1:], key(1))
        assert sorted(grant.leads for grant in grants) == [False, True]
        assert all(leader_of(grant) != world.routers[0].node_id for grant in grants)


async def test_nobody_leads_what_was_just_finished(autojump_clock: Any) -> None:
    """A leader that says that it has all of it and resigns in the same moment is followed by no other leader."""
    async with dht_world(10) as world:
        leader, *others = reversed(by_distance(world, key(1)))
        assert (await world.routers[leader].want(key(1))).leads
        world.routers[leader].advertise({key(1): Offer()})
        world.routers[leader].resign(key(1))
        for turn in range(50):
            assert not (await world.routers[others[turn % len(others)]].want(key(1))).leads
            await trio.sleep(0.001 if turn < 40 else 1.0)
        grant = await world.routers[others[0]].want(key(1))
        assert [each.complete for each in grant.providers] == [True]


async def test_what_a_leader_fell_silent_about_is_forgotten(autojump_clock: Any) -> None:
    """A leader that has it may say no more: it is named while its lease lasts, and keeps nothing of it after that."""
    async with dht_world(4) as world:
        router, *others = world.routers
        for number in range(40):
            assert (await router.want(key(number))).leads
            router.report(key(number), 1)
        assert leader_of(await others[0].want(key(1))) == router.node_id
        await trio.sleep(LEASE_S - 0.5)
        router.report(key(5), 2)
        await trio.sleep(0.6)
        assert (await router.want(key(77))).leads
        assert set(router._running.wanting._led) == {key(5), key(77)}
        assert (await others[0].want(key(1))).leads
        assert leader_of(await others[0].want(key(5))) == router.node_id


async def test_one_of_many_parts_is_all_of_it(autojump_clock: Any) -> None:
    """However many have a part, the one that has all of it is found, and nobody leads."""
    async with dht_world(40) as world:
        for number in range(30):
            world.routers[number].advertise({key(1): Offer(complete=number == 7)})
        await trio.sleep(SETTLE_S)
        for _ in range(5):
            grants = await want_all(world.routers[30:], key(1))
            assert not any(grant.leads for grant in grants)
            assert all(grant.providers[0].node_id == world.routers[7].node_id for grant in grants)


async def test_what_others_say_of_a_lease_is_ignored(autojump_clock: Any) -> None:
    """Neither a resignation, nor a report in another's name, nor a holder's word takes a lease from its leader."""
    async with dht_world(4) as world:
        first, *_, liar, leader = by_distance(world, key(1))
        target, asks = world.routers[first], rpc(world.routers[liar])
        assert (await world.routers[leader].want(key(1))).leads
        own, other = world.routers[liar]._view.own, world.routers[leader]._view.own
        home = Address(world.host(first), 29998)
        lies = [Resign(key(1), 99), Report(key(1), own, 99, 5), Report(key(1), other, 99, 5), Led(key(1), own, 99)]
        for lie in lies:
            await asks.ask(home, lie, limit_s=1.0)
            assert leader_of(await target.want(key(1))) == world.routers[leader].node_id
        await trio.sleep(LEASE_S)
        assert (await target.want(key(1))).leads


async def test_a_leader_that_is_nobody_is_told_to_nobody(autojump_clock: Any) -> None:
    """A liar names leaders where nobody is: they are pinged before anybody is sent there, and the asker leads."""
    async with dht_world(4) as world:
        first, asker, *_, liar = by_distance(world, key(1))
        home = pack_address(Address("10.200.0.1", 5))
        nobody = NodeInfo(b"n" * 20, b"b" * 8, 0, home, home, "")
        for holder in (first, asker):
            address = Address(world.host(holder), 29998)
            await rpc(world.routers[liar]).ask(address, Led(key(1), nobody, 1), limit_s=1.0)
        with trio.fail_after(0.5):
            assert (await world.routers[asker].want(key(1))).leads


async def test_a_node_that_is_cut_off_leads(autojump_clock: Any) -> None:
    """Nobody answers: the node leads, within its time, and asks as often as it likes."""
    async with dht_world(6) as world:
        world.world.partition(world.networks[:1])
        for number in range(3):
            begun = trio.current_time()
            assert (await world.routers[0].want(key(number))).leads
            assert trio.current_time() - begun < 2.0


async def test_a_node_that_has_not_joined_waits_a_second_at_most(autojump_clock: Any) -> None:
    """A bootstrap that is silent keeps a want waiting for no longer than that; before `run` a router leads at once."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        world.add(bootstrap="static:10.99.0.1,10.99.0.2")
        router = world.routers[0]
        router.report(key(1), 5)
        router.resign(key(1))
        assert await router.want(key(1)) == Grant(leads=True, leader=None, providers=())
        await world.start(0)
        begun = trio.current_time()
        assert not router.joined
        assert (await router.want(key(1))).leads
        assert trio.current_time() - begun <= 1.1
        nursery.cancel_scope.cancel()


async def test_a_newcomer_asks_those_whom_it_joins(autojump_clock: Any) -> None:
    """A node that wants something in its first moment waits for its join, and is told who leads."""
    async with dht_world(5) as world:
        assert (await world.routers[0].want(key(1))).leads
        number = world.add()
        await world.start(number)
        grant = await world.routers[number].want(key(1))
        assert (grant.leads, leader_of(grant)) == (False, world.routers[0].node_id)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_losses_delay_and_nothing_else(autojump_clock: Any, seed: int) -> None:
    """With a tenth of all datagrams lost, doubled and reordered, leaders are nearly alone, and nobody waits long."""
    lossy = Link(latency_s=0.0003, jitter_s=0.001, loss=0.1, duplication=0.05)
    async with dht_world(15, link=lossy, seed=seed) as world:
        leaders = 0
        for number in range(10):
            begun = trio.current_time()
            grants = await want_all(world.routers, key(number))
            assert trio.current_time() - begun < 2.0
            leaders += sum(grant.leads for grant in grants)
        assert 10 <= leaders <= 12


async def test_wants_and_leases_are_counted(autojump_clock: Any) -> None:
    """Each want by what came of it, and the leases that a node knows of while they last."""
    async with dht_world(2) as world:
        assert (await world.routers[0].want(key(1))).leads
        await world.routers[1].want(key(1))
        await trio.sleep(0.1)
        assert [world.metric(number, "leases") for number in (0, 1)] == [1, 1]
        world.routers[0].advertise({key(2): Offer()})
        await trio.sleep(SETTLE_S)
        await world.routers[1].want(key(2))
        world.kill(0)
        await trio.sleep(20)
        await world.routers[1].want(key(3))
        counted = {each: world.metric(1, "wants_total", outcome=each) for each in ("follows", "provided", "alone")}
        assert counted == {"follows": 1, "provided": 1, "alone": 1}
        assert world.metric(0, "wants_total", outcome="led") == 1
        assert world.metric(1, "leases") == 1
        await trio.sleep(LEASE_S)
        assert world.metric(1, "leases") == 0


async def test_reports_are_said_no_more_often_than_needed(autojump_clock: Any) -> None:
    """However often a leader reports, its datagrams stay few: those of a report some times a second."""
    async with dht_world(10) as world:
        *_, leader = by_distance(world, key(1))
        assert (await world.routers[leader].want(key(1))).leads
        await trio.sleep(0.1)
        before = world.metric(leader, "datagrams_total", kind="report", direction="out")
        for count in range(1000):
            world.routers[leader].report(key(1), count)
            await trio.sleep(0.01)
        sent = world.metric(leader, "datagrams_total", kind="report", direction="out") - before
        assert 75 <= sent <= 26 * 5

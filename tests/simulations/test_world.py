"""Promises of simulations/world.py, nodes.py and schedule.py: nodes live and die as they should, and faults happen."""

from __future__ import annotations

from random import Random

import pytest
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.protocol import Key, Offer, Provider
from p2pmirror.wire.memory import Link
from simulations.schedule import (
    Block,
    Heal,
    Kill,
    Partition,
    PowerOff,
    Reset,
    Restart,
    SetClock,
    SetLink,
    Start,
    Stop,
    churn,
    play,
)
from simulations.world import host_of
from tests.simulations.stories import figures, told

KEY = Key(bytes(range(20)))
KINDS = ("router", "whole")


async def added(sim, kind, **rest):
    return await (sim.add_router(**rest) if kind == "router" else sim.add_node(**rest))


async def holders(node) -> set[bytes]:
    async with node.router.find(KEY) as found:
        return {each.node_id async for each in found if isinstance(each, Provider)}


def states(node) -> dict[bytes, str]:
    return {each.node_id: each.state for each in node.router.members()}


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_of_both_kinds_find_one_another(kind):
    """What one node has is found by the others, be they whole or routers alone."""

    async def story(sim, parameters):
        nodes = [await added(sim, kind) for _ in range(4)]
        await trio.sleep(2)
        nodes[3].router.advertise({KEY: Offer()})
        await trio.sleep(1)
        return [await holders(node) == {nodes[3].node_id} for node in nodes[:3]]

    assert figures(story, nodes=4) == [True, True, True]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["kill", "power_off", "stop"])
def test_a_node_that_ended_comes_back_as_itself(kind, fault):
    """Killed, without power or stopped, a node is not found; started again it has its id and a new boot."""

    async def story(sim, parameters):
        nodes = [await added(sim, kind) for _ in range(3)]
        await trio.sleep(2)
        victim, before = nodes[2], nodes[2].node_id
        if fault == "stop":
            await victim.stop()
        else:
            getattr(victim, fault)()
        assert not victim.alive
        assert victim.died_at is not None
        await trio.sleep(12)
        forgotten = states(nodes[0]).get(before) != "alive"
        await victim.restart()
        await trio.sleep(5)
        return forgotten, victim.node_id == before, victim.boots, states(nodes[0])[before], len(sim.alive())

    assert figures(story) == (True, True, 2, "alive", 3)


def test_a_node_may_take_the_address_of_a_dead_one():
    """A new node on a dead one's host is another node; on a live one's host there is no room."""

    async def story(sim, parameters):
        nodes = [await sim.add_router() for _ in range(3)]
        await trio.sleep(2)
        with pytest.raises(ValueError, match="runs on"):
            await sim.add_router(host=nodes[2].host)
        nodes[2].power_off()
        heir = await sim.add_router(host=nodes[2].host)
        await trio.sleep(15)
        seen = states(nodes[0])
        return heir.node_id != nodes[2].node_id, seen[heir.node_id], seen.get(nodes[2].node_id)

    different, heir, dead = figures(story)
    assert different
    assert heir == "alive"
    assert dead != "alive"


def test_whole_nodes_answer_over_http():
    """A whole node's pages answer the client of the simulation; a dead one's do not."""

    async def story(sim, parameters):
        node = await sim.add_node(store="oci-layout:/images")
        await trio.sleep(1)
        ready, _ = await sim.get(node.page, "/readyz")
        status = await sim.get_json(node.page, "/api/v1/status")
        node.kill()
        with pytest.raises(Unreachable):
            await sim.get(node.page, "/readyz")
        return ready, status["node_id"] == node.node_id.hex()

    assert figures(story, nodes=1) == (200, True)


def test_streams_of_chance_do_not_shift_one_another():
    """A stream depends on the seed and its name alone, not on who else draws, and is the same object each time."""

    async def story(sim, parameters):
        if parameters.count:
            sim.random("another").random()
        assert sim.random("mine") is sim.random("mine")
        return sim.random("mine").random(), sim.random("yours").random()

    mine, yours = figures(story)
    assert mine == Random("1/mine").random()
    assert mine != yours
    assert figures(story, seed=2) != (mine, yours)


def test_every_calls_until_it_is_told_not_to():
    """`every` keeps its interval exactly and stops."""

    async def story(sim, parameters):
        times: list[float] = []
        stop = sim.every(0.5, lambda: times.append(sim.now))
        await trio.sleep(1.6)
        stop()
        await trio.sleep(5)
        return times

    assert figures(story) == [0.5, 1.0, 1.5]


def test_a_schedule_makes_each_fault_happen_when_it_says():
    """Partition, heal, block, kill, power, stop, restart and clocks take effect at their times."""

    async def story(sim, parameters):
        nodes = [await sim.add_router() for _ in range(4)]
        await trio.sleep(2)
        began, seen = sim.now, []

        def look() -> None:
            topology = sim.world.topology
            zero, one = nodes[0].network, nodes[1].network
            ways = topology.is_up(zero, one), topology.is_up(one, zero)
            seen.append((round(sim.now - began, 3), ways, [node.alive for node in nodes]))

        for moment in (0.5, 1.5, 2.5, 3.5, 4.5, 6.5, 8.5):
            sim.clock.at(began + moment, look)
        await play(
            sim,
            [
                (5.0, Stop(2)),
                (0.0, Partition(((0,), (1, 2, 3)))),
                (1.0, Heal()),
                (2.0, Block((0,), (1,))),
                (3.0, Kill(3)),
                (3.0, Heal()),
                (4.0, PowerOff(2)),
                (4.2, Kill(2)),
                (6.0, Start(2)),
                (6.0, Start(1)),
                (6.0, Restart(3)),
                (6.0, SetClock(0, monotonic_s=3600, wall_s=-3600)),
                (6.0, SetLink((0,), (1, 2), Link(latency_s=0.1))),
                (6.0, Reset(0, 1)),
                (8.0, Restart(1)),
            ],
        )
        await trio.sleep(1)
        assert (nodes[0].clock_offset_s, nodes[0].wall_offset_s) == (3600, -3600)
        assert sim.world.topology.link(nodes[2].network, nodes[0].network).latency_s == 0.1
        return seen, [node.boots for node in nodes]

    seen, boots = figures(story, nodes=4)
    both, neither, back = (True, True), (False, False), (False, True)
    assert [entry[:2] for entry in seen[:4]] == [(0.5, neither), (1.5, both), (2.5, back), (3.5, both)]
    assert [entry[2] for entry in seen[3:]] == [
        [True, True, True, False],
        [True, True, False, False],
        [True, True, True, True],
        [True, True, True, True],
    ]
    assert boots == [1, 2, 2, 2]


def test_faults_are_in_the_trace():
    """Two runs that differ in a fault alone differ in their digests."""

    def digest(fault) -> str:
        async def story(sim, parameters):
            await sim.add_router()
            await play(sim, [(1.0, fault)])
            return {}

        return told(story, nodes=1).trace_digest

    assert digest(SetClock(0, wall_s=1)) == digest(SetClock(0, wall_s=1)) != digest(SetClock(0, wall_s=2))


def test_churn_is_drawn_at_its_rate_and_everybody_comes_back():
    """At 50 an hour each of 100 nodes dies some 50 times in an hour up, never while it is down, and returns."""
    schedule = churn(Random(1), range(100), seconds=3600, rate_per_hour=50, down_s=10)
    deaths = [fault for _, fault in schedule if not isinstance(fault, Start)]
    assert 3800 < len(deaths) < 4800  # 100 nodes x 3600 s / (72 s up + 10 s down) = 4390
    assert len(deaths) == len(schedule) / 2
    assert [entry[0] for entry in schedule] == sorted(entry[0] for entry in schedule)
    for number in range(100):
        own = [isinstance(fault, Start) for _, fault in schedule if fault.node == number]
        assert own == [False, True] * (len(own) // 2)


def test_a_schedule_drawn_at_random_may_say_what_makes_no_sense():
    """Killing the dead, starting the living, stopping twice at once: nothing breaks."""

    async def story(sim, parameters):
        for _ in range(3):
            await sim.add_router()
        kinds = (Kill, PowerOff, Start, Stop, Restart)
        chance = sim.random("nonsense")
        await play(sim, [(chance.uniform(0, 5), chance.choice(kinds)(chance.randrange(3))) for _ in range(200)])
        await play(sim, [(1.0, Start(number)) for number in range(3)])
        await trio.sleep(10)
        return [node.alive for node in sim.members]

    assert [figures(story, seed=seed) for seed in range(5)] == [[True, True, True]] * 5


def test_hosts_are_numbered_without_end():
    """Every number has a host of its own."""
    assert [host_of(number) for number in (0, 254, 255, 65535, 70000)] == [
        "10.0.0.1",
        "10.0.0.255",
        "10.0.1.0",
        "10.1.0.0",
        "10.1.17.113",
    ]

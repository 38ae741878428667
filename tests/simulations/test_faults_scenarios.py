"""Promises of the scenarios of faults in membership: small ones hold, and whoever watches them sees what is wrong."""

from __future__ import annotations

import pytest
import trio

from p2pmirror.routing.protocol import Key, Offer, Provider
from p2pmirror.wire.address import Address
from simulations import scenarios
from simulations.playing import Run, play
from simulations.schedule import Kill, Stop
from simulations.story import Story, StoryParameters
from tests.simulations.stories import figures, told

FEW = {"keys": "12", "lookups_per_s": "5"}
SMALL = [
    ("join-burst", 12, {}),
    ("join-burst", 3, {}),
    ("half-gone", 3, {}),
    ("half-gone", 10, {}),
    ("partition", 3, {}),
    ("partition", 8, {"one_way": "true"}),
    ("partition", 6, {"whole": "true", "pulls_per_s": "2"}),
    ("two-clusters", 10, {}),
    ("two-clusters", 5, {"by_name": "true"}),
    ("rolling-restart", 8, {}),
    ("rolling-restart", 4, {"whole": "true", "pulls_per_s": "4"}),
    ("clocks", 6, {"seconds": "20"}),
    ("clocks", 6, {"seconds": "20", "keyed": "false"}),
    ("reused-addresses", 3, {}),
    ("reused-addresses", 10, {}),
    ("churn", 6, {"seconds": "60", "percent_per_hour": "3000", "down_s": "10"}),
]


@pytest.mark.parametrize(("name", "nodes", "given"), SMALL)
def test_faults_do_no_harm_and_everything_is_found_after_healing(name, nodes, given):
    """Each scenario, with few nodes: while faults happen nothing wrong is seen, afterwards everything is found."""
    scenario = scenarios.find(name)
    assert scenario is not None
    outcome = play(Run(scenario, nodes, 1, {**FEW, **given}))
    assert outcome.ok, outcome.violated or outcome.error
    assert outcome.figures["lookups"] > 0
    assert sum(outcome.checks.values()) > 50


@pytest.mark.parametrize("nodes", [3, 20])
def test_a_silent_death_is_suspected_as_soon_as_the_protocol_allows(nodes):
    """Ten deaths in turn: suspected within 4 s on average and 9.25 s at most, and all know within 17.25 s."""
    scenario = scenarios.find("silent-death")
    assert scenario is not None
    outcome = play(Run(scenario, nodes, 1, {"deaths": "10"}))
    assert outcome.ok, outcome.violated or outcome.error
    assert 1.0 < outcome.figures["seconds_suspected_mean"] <= 4.0
    assert outcome.figures["seconds_suspected_max"] <= 9.25
    assert 4.0 < outcome.figures["seconds_gone_max"] <= 17.25


async def standing(sim, **rest) -> Story:
    """Return a story of three routers, the last of which has `KEY`."""
    story = Story(sim, StoryParameters(keys=1, providers=1, lookups_per_s=1.0, **rest))
    await story.stand([await sim.add_router(start=False) for _ in range(3)])
    story.give(KEY, [2])
    return story


KEY = Key(bytes(range(20)))


def violated(story) -> str:
    """Play a story; return the check that did not hold."""
    outcome = told(story)
    assert outcome.error is None
    assert outcome.violated is not None
    return outcome.violated.check


def handed_out(node, registry=None) -> Provider:
    return Provider(node.node_id, registry or node.registry)


@pytest.mark.parametrize(("seconds", "is_late"), [(9.0, False), (11.0, True)])
def test_a_dead_provider_that_is_handed_out_too_late_is_noticed(seconds, is_late):
    """Ten seconds after a death, and not before, it is wrong to hand the dead node out."""

    async def story(sim, parameters):
        story = await standing(sim)
        await story.play([(0.0, Kill(2))])
        await trio.sleep(seconds)
        story._judge(KEY, handed_out(sim.members[2]), sim.members[0], sim.now)
        sim.checks.declare("all went well").violated("it did")
        return {}

    assert violated(story).startswith("nobody is handed out more than 10 s" if is_late else "all went well")


def test_a_provider_that_left_and_is_handed_out_is_noticed():
    """A node that said goodbye may not be handed out a moment later, although a dead one may."""

    async def story(sim, parameters):
        story = await standing(sim)
        await story.play([(0.0, Stop(2))])
        await trio.sleep(1.0)
        story._judge(KEY, handed_out(sim.members[2]), sim.members[0], sim.now)
        return {}

    assert violated(story) == "nobody is handed out after it left"


@pytest.mark.parametrize("wrong", ["node", "address"])
def test_a_provider_that_never_was_is_noticed(wrong):
    """A node that never had the key, and an address where the node never was, may not be handed out."""

    async def story(sim, parameters):
        story = await standing(sim)
        provider = {
            "node": handed_out(sim.members[1]),
            "address": handed_out(sim.members[2], Address("10.9.9.9", 29999)),
        }[wrong]
        story._judge(KEY, provider, sim.members[0], sim.now)
        return {}

    assert violated(story) == "nobody is handed out for what it never had"


def test_what_nobody_finds_after_healing_is_noticed():
    """A provider that withdrew without the story's knowledge is missed."""

    async def story(sim, parameters):
        story = await standing(sim)
        await trio.sleep(1.0)
        sim.members[2].router.withdraw([KEY])
        await trio.sleep(1.0)
        await story.all_found(3.0, after="nothing")
        return {}

    assert violated(story) == "every provider is found by everybody asked, after nothing"


def test_a_storm_of_datagrams_is_noticed():
    """More datagrams than a story allows end it."""

    async def story(sim, parameters):
        story = await standing(sim)
        async with story.watched(mean_max=0.5):
            await trio.sleep(10.0)
        return {}

    assert violated(story) == "no node, and not all together, send more than they may"


def test_records_that_nobody_should_have_are_noticed():
    """A node that holds more records than were ever said ends a story."""

    async def story(sim, parameters):
        story = await standing(sim)
        sim.members[1].router.advertise({Key(bytes([number]) * 20): Offer() for number in range(9)})
        async with story.watched(mean_max=100.0):
            await trio.sleep(10.0)
        return {}

    assert violated(story) == "tables, members, news and records stay within their limits"


def test_one_death_is_looked_at_by_few():
    """When one of thirty dies, those who notice it ask helpers, and the helpers do not ask helpers of their own."""

    async def story(sim, parameters):
        for _ in range(30):
            await sim.add_router()
        await trio.sleep(10.0)
        assert asked_through(sim) == 0
        sim.members[7].power_off()
        await trio.sleep(20.0)
        assert all(each.state == "gone" for each in others_of(sim, 7))
        return asked_through(sim)

    assert 3 <= figures(story, nodes=30) <= 60  # a few who ping it before the news comes, three helpers each, repeats


def others_of(sim, number):
    """Return what all others say of a node."""
    node_id = sim.members[number].node_id
    return [each for node in sim.alive() for each in node.router.members() if each.node_id == node_id]


def asked_through(sim) -> float:
    """Return how many questions to helpers were sent."""
    labels = {"kind": "pingthrough", "direction": "out"}
    return sim.metrics.get_sample_value("p2pmirror_routing_datagrams_total", labels) or 0.0

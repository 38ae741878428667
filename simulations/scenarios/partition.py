"""The network is cut in two for half a minute, in both directions or in one, and heals.

What is shown: while it is cut, nobody is handed out who is dead, and each side goes on by itself; a stated time after
it has healed everybody finds everything again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from simulations.pulling import PullingParameters, stand
from simulations.scenario import Figure, parameter, scenario
from simulations.schedule import Block, Heal
from simulations.story import Story
from simulations.world import Simulation

MEAN_MAX = 1300.0  # datagrams a node and second: 64 of the silent are looked at together, with some 20 for each
REACHED_S = 45.0  # after the cut each side finds what it has, even where all holders of a key are on the other side
FOUND_S = 45.0  # after healing: a node knocks at one of those that are gone each 10 s, and reads a list each 30 s
PULLED_AFTER_S = 10.0  # pulls go on, and none may fail


@dataclass(frozen=True)
class PartitionParameters(PullingParameters):
    """See `scenario`."""

    share: float = parameter(0.5, "of the nodes are on one side", low=0.01, high=0.99)
    seconds: float = parameter(30.0, "until it heals", low=1, high=3600)
    one_way: bool = parameter(default=False, help="only what the one side sends is lost, and the other side is heard")


@scenario(
    "partition",
    "The network is cut in two for a while; both sides go on, and become one again.",
    nodes=60,
    seconds=60,
    parameters=PartitionParameters,
    nodes_min=3,
)
async def partition(sim: Simulation, parameters: PartitionParameters) -> Mapping[str, Figure]:
    """Cut, look, heal, look."""
    story = Story(sim, parameters)
    pulls = await stand(sim, story, parameters)
    random = sim.random("sides")
    one = sorted(random.sample(range(sim.nodes), max(1, int(sim.nodes * parameters.share))))
    other = sorted(set(range(sim.nodes)) - set(one))
    side = set(one)
    async with trio.open_nursery() as nursery, story.watched(mean_max=MEAN_MAX):
        if pulls is not None:
            nursery.start_soon(pulls.go_on, parameters.pulls_per_s)
        await trio.sleep(5.0)
        ways = [(tuple(one), tuple(other)), (tuple(other), tuple(one))][: 1 if parameters.one_way else 2]
        await story.play([(0.0, Block(*way)) for way in ways])
        story.apart = lambda asker, provider: (asker.number in side) != (provider.number in side)
        if pulls is not None:
            pulls.apart = story.apart
        cut = sim.now
        reached_s = await story.all_found(story.limit_s(REACHED_S), after="the cut, on each side")
        await trio.sleep_until(cut + parameters.seconds)
        await story.play([(0.0, Heal())])
        healed = sim.now
        await trio.sleep(0.1)  # what was sent before
        story.apart = lambda _asker, _provider: False
        await story.all_found(story.limit_s(FOUND_S), after="healing")
        found_s = sim.now - healed
        if pulls is not None:
            pulls.apart = story.apart
            await trio.sleep(PULLED_AFTER_S)
        nursery.cancel_scope.cancel()
    found = {"seconds_found_on_each_side": round(reached_s, 3), "seconds_found_after_healing": round(found_s, 3)}
    return found | story.figures() | ({} if pulls is None else pulls.figures())

"""A cluster comes from nothing: all nodes start within some seconds, through three addresses, and have things to say.

What is shown: while they come, nobody is handed out for what it never had, and no node drowns; a stated time after the
last start everybody has joined, and what each of them has is found from everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simulations.scenario import Figure, parameter, scenario
from simulations.schedule import Start
from simulations.story import Story, StoryParameters
from simulations.world import Simulation

MEAN_MAX = 800.0  # datagrams a node and second: everybody of a table of 256 is met, and answers, while all of them come
JOINED_S = 10.0  # after the last start
FOUND_S = 10.0  # after that


@dataclass(frozen=True)
class JoinBurstParameters(StoryParameters):
    """See `scenario`."""

    within_s: float = parameter(10.0, "all nodes start within so many seconds", low=0, high=3600)


@scenario(
    "join-burst",
    "A cluster starts from nothing through three addresses, and finds what everybody has.",
    nodes=300,
    seconds=60,
    parameters=JoinBurstParameters,
    nodes_min=3,
)
async def join_burst(sim: Simulation, parameters: JoinBurstParameters) -> Mapping[str, Figure]:
    """Let them come, with what they have."""
    story = Story(sim, parameters)
    joined = sim.checks.declare("everybody has joined and knows enough")
    random = sim.random("starts")
    for _ in range(sim.nodes):
        await sim.add_router(start=False)
    await sim.members[0].start()
    story.deal()
    async with story.watched(mean_max=MEAN_MAX):
        await story.play([(random.uniform(0, parameters.within_s), Start(number)) for number in range(1, sim.nodes)])
        joined_s = await joined.within(JOINED_S, story.ignorant)
        joining = sim.trace.pieces("datagram")
        found_s = await story.all_found(story.limit_s(FOUND_S), after="the last start")
    return {
        "seconds_joined": round(joined_s, 3),
        "seconds_found": round(found_s, 3),
        "datagrams_per_node": round(joining / sim.nodes, 1),
    } | story.figures()

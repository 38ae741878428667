"""Nodes die and return all the time: a part of them each hour, some in order, some without a word.

What is shown: all the while nobody dead is handed out for long, nobody who left at all, and nearly every lookup finds
what is there; a stated time after the last return everything is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from simulations import schedule
from simulations.scenario import Figure, parameter, scenario
from simulations.story import Story, StoryParameters
from simulations.world import Simulation

MEAN_MAX = 200.0  # datagrams a node and second: half a dozen who return in one second are met by everybody
SETTLED_S = 10.0  # after all have started at once, which `join-burst` is about: newcomers' tables are full
FOUND_S = 10.0  # in a cluster that is known entirely


@dataclass(frozen=True)
class ChurnParameters(StoryParameters):
    """See `scenario`."""

    percent_per_hour: float = parameter(10.0, "of the nodes die in an hour", low=0.1, high=100_000)
    seconds: float = parameter(600.0, "of churn", low=1, high=24 * 3600)
    down_s: float = parameter(60.0, "until a node is back", low=0, high=3600)
    orderly: float = parameter(0.5, "of the deaths are goodbyes, the others kills and power failures", low=0, high=1)


@scenario(
    "churn",
    "Nodes come and go all the time, and what is there is found all the same.",
    nodes=100,
    seconds=60,
    parameters=ChurnParameters,
    nodes_min=3,
)
async def churn(sim: Simulation, parameters: ChurnParameters) -> Mapping[str, Figure]:
    """Let them come and go, then look."""
    story = Story(sim, parameters)
    await story.stand([await sim.add_router(start=False) for _ in range(sim.nodes)])
    story.deal()
    await trio.sleep(SETTLED_S)
    faults = schedule.churn(
        sim.random("churn"),
        range(1, sim.nodes),  # one stays, to be asked
        seconds=parameters.seconds,
        rate_per_hour=parameters.percent_per_hour / 100,
        down_s=parameters.down_s,
        orderly=parameters.orderly,
    )
    async with story.watched(mean_max=MEAN_MAX):
        await story.play([*faults, (parameters.seconds, schedule.Start(0))])
        story.found_mostly()
        found_s = await story.all_found(story.limit_s(FOUND_S), after="the last return")
    deaths = sum(not isinstance(fault, schedule.Start) for _, fault in faults)
    return {"deaths": deaths, "seconds_found": round(found_s, 3)} | story.figures()

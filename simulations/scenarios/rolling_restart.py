"""Every node is restarted in its turn, as when a new version is rolled out: it keeps its id and begins a new life.

What is shown: all the while nobody is handed out who has left, and what is there is found; a stated time after the last
start everything is found, so that each has said again what it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from simulations.pulling import PullingParameters, stand
from simulations.scenario import Figure, parameter, scenario
from simulations.schedule import Restart, Stop
from simulations.story import Story
from simulations.world import Simulation

MEAN_MAX = 400.0  # datagrams a node and second: some tens that leave and return in one second are met by everybody
FOUND_S = 10.0  # in a cluster that is known entirely


@dataclass(frozen=True)
class RollingRestartParameters(PullingParameters):
    """See `scenario`."""

    each_s: float = parameter(1.0, "from one restart to the next", low=0, high=3600)
    down_s: float = parameter(1.0, "from a stop in order to the start", low=0, high=3600)


@scenario(
    "rolling-restart",
    "Every node is restarted in its turn, and says again what it has.",
    nodes=60,
    seconds=60,
    parameters=RollingRestartParameters,
    nodes_min=3,
)
async def rolling_restart(sim: Simulation, parameters: RollingRestartParameters) -> Mapping[str, Figure]:
    """Restart them one after the other, then look."""
    story = Story(sim, parameters)
    again = sim.checks.declare("everybody was restarted, and is who it was")
    pulls = await stand(sim, story, parameters)
    ids = [node.node_id for node in sim.members]
    order = sim.random("order").sample(range(sim.nodes), sim.nodes)
    async with trio.open_nursery() as nursery, story.watched(mean_max=MEAN_MAX):
        if pulls is not None:
            nursery.start_soon(pulls.go_on, parameters.pulls_per_s)
        await trio.sleep(5.0)
        for place, number in enumerate(order):
            nursery.start_soon(story.play, [(place * parameters.each_s, Stop(number))])
        await story.play([(place * parameters.each_s + parameters.down_s, Restart(n)) for place, n in enumerate(order)])
        restarted = [node.boots == 2 and node.node_id == each for node, each in zip(sim.members, ids, strict=True)]
        again.holds(all(restarted), f"{restarted.count(False)} were not")
        story.found_mostly()
        found_s = await story.all_found(story.limit_s(FOUND_S), after="the last start")
        nursery.cancel_scope.cancel()
    return {"seconds_found": round(found_s, 3)} | story.figures() | ({} if pulls is None else pulls.figures())

"""Two clusters that never heard of one another become one.

What is shown: as soon as a member of one is named to members of the other, by a file that is changed or by a name that
gets more addresses, all of them know one another and find what all of them have, each within a stated time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from simulations.nodes import ROUTER_PORT
from simulations.scenario import Figure, parameter, scenario
from simulations.story import Story, StoryParameters
from simulations.world import BOOTSTRAP_HOSTS, Simulation, host_of

MEAN_MAX = 1500.0  # datagrams a node and second: everybody meets everybody of the other half within a second or two
FILE_NOTICED_S, NAME_NOTICED_S = 4.0, 75.0  # a file is looked at each 2 s, a name each minute, with some chance
MET_S = 10.0  # after that: news gets around
KNOWN_S = 60.0  # after that: lists are read each half minute
FOUND_S = 10.0  # after that


@dataclass(frozen=True)
class TwoClustersParameters(StoryParameters):
    """See `scenario`."""

    share: float = parameter(0.5, "of the nodes are in the first cluster", low=0.1, high=0.9)
    by_name: bool = parameter(default=False, help="they share a name that gets more addresses, in place of files")


@scenario(
    "two-clusters",
    "Two clusters become one when their bootstrap names members of both.",
    nodes=60,
    seconds=30,
    parameters=TwoClustersParameters,
    nodes_min=3,
)
async def two_clusters(sim: Simulation, parameters: TwoClustersParameters) -> Mapping[str, Figure]:
    """Let both stand, name them to one another, look."""
    story = Story(sim, parameters)
    first = max(1, round(sim.nodes * parameters.share))
    met = sim.checks.declare("everybody knows members of both clusters")
    known = sim.checks.declare("everybody knows enough of what is one cluster now")
    for begin, end in ((0, first), (first, sim.nodes)):
        await _stand(sim, story, begin, end, by_name=parameters.by_name)
    story.deal()
    story.apart = lambda asker, provider: (asker.number < first) != (provider.number < first)
    async with story.watched(mean_max=MEAN_MAX):
        await trio.sleep(5.0)
        for begin in (0, first):
            _name(sim, begin, [0, first], by_name=parameters.by_name)
        noticed_s = NAME_NOTICED_S if parameters.by_name else FILE_NOTICED_S
        met_s = await met.within(noticed_s + MET_S, lambda: _strangers(sim, first))
        known_s = met_s + await known.within(KNOWN_S, story.ignorant)
        story.apart = lambda _asker, _provider: False
        found_s = known_s + await story.all_found(story.limit_s(FOUND_S), after="the merging")
    return {
        "seconds_met": round(met_s, 3),
        "seconds_known": round(known_s, 3),
        "seconds_found": round(found_s, 3),
    } | story.figures()


async def _stand(sim: Simulation, story: Story, begin: int, end: int, *, by_name: bool) -> None:
    """Let the nodes of these numbers be a cluster, whose bootstrap is a name or a file of its own."""
    _name(sim, begin, range(begin, min(end, begin + BOOTSTRAP_HOSTS)), by_name=by_name)
    setting = f"dns:{_of(begin)}" if by_name else f"file:/{_of(begin)}"
    await story.stand([await sim.add_router(start=False, bootstrap=setting) for _ in range(begin, end)])


def _name(sim: Simulation, begin: int, numbers: Iterable[int], *, by_name: bool) -> None:
    """Let these nodes be the bootstrap of the cluster that begins with a number."""
    hosts = [host_of(number) for number in numbers]
    sim.trace.note(f"fault: the cluster of {_of(begin)} is told of {hosts}")
    if by_name:
        sim.world.names[_of(begin)] = hosts
    else:
        sim.files.put(Path("/", _of(begin)), "".join(f"{host}:{ROUTER_PORT}\n" for host in hosts).encode())


def _of(begin: int) -> str:
    return f"cluster-{begin}.internal"


async def _strangers(sim: Simulation, first: int) -> str | None:
    """Say who knows only members of its own cluster."""
    halves = [{node.node_id for node in half} for half in (sim.members[:first], sim.members[first:])]
    for node in sim.alive():
        known = {each.node_id for each in node.router.members()} | {node.node_id}
        if any(known.isdisjoint(half) for half in halves):
            return f"{node} knows nobody of the other one"
    return None

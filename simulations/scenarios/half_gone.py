"""Half of all nodes lose their power in one moment, and get it back later.

What is shown: nobody is handed out for longer than ten seconds after that moment; those that are left find all that
they have among them within a stated time, and so does everybody once the others are back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from simulations.scenario import Figure, parameter, scenario
from simulations.schedule import PowerOff, Start
from simulations.story import Story, StoryParameters
from simulations.world import Simulation

MEAN_MAX = 1300.0  # datagrams a node and second: 64 of the dead are looked at together, with some 20 for each
FOUND_S = 45.0  # in a cluster that is known entirely, even where all holders of a key have died
BACK_WITHIN_S = 5.0  # hosts boot within some seconds of one another


@dataclass(frozen=True)
class HalfGoneParameters(StoryParameters):
    """See `scenario`."""

    share: float = parameter(0.5, "of the nodes lose their power", low=0, high=0.9)
    seconds: float = parameter(30.0, "until they get it back", low=10, high=3600)


@scenario(
    "half-gone",
    "Half of all nodes die at once; the others stop handing them out in ten seconds and find all that is left.",
    nodes=100,
    seconds=30,
    parameters=HalfGoneParameters,
    nodes_min=3,
)
async def half_gone(sim: Simulation, parameters: HalfGoneParameters) -> Mapping[str, Figure]:
    """Let them die, look, let them return, look again."""
    story = Story(sim, parameters)
    await story.stand([await sim.add_router(start=False) for _ in range(sim.nodes)])
    story.deal()
    async with story.watched(mean_max=MEAN_MAX):
        await trio.sleep(5.0)
        victims = sim.random("victims").sample(range(sim.nodes), int(sim.nodes * parameters.share))
        await story.play([(0.0, PowerOff(number)) for number in victims])
        died = sim.now
        left_s = await story.all_found(story.limit_s(FOUND_S), after="the deaths")
        await trio.sleep_until(died + parameters.seconds)
        random = sim.random("returns")
        await story.play([(random.uniform(0, BACK_WITHIN_S), Start(number)) for number in sorted(victims)])
        back_s = await story.all_found(story.limit_s(FOUND_S), after="the return")
    found = {"seconds_found_after_deaths": round(left_s, 3), "seconds_found_after_return": round(back_s, 3)}
    return found | story.figures()

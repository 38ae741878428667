"""One node after another loses its power while nothing else happens, and returns when all know of it.

What is shown: how soon the first of the others suspects it, and how soon all take it for gone. By the protocol
(`routing.dht.liveness`) each is pinged once a round by each other one, so that all together ping it once a second on
average; an answer is missed at the next tick, a second later; a look takes 1 s, and 1.25 s where a helper is silent
too; a suspect has 3 s to speak, and is gone at the tick after that. So it is suspected after 3 s on average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import trio

from p2pmirror.routing.dht.liveness import DIRECT_S, LOOK_S, PERIOD_S
from p2pmirror.routing.dht.members import SUSPICION_S
from simulations.scenario import Figure, parameter, scenario
from simulations.schedule import PowerOff, Start, play
from simulations.world import Node, Simulation

LOOK_EVERY_S = 0.05  # how fine the figures are
UNLUCKY_S = 7.0  # nobody's turn comes in this time once in a thousand deaths: all together ping once a second
SUSPECTED_S = UNLUCKY_S + PERIOD_S + DIRECT_S + LOOK_S
SUSPECTED_MEAN_S = PERIOD_S + PERIOD_S + LOOK_S + 1.0  # a turn, a tick, a look; a second more than that for chance
MEAN_OF = 10  # deaths of which the mean tells anything
TOLD_S = 4.0  # until the news is with everybody, who may have looked by themselves as well
GONE_S = SUSPECTED_S + TOLD_S + SUSPICION_S + PERIOD_S
KNOWN_S = 10.0  # until all know a newcomer
REST_S = 10.0  # between a return and the next death, at most


@dataclass(frozen=True)
class SilentDeathParameters:
    """See `scenario`."""

    deaths: int = parameter(10, "deaths, one after another", low=1, high=10_000)


@scenario(
    "silent-death",
    "A node dies without a word: how soon it is suspected, and how soon all know.",
    nodes=20,
    seconds=5,
    parameters=SilentDeathParameters,
    nodes_min=3,
)
async def silent_death(sim: Simulation, parameters: SilentDeathParameters) -> Mapping[str, Figure]:
    """Let one after another die, and see what the others think of it."""
    suspected, gone = sim.checks.declare("a dead node is suspected"), sim.checks.declare("all know that it is gone")
    known = sim.checks.declare("all are known to all")
    for _ in range(sim.nodes):
        await sim.add_router()
    await known.within(KNOWN_S, partial(_unless_all_are_known, sim))
    random = sim.random("deaths")
    first: list[float] = []
    last: list[float] = []
    for _ in range(parameters.deaths):
        await trio.sleep(random.uniform(0, REST_S))
        victim = random.choice(sim.members)
        await play(sim, [(0.0, PowerOff(victim.number))])
        died = sim.now
        await suspected.within(SUSPECTED_S, partial(_unless_suspected, sim, victim), every_s=LOOK_EVERY_S)
        first.append(sim.now - died)
        await gone.within(GONE_S - first[-1], partial(_unless_gone, sim, victim), every_s=LOOK_EVERY_S)
        last.append(sim.now - died)
        await play(sim, [(0.0, Start(victim.number))])
        await known.within(KNOWN_S, partial(_unless_all_are_known, sim))
    if len(first) >= MEAN_OF:
        soon = sim.checks.declare(f"a dead node is suspected within {SUSPECTED_MEAN_S:g} s on average")
        mean = sum(first) / len(first)
        soon.holds(mean <= SUSPECTED_MEAN_S, f"{mean:.1f} s")
    return _figures("suspected", first) | _figures("gone", last)


async def _unless_suspected(sim: Simulation, victim: Node) -> str | None:
    return None if _thought(sim, victim) - {"alive"} else "nobody doubts it"


async def _unless_gone(sim: Simulation, victim: Node) -> str | None:
    thought = _thought(sim, victim)
    return None if thought == {"gone"} else f"{sorted(thought)} is what the others say"


async def _unless_all_are_known(sim: Simulation) -> str | None:
    doubted = [str(node) for node in sim.members if _thought(sim, node) != {"alive"}]
    return f"{', '.join(doubted)} is not known to all" if doubted else None


def _thought(sim: Simulation, node: Node) -> set[str]:
    """Return in which states the others have a node."""
    others = (each.router for each in sim.members if each.up and each is not node)
    return {next((m.state for m in router.members() if m.node_id == node.node_id), "unknown") for router in others}


def _figures(what: str, seconds: list[float]) -> dict[str, Figure]:
    ordered = sorted(seconds)
    return {
        f"seconds_{what}_mean": round(sum(ordered) / len(ordered), 2),
        f"seconds_{what}_p95": round(ordered[int(0.95 * (len(ordered) - 1))], 2),
        f"seconds_{what}_max": round(ordered[-1], 2),
    }

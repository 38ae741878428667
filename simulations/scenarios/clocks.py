"""No two clocks agree: monotonic ones and wall clocks are up to an hour off, and jump while the nodes run.

What is shown: with a cluster key, which binds each datagram to its receiver's clock, and without one, everything is
found as if all clocks were right, and a jump of a node's own clock costs no more than questions asked twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import trio

from p2pmirror.routing.dht.seal import KeyedSeal
from p2pmirror.wire.keyring import KEY_BYTES, KeyRing
from simulations.scenario import Figure, parameter, scenario
from simulations.schedule import SetClock
from simulations.story import Story, StoryParameters
from simulations.world import Simulation

MEAN_MAX = 100.0  # datagrams a node and second: the idle cost, with questions that are asked twice after jumps
FOUND_S = 10.0  # in a cluster that is known entirely


@dataclass(frozen=True)
class ClocksParameters(StoryParameters):
    """See `scenario`."""

    off_s: float = parameter(3600.0, "clocks are off by, at most", low=0, high=365 * 86400)
    seconds: float = parameter(60.0, "during which clocks jump", low=1, high=24 * 3600)
    jumps: int = parameter(20, "of them", low=0, high=100_000)
    keyed: bool = parameter(default=True, help="the cluster has a key")


@scenario(
    "clocks",
    "Clocks that are an hour off, and jump, harm nobody.",
    nodes=60,
    seconds=30,
    parameters=ClocksParameters,
    nodes_min=3,
)
async def clocks(sim: Simulation, parameters: ClocksParameters) -> Mapping[str, Figure]:
    """Set the clocks, let them jump, look."""
    story = Story(sim, parameters)
    known = sim.checks.declare("nobody is taken for gone because of a clock")
    random = sim.random("clocks")
    off_s = parameters.off_s
    ring = KeyRing([blake2b(b"a cluster's key", digest_size=KEY_BYTES).digest()])
    seal = KeyedSeal(ring) if parameters.keyed else None
    nodes = [await sim.add_router(start=False, seal=seal) for _ in range(sim.nodes)]
    await story.play([(0.0, _off(node.number, random.uniform(-off_s, off_s))) for node in nodes])
    await story.stand(nodes)
    story.deal()
    async with story.watched(mean_max=MEAN_MAX):
        await trio.sleep(2.0)
        jumps = [
            (random.uniform(0, parameters.seconds), _off(random.randrange(sim.nodes), random.uniform(-off_s, off_s)))
            for _ in range(parameters.jumps)
        ]
        began = sim.now
        await story.play(jumps)
        await trio.sleep_until(began + parameters.seconds)
        gone = sum(each.state == "gone" for node in sim.alive() for each in node.router.members())
        known.holds(not gone, f"{gone} times somebody is said to be gone")
        story.found_mostly()
        found_s = await story.all_found(story.limit_s(FOUND_S), after="the jumps")
    return {"seconds_found": round(found_s, 3)} | story.figures()


def _off(node: int, seconds: float) -> SetClock:
    """Return the fault: one clock that much fast, the other that much slow."""
    return SetClock(node, monotonic_s=seconds, wall_s=-seconds)

"""Everything that can go wrong at once, for a while: `python -m tests.simulations.chaos SEED` prints the digest.

Whole agents and routers alone live through churn, partitions, loss, resets and clocks that are off, and are asked over
HTTP meanwhile, so that whatever depends on the order of a set or on the machine shows in the digest.
"""

from __future__ import annotations

import sys

import trio

from p2pmirror.errors import MirrorError
from p2pmirror.routing.protocol import Key, Offer, Provider
from p2pmirror.wire.memory import Link
from simulations.playing import Run, play
from simulations.schedule import Block, Heal, Partition, Reset, SetClock, churn
from simulations.schedule import play as happen
from simulations.world import Simulation
from tests.simulations.stories import Parameters, scenario_of

WHOLE, ALONE = 6, 8
PAGES = ("/readyz", "/api/v1/status", "/api/v1/members", "/metrics")
BAD_LINK = Link(
    latency_s=0.0005, jitter_s=0.0005, loss=0.02, duplication=0.01, reordering=0.01, reordering_s=0.02, repeat_s=0.2
)


async def chaos(sim: Simulation, parameters: Parameters) -> dict[str, int]:
    """Play it for half a minute."""
    for number in range(WHOLE):
        await sim.add_node(zone=f"zone {number % 3}", store="oci-layout:/images")
    for number in range(ALONE):
        await sim.add_router(zone=f"zone {number % 3}")
    await trio.sleep(3)
    keys = [Key(sim.random("keys").randbytes(20)) for _ in range(60)]
    for key in keys:
        sim.random("owners").choice(sim.members).router.advertise({key: Offer()})
    half, rest = tuple(range(0, 14, 2)), tuple(range(1, 14, 2))
    faults = churn(sim.random("churn"), range(14), seconds=25, rate_per_hour=300, down_s=4)
    faults += [(5.0, Partition((half,))), (9.0, Heal()), (11.0, Block(half, rest)), (14.0, Heal())]
    faults += [(15.0, Reset(0, 1)), (16.0, SetClock(2, monotonic_s=3600, wall_s=-3600))]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ask, sim, keys)
        await happen(sim, faults)
        nursery.cancel_scope.cancel()
    return {"faults": len(faults)}


async def _ask(sim: Simulation, keys: list[Key]) -> None:
    chance = sim.random("asking")
    while True:
        await trio.sleep(chance.uniform(0, 0.5))
        node, found = chance.choice(sim.alive()), []
        with trio.move_on_after(1):
            async with node.router.find(chance.choice(keys)) as channel:
                found = [each.node_id.hex() async for each in channel if isinstance(each, Provider)]
        sim.trace.note(f"{node} finds {found}")
        asked = sim.members[chance.randrange(WHOLE)]
        try:
            with trio.move_on_after(2):
                status, body = await sim.get(asked.page, chance.choice(PAGES))
                sim.trace.note(f"{asked} answers {status}, {len(body)} bytes")
        except MirrorError as error:
            sim.trace.note(f"{asked}: {error}")


if __name__ == "__main__":
    outcome = play(Run(scenario_of(chaos, link=lambda parameters: BAD_LINK), WHOLE + ALONE, int(sys.argv[1])))
    print(outcome.trace_digest, outcome.ok, outcome.violated or outcome.error, outcome.datagrams)  # noqa: T201  # its result

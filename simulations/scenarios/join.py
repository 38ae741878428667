"""Many nodes start within some seconds, through the first three of them.

What is shown: everybody has joined, everybody knows everybody (up to as many as a node means to know), and what some of
them have is found by others, each within a stated time; and what joining costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, median

import trio

from p2pmirror.routing.dht.table import CONTACTS_MAX
from p2pmirror.routing.protocol import Key, Offer, Provider
from simulations.scenario import Figure, parameter, scenario
from simulations.world import Node, Simulation

KNOWN_ENOUGH = CONTACTS_MAX // 3  # contacts: of a large cluster a newcomer meets half a table, the rest comes by itself
EVERYBODY_MAX = 64  # nodes up to which every one is asked what it knows; of more, as many are drawn


@dataclass(frozen=True)
class JoinParameters:
    """See `scenario`."""

    within_s: float = parameter(10.0, "all nodes start within so many seconds", low=0)
    limit_s: float = parameter(30.0, "so long after the last start everybody must know enough", low=0.1)
    whole: bool = parameter(default=False, help="whole agents in place of routers alone")
    lookups: int = parameter(100, "keys that are looked up in the end", low=1, high=100_000)


@scenario(
    "join",
    "Nodes that start together through three addresses find one another and what they have.",
    nodes=100,
    seconds=10,
    parameters=JoinParameters,
    nodes_min=2,
)
async def join(sim: Simulation, parameters: JoinParameters) -> Mapping[str, Figure]:
    """Start them all, wait until they know one another, and look keys up."""
    joined = sim.checks.declare("every node has joined")
    known = sim.checks.declare("every node asked knows all others, or a third of a table of them")
    found = sim.checks.declare("what one node has is found by another")

    await _start_all(sim, parameters)
    last_start = sim.now
    await joined.within(parameters.limit_s, lambda: _strangers(sim))
    all_joined = sim.now
    asked = _sample(sim)
    await known.within(parameters.limit_s, lambda: _ignorant(sim, asked))
    sim.trace.note("everybody knows enough")
    joining = sim.trace.pieces("datagram"), sim.trace.bytes("datagram")
    known_at = sim.now

    keys = [Key(sim.random("keys").randbytes(20)) for _ in range(parameters.lookups)]
    owners = [sim.random("owners").choice(sim.members) for _ in keys]
    for key, owner in zip(keys, owners, strict=True):
        owner.router.advertise({key: Offer()})
    await trio.sleep(2.0)  # what is new is known within it
    seconds = []
    for key, owner in zip(keys, owners, strict=True):
        asker = sim.random("askers").choice([node for node in sim.members if node is not owner])
        began = sim.now
        providers = await find(asker, key)
        found.holds([each.node_id for each in providers] == [owner.node_id], f"{asker} finds {len(providers)} of 1")
        seconds.append(sim.now - began)
    return {
        "seconds_joined": round(all_joined - last_start, 3),
        "seconds_known": round(known_at - last_start, 3),
        "datagrams_per_node": round(joining[0] / sim.nodes, 1),
        "bytes_per_node": round(joining[1] / sim.nodes),
        "members_known_mean": round(fmean(len(node.router.members()) for node in asked), 1),
        "lookup_ms_median": round(1000 * median(seconds), 3),
        "lookup_ms_max": round(1000 * max(seconds), 3),
    }


async def find(node: Node, key: Key) -> list[Provider]:
    """Look a key up to the end; return who is said to have it."""
    async with node.router.find(key) as channel:
        return [each async for each in channel if isinstance(each, Provider)]


async def _start_all(sim: Simulation, parameters: JoinParameters) -> None:
    """Start the nodes at random moments of the time given; the first one at once."""
    moments = sorted(sim.random("starts").uniform(0, parameters.within_s) for _ in range(sim.nodes - 1))
    async with trio.open_nursery() as starting:
        for moment in (0.0, *moments):
            node = await (sim.add_node(start=False) if parameters.whole else sim.add_router(start=False))
            await trio.sleep_until(moment)
            starting.start_soon(node.start)


async def _strangers(sim: Simulation) -> str | None:
    outside = [node for node in sim.members if not node.router.joined]
    return f"{len(outside)} have not, {outside[0]} for one" if outside else None


async def _ignorant(sim: Simulation, asked: list[Node]) -> str | None:
    enough = min(sim.nodes - 1, KNOWN_ENOUGH)
    ignorant = [(node, known) for node in asked if (known := len(node.router.members())) < enough]
    return f"{len(ignorant)} do not; {ignorant[0][0]} knows {ignorant[0][1]} of {enough}" if ignorant else None


def _sample(sim: Simulation) -> list[Node]:
    if len(sim.members) <= EVERYBODY_MAX:
        return sim.members
    return sim.random("sample").sample(sim.members, EVERYBODY_MAX)

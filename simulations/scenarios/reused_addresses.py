"""Addresses change hands: a dead node's goes to a new one, a node returns at another one, two nodes swap theirs.

What is shown: nobody is handed out for what another node had at his address, nor at an address that he left, for long;
a stated time after each change everything is found where it is now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from p2pmirror.wire.memory import MemoryNetwork
from simulations.scenario import Figure, parameter, scenario
from simulations.schedule import Kill
from simulations.story import Story, StoryParameters
from simulations.world import Node, Simulation

MEAN_MAX = 1000.0  # datagrams a node and second: the silent are looked at, who is new is met by everybody
FOUND_S = (
    20.0  # in a cluster that is known entirely: 10 s until the former owners are found out, as long to tell others
)
FRESH_HOST = "10.100.{}.{}"  # addresses that nobody had before


@dataclass(frozen=True)
class ReusedAddressesParameters(StoryParameters):
    """See `scenario`."""

    share: float = parameter(0.2, "of the nodes take part in each kind of change", low=0.01, high=0.5)
    down_s: float = parameter(
        3.0, "until an address is used again, at most: the death is not known yet", low=0, high=600
    )
    heir_keys: int = parameter(3, "keys that each new node has", low=0, high=1000)


@scenario(
    "reused-addresses",
    "Addresses go to other nodes, nodes to other addresses, and nobody is taken for somebody else.",
    nodes=60,
    seconds=40,
    parameters=ReusedAddressesParameters,
    nodes_min=3,
)
async def reused_addresses(sim: Simulation, parameters: ReusedAddressesParameters) -> Mapping[str, Figure]:
    """Change addresses in three ways, and look after each."""
    story = Story(sim, parameters)
    await story.stand([await sim.add_router(start=False) for _ in range(sim.nodes)])
    story.deal()
    figures: dict[str, Figure] = {}
    count = max(1, int(sim.nodes * parameters.share))
    async with story.watched(mean_max=MEAN_MAX):
        await trio.sleep(5.0)
        for name, change in (("inherited", _inherit), ("moved", _move), ("swapped", _swap)):
            chosen = sim.random("victims").sample(story.up(), max(2, count) if name == "swapped" else count)
            await story.play([(0.0, Kill(node.number)) for node in chosen])
            async with trio.open_nursery() as nursery:
                for node in await change(story, chosen, parameters):
                    nursery.start_soon(_start_soon, sim, node, parameters.down_s)
            found_s = await story.all_found(story.limit_s(FOUND_S), after=f"addresses were {name}")
            figures[f"seconds_found_{name}"] = round(found_s, 3)
            await trio.sleep(5.0)
    return figures | story.figures()


async def _inherit(story: Story, dead: list[Node], parameters: ReusedAddressesParameters) -> list[Node]:
    """Give the addresses of the dead to new nodes, which have keys of their own."""
    random = story.sim.random("heirs")
    heirs: list[Node] = []
    for node in dead:
        heir = await story.sim.add_router(host=node.host, start=False)
        for key in random.sample(list(story.holdings), min(parameters.heir_keys, len(story.holdings))):
            story.give(key, [heir.number])
        heirs.append(heir)
    return heirs


async def _move(story: Story, dead: list[Node], _: ReusedAddressesParameters) -> list[Node]:
    """Give the dead addresses that nobody had."""
    for node in dead:
        host = FRESH_HOST.format(node.number >> 8, node.number & 255)
        _settle(story, node, host, story.sim.world.host(host))
    return dead


async def _swap(story: Story, dead: list[Node], _: ReusedAddressesParameters) -> list[Node]:
    """Give each of the dead the address of another."""
    places = [(node.host, node.network) for node in dead]
    for node, place in zip(dead, [*places[1:], places[0]], strict=True):
        _settle(story, node, *place)
    return dead


def _settle(story: Story, node: Node, host: str, network: MemoryNetwork) -> None:
    story.sim.trace.note(f"fault: {node} settles at {host}")
    story.moved(node, node.registry)
    node.host, node.network = host, network


async def _start_soon(sim: Simulation, node: Node, within_s: float) -> None:
    await trio.sleep(sim.random("returns").uniform(0, within_s))
    await node.start()

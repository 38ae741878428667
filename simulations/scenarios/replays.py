"""Somebody has overheard everything and sends it again: now, a minute later, after restarts, in any name.

What is shown: what was withdrawn stays withdrawn, who left stays away, a stranger gets no more than it sent, and
everything is found all the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from p2pmirror.routing.dht.codec import NullSeal
from p2pmirror.routing.protocol import Key, Offer
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import AGE_MAX_MS
from p2pmirror.wire.memory import MemoryNetwork
from simulations.adversary import Adversary, Siege
from simulations.scenario import Figure, parameter, scenario
from simulations.world import Simulation

LATER_S = AGE_MAX_MS / 1000 + 1  # a binding is stale then
BACK_S = 10.0  # who is dead, or left, and is named again by a copy, is found out within this
SETTLE_S = 5.0
OVERHEARD_MAX = 20_000  # datagrams that are sent again in each round: the latest ones
STEP = 100  # datagrams between two pauses
STEP_S = 0.005

Overheard = tuple[bytes, Address, Address]


@dataclass(frozen=True)
class ReplaysParameters:
    """See `scenario`."""

    key: bool = parameter(default=True, help="the cluster has a key")


@scenario(
    "replays",
    "All that was overheard is sent again, now and later, from anywhere: nothing that has ended begins anew.",
    nodes=12,
    seconds=30,
    parameters=ReplaysParameters,
    nodes_min=4,
)
async def replays(sim: Simulation, parameters: ReplaysParameters) -> Mapping[str, Figure]:
    """Overhear all of a cluster's life, and send it again in four ways at three times."""
    overheard: list[Overheard] = []
    _listen(sim, overheard)
    siege = Siege(sim, key=parameters.key)
    await siege.stand(sim.nodes)
    withdrawn = Key(sim.random("withdrawn").randbytes(20))
    leaver, owner = siege.honest[-1], siege.honest[1]
    owner.router.advertise({withdrawn: Offer()})
    leaver.router.advertise({withdrawn: Offer()})
    await siege.look_up(2.0)
    owner.router.withdraw([withdrawn])
    await leaver.stop()
    await trio.sleep(SETTLE_S)
    copies = overheard[-OVERHEARD_MAX:]
    siege.owners[withdrawn] = set()
    again = _Again(siege, withdrawn, copies)
    figures: dict[str, Figure] = {"overheard": len(copies)}
    figures |= await again.everything("at_once")
    await trio.sleep(LATER_S)
    figures |= await again.everything("a_minute_later")
    for node in siege.honest[:-1]:
        await node.restart()
        node.router.advertise({key: Offer() for key, owners in siege.owners.items() if node.node_id in owners})
    await sim.checks.declare("the cluster stands again").within(60.0, siege.strange)
    figures |= await again.everything("after_restarts")
    return figures


class _Again:
    """Sends all of it again, and looks at what comes of it."""

    def __init__(self, siege: Siege, withdrawn: Key, copies: list[Overheard]) -> None:
        sim = siege.sim
        self._siege, self._withdrawn, self._copies = siege, withdrawn, copies
        self._thief = Adversary(sim, "10.240.0.1", seal=NullSeal())
        self._opened = False
        self._away = sim.checks.declare("who left and what was withdrawn is not found again")
        self._quiet = sim.checks.declare("a stranger gets no more than it sent")
        self._found = sim.checks.declare("everything is found all the time")
        self._members = sim.checks.declare(f"members are who they were, {BACK_S:g} s later")

    async def everything(self, when: str) -> dict[str, Figure]:
        """Send copies in their senders' names, then from a stranger's address."""
        if not self._opened:
            await self._thief.open()
            self._opened = True
        figures: dict[str, Figure] = {}
        for in_their_names in (True, False):
            sent, received = self._thief.sent_bytes, self._thief.received_bytes
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, in_their_names)
                looked = await self._siege.look_up(2.0)
            await self._nothing_came_back()
            got, gave = self._thief.received_bytes - received, self._thief.sent_bytes - sent
            self._quiet.holds(got <= gave, f"{got} bytes for {gave}, {when}")
            self._found.holds(looked.found == looked.lookups, f"{looked.found} of {looked.lookups}, {when}")
            took_s = await self._members.within(BACK_S, self._siege.strange)
            how = "spoofed" if in_their_names else "as_a_stranger"
            figures |= {f"bytes_back_{how}_{when}": got, f"seconds_until_as_before_{how}_{when}": round(took_s, 3)}
        return figures

    async def _send(self, in_their_names: bool) -> None:  # noqa: FBT001  # a task's argument
        for number, (data, source, to) in enumerate(self._copies):
            self._thief.send(data, to, source=source if in_their_names else None)
            if number % STEP == STEP - 1:
                await trio.sleep(STEP_S)

    async def _nothing_came_back(self) -> None:
        for asker in self._siege.honest:
            if asker.alive:
                found = await self._siege.find(asker, self._withdrawn)
                self._away.holds(not found, f"{asker} finds {len(found)} who have what nobody has")


def _listen(sim: Simulation, overheard: list[Overheard]) -> None:
    """Take down all that is sent; what is sent again is not taken down, since the scenario looks no further then."""
    carry = sim.world.carry

    def listening(data: bytes, source: Address, home: MemoryNetwork, to: Address) -> None:
        overheard.append((data, source, to))
        carry(data, source, home, to)

    sim.world.carry = listening  # type: ignore[method-assign]  # an eavesdropper is no part of the world

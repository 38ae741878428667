"""Faults by schedule: what goes wrong when, as data, and the one who makes it happen.

Laws: a schedule is data, so that it can be drawn, printed and cut; each fault is noted in the trace at the moment at
which it happens; nodes are named by their numbers; what no longer makes sense (killing the dead) does nothing, so that
schedules may be drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import TYPE_CHECKING

import trio

from p2pmirror.wire.memory import Link

if TYPE_CHECKING:
    from simulations.world import Simulation

Group = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Partition:
    """Cut the world into these groups; all others form one more."""

    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Let nothing through from `sources` to `targets`; the other way all."""

    sources: Group
    targets: Group


@dataclass(frozen=True, slots=True)
class Heal:
    """End every partition and every block."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Break every connection between two nodes."""

    one: int
    other: int


@dataclass(frozen=True, slots=True)
class SetLink:
    """Join every node of one group with every node of another by a link of their own, in both directions."""

    ones: Group
    others: Group
    link: Link


@dataclass(frozen=True, slots=True)
class Kill:
    """End a process; its host runs on."""

    node: int


@dataclass(frozen=True, slots=True)
class PowerOff:
    """Cut a host's power."""

    node: int


@dataclass(frozen=True, slots=True)
class Start:
    """Let a node run that does not; its host gets power if it has none."""

    node: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a node in order."""

    node: int


@dataclass(frozen=True, slots=True)
class Restart:
    """Stop a node in order if it runs, and start it again with what is on its disk."""

    node: int


@dataclass(frozen=True, slots=True)
class SetClock:
    """Set a node's clocks so many seconds off: the monotonic one that it tells others, and its wall clock."""

    node: int
    monotonic_s: float = 0.0
    wall_s: float = 0.0


Fault = Partition | Block | Heal | Reset | SetLink | Kill | PowerOff | Start | Stop | Restart | SetClock
Schedule = Sequence[tuple[float, Fault]]
"""Virtual seconds from the beginning of the schedule, and what happens then."""


async def play(sim: Simulation, schedule: Schedule) -> None:
    """Make it all happen; returns when the last fault has. Stops and starts take their time beside the others."""
    began = sim.now
    async with trio.open_nursery() as nursery:
        for after_s, fault in sorted(schedule, key=lambda entry: entry[0]):
            await trio.sleep_until(began + after_s)
            sim.trace.note(f"fault: {fault}")
            _apply(sim, fault, nursery)


def _apply(sim: Simulation, fault: Fault, nursery: trio.Nursery) -> None:
    members, world = sim.members, sim.world
    match fault:
        case Partition(groups):
            world.partition(*(sim.networks(group) for group in groups))
        case Block(sources, targets):
            world.block(sim.networks(sources), sim.networks(targets))
        case Heal():
            world.heal()
        case Reset(one, other):
            world.reset(members[one].network, members[other].network)
        case SetLink(ones, others, link):
            for pair in product(sim.networks(ones), sim.networks(others)):
                world.set_link(*pair, link)
        case SetClock(number, monotonic_s, wall_s):
            members[number].clock_offset_s, members[number].wall_offset_s = monotonic_s, wall_s
        case _:
            _change_life(sim, fault, nursery)


def _change_life(sim: Simulation, fault: Kill | PowerOff | Start | Stop | Restart, nursery: trio.Nursery) -> None:
    node = sim.members[fault.node]
    match fault:
        case Kill():
            node.kill()
        case PowerOff():
            node.power_off()
        case Start() if not node.alive:
            nursery.start_soon(node.restart)
        case Stop():
            nursery.start_soon(node.stop)
        case Restart():
            nursery.start_soon(node.restart)


def churn(
    random: Random, nodes: Iterable[int], *, seconds: float, rate_per_hour: float, down_s: float, orderly: float = 0.5
) -> list[tuple[float, Fault]]:
    """Draw deaths and returns: each node dies `rate_per_hour` times an hour on average, and is back after `down_s`.

    Deaths are a Poisson process for each node while it is up. `orderly` of them are stops, the others are kills and
    power failures in equal parts. All are back in the end, some later than `seconds`.
    """
    schedule: list[tuple[float, Fault]] = []
    for node in nodes:
        after_s = random.expovariate(rate_per_hour / 3600)
        while after_s < seconds:
            kind = Stop if random.random() < orderly else random.choice((Kill, PowerOff))
            schedule += [(after_s, kind(node)), (after_s + down_s, Start(node))]
            after_s += down_s + random.expovariate(rate_per_hour / 3600)
    return sorted(schedule, key=lambda entry: entry[0])

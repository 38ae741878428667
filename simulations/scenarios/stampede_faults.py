"""All nodes pull at once what only the registry has, and something fails, stalls or lies in the middle of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from p2pmirror.oci import Digest
from simulations.lying import LIES, Liar
from simulations.nodes import WholeNode
from simulations.pullers import Puller
from simulations.scenario import BadValue, Figure, parameter, scenario
from simulations.scenarios.stampede import CACHE, Stampede, StampedeParameters
from simulations.schedule import Heal, Partition, play
from simulations.world import Simulation

FIRST_S = 0.2  # one node begins so much before the others, and leads
COPIES_USUAL = 1.85  # what a leader had got and not given whole is fetched once more: of 16 pieces most
STAND_STILL = {"leader-cut-off", "registry-silent", "registry-back"}  # longer than a lease bears
COPIES_OF_TWO = 2.7  # two lead: what one has is worth nothing, cannot reach the others, or goes on later
COPIES_OF_SIZE = 3.6  # a leader's wrong length makes each begin anew, at moments of its own: 2.0 to 3.5 in twelve seeds
COPIES_OF_HALVES = 3.1  # one leads in each half, and after one of them, whom no registry answers, another
HEAD_S = 12.0  # a request is held for 10 s at most; and what passes before a flight begins
KEPT_S = 45.0  # what came from peers is kept by then


@dataclass(frozen=True)
class FaultyParameters(StampedeParameters):
    """What a faulty stampede lets one choose."""

    fault: str = parameter("leader-killed", "what goes wrong; a wrong name is told all right ones")
    at: float = parameter(0.5, "of the transfer, when it does", low=0.0, high=1.0)
    lasts_s: float = parameter(8.0, "seconds until it is over, where it ends", low=0.1, high=600)
    liars: int = parameter(1, "nodes that lie, where peers do", low=1, high=100)
    copies_max: float = parameter(0.0, "that the registry may send; 0: as the fault allows", low=0.0, high=1000)
    within_s: float = parameter(60.0, "that a pull may take beyond the optimum", low=1, high=3600)


class FaultyStampede(Stampede):
    """A stampede of clients that do as containerd does."""

    def __init__(self, sim: Simulation, parameters: FaultyParameters) -> None:
        super().__init__(sim, parameters)
        self.liars: list[Liar] = []
        self.passed_over = self.begun_again = self.failed = 0
        self.may_fail = False
        self._faulty = parameters
        self.clean = sim.checks.declare("a response that ends cleanly has the right bytes")
        self._answered = sim.checks.declare("every request is answered in time, with content or without")
        self._in_time = sim.checks.declare("every pull ends in time")
        self._kept = sim.checks.declare("no wrong byte is kept")

    def settings(self, number: int, host: str) -> Mapping[str, Any]:
        """Let liars stand where the fault wants them."""
        return Liar.settings(host) if self.lies(number) else {}

    def lies(self, number: int) -> bool:
        """Whether a node is one that lies."""
        who, _, _ = self._faulty.fault.partition("-lies-")
        return (who == "leader" and number == 0) or (who == "peers" and 0 < number <= self._faulty.liars)

    async def stand(self) -> None:
        """Let the cluster stand, and liars before some nodes."""
        await super().stand()
        for number, node in enumerate(self.nodes):
            if self.lies(number):
                liar = Liar(node, self.registry.blobs)
                self.liars.append(liar)
                await self.sim.nursery.start(liar.run)

    async def pull_one(self, node: WholeNode, layer: Digest) -> None:
        """Pull as containerd does, and see to it that it ends right."""
        began = self.sim.now
        pulled = await Puller(node, self.registry, self.clean).pull(layer)
        self.passed_over += pulled.passed_over
        self.begun_again += pulled.pulls - 1
        self.failed += not pulled.is_right
        self.right.holds(pulled.is_right or self.may_fail, lambda: f"{node}: {pulled}")
        self._answered.holds(pulled.head_s_max <= HEAD_S, lambda: f"{node}: {pulled}")
        took, limit_s = self.sim.now - began, self.optimum_s(len(self.nodes)) + self._faulty.within_s
        is_in_time = took <= limit_s or not pulled.is_right  # whom a kubelet would go on trying for
        self._in_time.holds(is_in_time, lambda: f"{node}: {took:.1f} s and not {limit_s:.1f} s; {pulled}")

    async def look_at_what_is_kept(self) -> None:
        """Look into each node's cache."""
        await trio.sleep(KEPT_S)
        for node in self.nodes:
            for layer, data in self.registry.blobs.items():
                path = Path(CACHE) / "blobs" / "sha256" / layer.hex
                kept = node.files.get(path) if path in node.files.entries else None
                self._kept.holds(kept is None or kept == data, f"{node} keeps wrong bytes")

    async def until(self, share: float) -> None:
        """Wait until the registry has sent a share of what is wanted, at most as long as an optimal transfer takes."""
        wanted = sum(map(len, self.registry.blobs.values()))
        with trio.move_on_after(self.optimum_s(1)):
            while self.registry.sent_bytes < share * wanted:  # noqa: ASYNC110
                await trio.sleep(0.02)


Fault = Callable[[FaultyStampede, FaultyParameters], Awaitable[None]]


async def _killed(stampede: FaultyStampede, _: FaultyParameters) -> None:
    stampede.nodes[0].kill()


async def _unplugged(stampede: FaultyStampede, _: FaultyParameters) -> None:
    stampede.nodes[0].power_off()


async def _cut_off(stampede: FaultyStampede, parameters: FaultyParameters) -> None:
    """Let the leader be heard, and the registry not hear it."""
    world = stampede.sim.world
    world.block([stampede.nodes[0].network], [stampede.registry.network])
    world.block([stampede.registry.network], [stampede.nodes[0].network])
    await trio.sleep(parameters.lasts_s)
    world.heal()


async def _slow(stampede: FaultyStampede, parameters: FaultyParameters) -> None:
    rate = parameters.piece_bytes / parameters.piece_s / 8
    stampede.sim.world.set_rates(stampede.nodes[0].network, upload_rate=rate, download_rate=rate)


async def _lie(stampede: FaultyStampede, parameters: FaultyParameters) -> None:
    for liar in stampede.liars:
        liar.lie = LIES[parameters.fault.partition("-lies-")[2]]


async def _silent(stampede: FaultyStampede, parameters: FaultyParameters) -> None:
    stampede.registry.silent_until = stampede.sim.now + parameters.lasts_s


async def _limited(stampede: FaultyStampede, parameters: FaultyParameters) -> None:
    stampede.registry.limited_until = stampede.sim.now + parameters.lasts_s


async def _gone(stampede: FaultyStampede, _: FaultyParameters) -> None:
    stampede.registry.is_gone = stampede.may_fail = True
    stampede.clean.holds(condition=True, detail="nobody may get all of it any more")


async def _back(stampede: FaultyStampede, parameters: FaultyParameters) -> None:
    stampede.registry.is_gone = True
    await trio.sleep(parameters.lasts_s)
    stampede.registry.is_gone = False


async def _parted(stampede: FaultyStampede, parameters: FaultyParameters) -> None:
    """Cut half the nodes off from the others and from the registry, and heal it."""
    half = tuple(range(len(stampede.nodes) // 2, len(stampede.nodes)))
    await play(stampede.sim, [(0.0, Partition((half,))), (parameters.lasts_s, Heal())])


FAULTS: Mapping[str, Fault] = {
    "leader-killed": _killed,
    "leader-unplugged": _unplugged,
    "leader-cut-off": _cut_off,
    "leader-slow": _slow,
    "registry-silent": _silent,
    "registry-limited": _limited,
    "registry-gone": _gone,
    "registry-back": _back,
    "partition": _parted,
    **{f"{who}-lies-{lie}": _lie for who in ("leader", "peers") for lie in LIES},
}


def _copies_max(fault: str, liars: int) -> float:
    if fault == "partition":
        return COPIES_OF_HALVES
    if fault == "leader-lies-size":
        return COPIES_OF_SIZE
    is_of_two = fault in STAND_STILL or fault.startswith("leader-lies") or liars > 1
    return COPIES_OF_TWO if is_of_two else COPIES_USUAL


@scenario(
    "faulty-stampede",
    "Something fails, stalls or lies while all pull at once: all get the right bytes, from few copies.",
    nodes=8,
    seconds=10,
    parameters=FaultyParameters,
    nodes_min=3,
)
async def run(sim: Simulation, parameters: FaultyParameters) -> Mapping[str, Figure]:
    """Let all pull, and the fault happen."""
    if parameters.fault not in FAULTS:
        raise BadValue(f"fault={parameters.fault}: allowed are {', '.join(FAULTS)}")
    stampede = FaultyStampede(sim, parameters)
    await stampede.stand()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(stampede.pull, stampede.nodes[:1]))
        await trio.sleep(FIRST_S)
        nursery.start_soon(partial(stampede.pull, stampede.nodes[1:]))
        await stampede.until(parameters.at)
        sim.trace.note(f"fault: {parameters.fault}")
        await FAULTS[parameters.fault](stampede, parameters)
    await stampede.look_at_what_is_kept()
    figures = stampede.figures(sim.nodes)
    copies = stampede.copies
    limit = parameters.copies_max or _copies_max(parameters.fault, parameters.liars)
    sim.checks.declare("the registry sends few copies").holds(copies <= limit, f"{copies:.2f}, and not {limit}")
    return {
        **figures,
        "passed_over": stampede.passed_over,
        "begun_again": stampede.begun_again,
        "failed": stampede.failed,
    }

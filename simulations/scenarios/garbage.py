"""Some members answer garbage: other answers, half answers, nothing, too much, or questions for another proof.

What is shown: everything that honest nodes have is found, as long as most of a key's holders are honest; nobody is led
to nodes that do not exist; nothing grows; and once they are gone, all is as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from p2pmirror.routing.dht.codec import encode
from p2pmirror.routing.dht.messages import (
    COMPLETE,
    AnyAnswer,
    Challenge,
    Contact,
    Contacts,
    Found,
    Members,
    Noted,
    Ping,
    Pong,
    Providers,
    Reached,
    Reply,
    Request,
    Stored,
    pack_address,
)
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import UNBOUND
from simulations.adversary import KNOCK_S, Adversary, Siege
from simulations.scenario import Figure, parameter, scenario
from simulations.world import Simulation

AFTER_S = 60.0  # who fell silent is forgotten within this, and everything found
FEW = 0.1  # of all: up to here everything is found all the time


@dataclass(frozen=True)
class GarbageParameters:
    """See `scenario`."""

    bad: int = parameter(3, "members that answer garbage, besides the honest ones", low=1, high=1000)
    key: bool = parameter(default=False, help="the cluster has a key, and so have they")
    seconds: float = parameter(15.0, "they do so for so long", low=1, high=3600)


class Babbler(Adversary):
    """A member that answers pings, and everything else by garbage."""

    def babble(self, request: Request, source: Address) -> AnyAnswer | bytes | None:
        """Answer a question."""
        if isinstance(request.question, Ping):
            return Pong(self.info, int(1000 * self.sim.now))
        home, nobody = pack_address(Address("10.200.0.1", 9)), self.random.randbytes(20)
        closer = tuple(Contact(self.random.randbytes(20), home) for _ in range(40))
        found = tuple(Found(self.random.randbytes(20), home, home, "", COMPLETE, 3600) for _ in range(7))
        whole = self._seal.seal(encode(Reply(request.id, nobody, Contacts(closer[:20]))), UNBOUND)
        answers: tuple[AnyAnswer | bytes | None, ...] = (
            None,
            self.random.randbytes(self.random.randint(0, 1300)),
            whole,
            whole[: self.random.randrange(len(whole))],
            Noted(),
            Reached(alive=True),
            Stored(64),
            Contacts(closer),
            Providers(final=False, found=found, closer=()),
            Providers(final=True, found=found, closer=closer[:8]),
            Members(last=False, infos=()),
            Challenge(self.random.randbytes(8), self.random.randbytes(8), self.random.getrandbits(63)),
        )
        for _ in range(self.random.choice((0, 0, 1, 3))):
            answer = self.random.choice(answers)
            if isinstance(answer, bytes):
                self.send(answer, source)
            elif answer is not None:
                self.reply(request, source, answer)
        return self.random.choice(answers)

    async def run(self, homes: list[Address]) -> None:
        """Join, and stay."""
        for home in homes:
            await self.prove(home)
        while True:
            for home in homes:
                self.ask(home, self.ping())
            await trio.sleep(KNOCK_S)


@scenario(
    "garbage",
    "Members that answer garbage cost time and no more: what honest nodes have is found.",
    nodes=30,
    seconds=20,
    parameters=GarbageParameters,
    nodes_min=3,
)
async def garbage(sim: Simulation, parameters: GarbageParameters) -> Mapping[str, Figure]:
    """Let them babble, look all the time, let them go, look again."""
    siege = Siege(sim, key=parameters.key)
    await siege.stand(sim.nodes)
    before = await siege.look_up(5.0)
    found = sim.checks.declare("with few of them everything is found all the time")
    babblers = []
    for number in range(parameters.bad):
        babbler = Babbler(sim, f"10.220.{number // 250}.{number % 250 + 1}", seal=siege.seal())
        babbler.react = babbler.babble
        siege.adversaries[babbler.node_id] = babbler
        await babbler.open()
        babblers.append(babbler)
    with trio.CancelScope() as babbling:
        async with trio.open_nursery() as nursery:
            for babbler in babblers:
                nursery.start_soon(babbler.run, [node.address for node in siege.honest])
            await trio.sleep(5.0)
            during = await siege.look_up(parameters.seconds)
            babbling.cancel()
    for babbler in babblers:
        babbler.close()
    few = parameters.bad <= FEW * sim.nodes
    found.holds(
        during.found == during.lookups or not few, f"{during.lookups - during.found} of {during.lookups} found nobody"
    )
    gone_s = await sim.checks.declare("members are as before").within(AFTER_S, siege.strange)
    found_s = await sim.checks.declare("everything is found once they are gone").within(AFTER_S, siege.all_found)
    return {
        **before.figures("before"),
        **during.figures("during"),
        "seconds_until_members_are_as_before": round(gone_s, 3),
        "seconds_until_all_is_found": round(found_s, 3),
        "records_most": siege.total("records"),
        "members_most": siege.total("members"),
    }

"""Some members lie about everything: what they have, who others are, where they are, and who has died.

What is shown: whoever is handed out is where it says itself that it is; nobody is driven out of the cluster; with few
liars everything is found all the time, and with many it is measured how much; once they are gone, all is as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from p2pmirror.routing.dht.codec import DATAGRAM_BYTES_MAX
from p2pmirror.routing.dht.messages import (
    ALIVE,
    COMPLETE,
    GONE,
    LEADING,
    LEFT,
    AnyAnswer,
    Contact,
    Contacts,
    DialFailed,
    Entry,
    FindNode,
    FindProviders,
    Found,
    Members,
    MembersAfter,
    News,
    NodeInfo,
    Ping,
    PingThrough,
    Pong,
    Providers,
    Reached,
    Request,
    Store,
    Stored,
    pack_address,
)
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from simulations.adversary import KNOCK_S, Adversary, Siege, Victim
from simulations.scenario import Figure, parameter, scenario
from simulations.world import Simulation

LAST = 2**63 - 1  # the highest sequence and incarnation there is
CLOSER = 40  # contacts in an answer: as many as are taken
AFTER_S = 60.0  # a liar that fell silent is forgotten within this, and everything found
FEW = 1 / 20  # liars among the honest: up to here everything is found all the time
SLANDERS_PER_S = 5.0  # each liar's rounds of lies to everybody


@dataclass(frozen=True)
class LiarsParameters:
    """See `scenario`."""

    liars: int = parameter(1, "members that lie, besides the honest ones", low=1, high=1000)
    key: bool = parameter(default=False, help="the cluster has a key, and so have the liars")
    seconds: float = parameter(20.0, "they lie for so long", low=1, high=3600)
    slander: bool = parameter(default=True, help="they say that others are dead")


class Liar(Adversary):
    """A member whose every word is a lie, but for where it is itself."""

    siege: Siege
    victim: Victim
    slander = True

    def lie(self, request: Request, source: Address) -> AnyAnswer | None:
        """Answer a question."""
        del source
        match request.question:
            case Ping():
                return Pong(self.info, LAST)
            case FindProviders(key, zone):
                return Providers(self.random.random() < 0.5, self._found(zone), self._closer(key))
            case FindNode(target):
                return Contacts(self._closer(target))
            case Store():
                return Stored(64)
            case MembersAfter():
                return Members(last=False, infos=tuple(self._nobody() for _ in range(9)))
            case PingThrough():
                return Reached(self.random.random() < 0.5)
        return self.as_member(request)

    def say(self, target: Address) -> None:
        """Tell one node lies of every kind."""
        keys = list(self.siege.owners)
        honest = self.random.choice(self.siege.honest)
        registry = pack_address(self.victim.address)
        entries = tuple(Entry(key, LAST, LEADING) for key in self.random.sample(keys, min(12, len(keys))))
        self.ask(target, Store(self.boot_id, pack_address(self.registry), "", 3600, entries))
        self.ask(target, Store(self.random.randbytes(8), registry, "", 3600, entries), sender=honest.node_id)
        self.ask(target, Store(self.random.randbytes(8), registry, "", 3600, ()), sender=self._id())
        stolen = NodeInfo(honest.node_id, self.random.randbytes(8), LAST, b"", registry, "")
        self.ask(target, self.ping(stolen), sender=honest.node_id)
        self.ask(target, DialFailed(honest.node_id))
        self.ask(target, PingThrough(Contact(honest.node_id, pack_address(self.victim.address))))
        self.ask(target, self.ping(), news=self._news())

    def _news(self) -> list[News]:
        invented = [self._nobody() for _ in range(2)]
        news = [News(info.node_id, info.boot_id, 0, ALIVE, info) for info in invented]
        known = [info for node_id, info in self.known.items() if node_id not in self.siege.adversaries]
        if known and self.slander:
            about = self.random.choice(known)
            for state in (GONE, LEFT):
                news += [News(about.node_id, about.boot_id, number, state) for number in (about.incarnation, 50, LAST)]
        return news

    def _found(self, zone: str) -> tuple[Found, ...]:
        """Return itself, somebody who does not exist, an honest node elsewhere, and one that has it not."""
        elsewhere = pack_address(self.victim.address)
        honest = self.random.choice(self.siege.honest)
        router, registry = pack_address(honest.address), pack_address(honest.registry)
        mine = pack_address(self.address), pack_address(self.registry)
        return (
            Found(self.node_id, *mine, zone, COMPLETE, 600),
            Found(self._id(), elsewhere, elsewhere, zone, COMPLETE, 600),
            Found(self._id(), *mine, zone, COMPLETE, 600),
            Found(honest.node_id, elsewhere, elsewhere, zone, LEADING, 600),
            Found(honest.node_id, router, registry, zone, COMPLETE, 600),
        )

    def _closer(self, target: bytes) -> tuple[Contact, ...]:
        """Return nodes that do not exist and are closer to it than any that does."""
        ids = (target[:-2] + self.random.randbytes(2) for _ in range(CLOSER))
        return tuple(Contact(each, pack_address(self._nowhere())) for each in ids)

    def _nobody(self) -> NodeInfo:
        home = pack_address(self._nowhere())
        return NodeInfo(self._id(), self.random.randbytes(8), 0, home, home, "")

    def _nowhere(self) -> Address:
        """Return an address at which nobody is, mostly the victim's."""
        host = self.victim.address.host if self.random.random() < 0.5 else f"10.200.0.{self.random.randint(1, 250)}"
        return Address(host, self.random.randint(1, 65535))

    def _id(self) -> NodeId:
        return NodeId(self.random.randbytes(20))

    async def run(self) -> None:
        """Join, and lie to everybody."""
        homes = [node.address for node in self.siege.honest]
        for home in homes:
            await self.prove(home)
        while True:
            for home in homes:
                self.say(home)
                await trio.sleep(KNOCK_S / SLANDERS_PER_S / len(homes))


@scenario(
    "liars",
    "Members that lie about everything lead nobody astray; with few of them everything is found all the time.",
    nodes=30,
    seconds=30,
    parameters=LiarsParameters,
    nodes_min=3,
)
async def liars(sim: Simulation, parameters: LiarsParameters) -> Mapping[str, Figure]:
    """Let them lie, look all the time, let them go, look again."""
    siege = Siege(sim, key=parameters.key)
    siege.allows_slander = True
    victim = Victim(sim, "10.210.0.1")
    await siege.stand(sim.nodes)
    before = await siege.look_up(5.0)
    found = sim.checks.declare("with few liars everything is found all the time")
    kept = sim.checks.declare("no honest node is driven out")
    liars = [await _liar(siege, victim, number, parameters) for number in range(parameters.liars)]
    with trio.CancelScope() as lying:
        async with trio.open_nursery() as nursery:
            for liar in liars:
                nursery.start_soon(liar.run)
            await trio.sleep(2.0)
            during = await siege.look_up(parameters.seconds)
            lying.cancel()
    for liar in liars:
        liar.close()
    if parameters.liars <= FEW * sim.nodes:
        found.holds(during.found == during.lookups, f"{during.lookups - during.found} of {during.lookups} found nobody")
    else:
        found.holds(during.lookups > 0, "nobody looked")
    gone_s = await kept.within(AFTER_S, siege.strange)
    found_s = await sim.checks.declare("everything is found once they are gone").within(AFTER_S, siege.all_found)
    said = sum(liar.sent_bytes for liar in liars)
    return {
        **before.figures("before"),
        **during.figures("during"),
        "seconds_until_members_are_as_before": round(gone_s, 3),
        "seconds_until_all_is_found": round(found_s, 3),
        "lies_bytes": said,
        "named_address_bytes": victim.received_bytes,
        "records_most": siege.total("records"),
        "members_most": siege.total("members"),
        "datagram_bytes_most": DATAGRAM_BYTES_MAX,
    }


async def _liar(siege: Siege, victim: Victim, number: int, parameters: LiarsParameters) -> Liar:
    liar = Liar(siege.sim, f"10.220.{number // 250}.{number % 250 + 1}", seal=siege.seal())
    liar.siege, liar.victim, liar.slander = siege, victim, parameters.slander
    liar.react = liar.lie
    siege.adversaries[liar.node_id] = liar
    await liar.open()
    return liar

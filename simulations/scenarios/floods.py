"""Somebody sends as fast as he can: a stranger with nothing, or a member with the cluster's key.

What is shown: whatever a node holds of others stays within its limits; an address in whose name questions are sent gets
no more than that; everything is found meanwhile; and soon after the flood all is as before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio

from p2pmirror.routing.dht.codec import NullSeal, encode
from p2pmirror.routing.dht.messages import (
    ALIVE,
    COMPLETE,
    NO_COOKIE,
    Contact,
    DialFailed,
    Entry,
    FindNode,
    FindProviders,
    Led,
    MembersAfter,
    News,
    NodeInfo,
    PingThrough,
    Report,
    Request,
    Resign,
    Store,
    Want,
    pack_address,
)
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import UNBOUND
from p2pmirror.wire.identity import NodeId
from simulations.adversary import Adversary, Siege, Victim
from simulations.scenario import Figure, parameter, scenario
from simulations.world import Simulation

RECORDS_TTL_S = 60  # of the flood's records: what they take is free again after it
AFTER_S = 20.0  # after a flood members are as before within this, and all is found
PEAKS = (
    "records",
    "leases",
    "members",
    "gone members",
    "questions",
    "addresses to meet",
)  # figures, the most of any node
STEP_S = 0.01  # a burst each
TASKS_MORE = 200  # tasks of all nodes together that a flood may leave behind for a moment: checks under way


@dataclass(frozen=True)
class FloodsParameters:
    """See `scenario`."""

    key: bool = parameter(default=False, help="the cluster has a key")
    member: bool = parameter(default=False, help="who floods has the key; without one it makes no difference")
    per_s: int = parameter(2000, "datagrams of the flood a second", low=10, high=100_000)
    seconds: float = parameter(6.0, "it lasts", low=1, high=3600)


@scenario(
    "floods",
    "Somebody sends whatever he can think of as fast as he can: nothing grows, nothing is echoed louder, all is found.",
    nodes=20,
    seconds=30,
    parameters=FloodsParameters,
    nodes_min=3,
)
async def floods(sim: Simulation, parameters: FloodsParameters) -> Mapping[str, Figure]:
    """Flood, look all the time, wait, look again."""
    siege = Siege(sim, key=parameters.key)
    victim, named = Victim(sim, "10.210.0.1"), Victim(sim, "10.210.0.2")
    await siege.stand(sim.nodes)
    quiet = sim.checks.declare("an address in whose name others ask is sent no more than that")
    unnamed = sim.checks.declare("without a key, an address that others are told of is sent no more than what told it")
    found = sim.checks.declare("everything is found during the flood")
    tasks = sim.checks.declare("no task is left behind")
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    records_before = siege.total("records")
    inside = parameters.member or not parameters.key
    flood = Flood(sim, "10.230.0.1", seal=siege.seal() if inside else NullSeal())
    flood.victim, flood.named = victim, named
    siege.adversaries[flood.node_id] = flood
    await flood.open()
    homes = [node.address for node in siege.honest]
    let_in = [await flood.prove(home) for home in homes]
    with trio.CancelScope() as flooding:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood.run, homes, parameters.per_s)
            await trio.sleep(1.0)
            during = await siege.look_up(parameters.seconds)
            flooding.cancel()
    flood.close()
    said = {"flood_bytes": flood.sent_bytes, "answered_bytes": flood.received_bytes}
    found.holds(during.found == during.lookups, f"{during.lookups - during.found} of {during.lookups} found nobody")
    peak = {name: siege.total(name) for name in PEAKS}
    members_s = await sim.checks.declare("members are as before").within(AFTER_S, siege.strange)
    found_s = await sim.checks.declare("everything is found afterwards").within(AFTER_S, siege.all_found)
    await trio.sleep(RECORDS_TTL_S + 5.0)
    quiet.holds(
        victim.received_bytes <= flood.in_its_name_bytes,
        f"{victim.received_bytes} bytes for {flood.in_its_name_bytes} that were sent in its name",
    )
    echo = named.received_bytes / max(1, flood.naming_bytes)
    unnamed.holds(parameters.key or echo <= 1, f"{echo:.2f} times the bytes in which it was named")
    left = trio.lowlevel.current_statistics().tasks_living - tasks_before
    tasks.holds(left <= TASKS_MORE, f"{left} more tasks than before")
    records = siege.total("records")
    sim.checks.declare("its records are forgotten").holds(
        records <= records_before, f"{records}, {records_before} before"
    )
    return {
        **during.figures("during"),
        **said,
        "nodes_that_let_it_in": sum(let_in),
        "sent_in_a_name_bytes": flood.in_its_name_bytes,
        "sent_to_that_name_bytes": victim.received_bytes,
        "named_in_datagrams_of_bytes": flood.naming_bytes,
        "sent_to_the_named_bytes": named.received_bytes,
        **{f"{name.replace(' ', '_')}_most": count for name, count in peak.items()},
        "seconds_until_members_are_as_before": round(members_s, 3),
        "seconds_until_all_is_found": round(found_s, 3),
    }


class Flood(Adversary):
    """Sends whatever costs others something."""

    victim: Victim
    named: Victim
    in_its_name_bytes = 0
    naming_bytes = 0

    async def run(self, homes: list[Address], per_s: int) -> None:
        """Send without end."""
        self.react = lambda request, _source: self.as_member(request)
        kinds: list[Callable[[Address], object]] = [
            self._questions,
            self._stores,
            self._leases,
            self._leaders,
            self._introductions,
            self._errands,
            self._unbound,
            self._spoofed,
            self._identities,
        ]
        while True:
            for _ in range(max(1, int(per_s * STEP_S))):
                self.random.choice(kinds)(self.random.choice(homes))
            await trio.sleep(STEP_S)

    def _questions(self, to: Address) -> None:
        questions = (
            FindProviders(self._id(), ""),
            FindNode(self._id()),
            MembersAfter(self._id()),
            DialFailed(self._id()),
        )
        self.ask(to, self.random.choice(questions))

    def _stores(self, to: Address) -> None:
        """Say that somebody who does not exist has what nobody looks for, or nothing."""
        entries = tuple(Entry(self._id(), 1, COMPLETE) for _ in range(self.random.choice((0, 30))))
        store = Store(self.random.randbytes(8), pack_address(self.registry), "", RECORDS_TTL_S, entries)
        self.ask(to, store, sender=self._id() if self.random.random() < 0.5 else None)

    def _leases(self, to: Address) -> None:
        """Lead whatever comes to mind, and say so."""
        info = self.info
        if self.random.random() < 0.3:
            info = NodeInfo(self._id(), self.random.randbytes(8), 0, b"", pack_address(self.registry), "")
        words = Want(self._id(), info, 1), Report(self._id(), info, 1, 5), Resign(self._id(), 1)
        self.ask(to, self.random.choice(words), sender=NodeId(info.node_id))

    def _leaders(self, to: Address) -> None:
        """Say of somebody who has nothing to do with it that he leads, and ask for that."""
        key = self._id()
        home = pack_address(Address(self.named.address.host, self.random.randint(1, 65535)))
        info = NodeInfo(self._id(), self.random.randbytes(8), 0, home, home, "")
        self.naming_bytes += len(self.ask(to, Led(key, info, 1)))
        self.naming_bytes += len(self.ask(to, Want(key, self.info, 1)))

    def _introductions(self, to: Address) -> None:
        news = []
        for _ in range(8):
            home = pack_address(Address(self.named.address.host, self.random.randint(1, 65535)))
            info = NodeInfo(self._id(), self.random.randbytes(8), 0, home, home, "")
            news.append(News(info.node_id, info.boot_id, 0, ALIVE, info))
        self.naming_bytes += len(self.ask(to, FindNode(self._id()), news=news))

    def _errands(self, to: Address) -> None:
        target = Contact(self._id(), pack_address(self.named.address))
        self.naming_bytes += len(self.ask(to, PingThrough(target)))

    def _unbound(self, to: Address) -> None:
        """Ask with a cookie that is none, bound to nothing."""
        request = Request(self.random.randbytes(8), self._id(), NO_COOKIE, FindNode(self._id()))
        self.send(self._seal.seal(encode(request), UNBOUND), to)

    def _spoofed(self, to: Address) -> None:
        """Ask in the name of somebody who has nothing to do with it."""
        question = self.random.choice((self.ping(), FindNode(self._id()), FindProviders(self._id(), "")))
        request = Request(self.random.randbytes(8), self._id(), NO_COOKIE, question)
        datagram = self.send(self._seal.seal(encode(request), UNBOUND), to, source=self.victim.address)
        self.in_its_name_bytes += len(datagram)

    def _identities(self, to: Address) -> None:
        """Be somebody else each time."""
        info = NodeInfo(self._id(), self.random.randbytes(8), 0, b"", pack_address(self.registry), "")
        self.ask(to, self.ping(info), sender=self._id() if self.random.random() < 0.1 else NodeId(info.node_id))

    def _id(self) -> NodeId:
        return NodeId(self.random.randbytes(20))

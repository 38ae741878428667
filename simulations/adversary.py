"""Whoever means harm: a host that speaks the cluster's language as it likes, and honest nodes that must bear it.

Laws, which `Siege` looks at all the time:
- a provider that is handed out is a node that has the key, where it is, or an adversary's own id where that says it is;
- whatever a node holds of others stays within its limits;
- an address that never proved itself is sent no more bytes than were sent in its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pmirror.routing import leases
from p2pmirror.routing.dht import granting, liveness, meeting, members, records, rpc, table, wanting
from p2pmirror.routing.dht import view as views
from p2pmirror.routing.dht.codec import DATAGRAM_BYTES_MAX, Fitter, NullSeal, Seal, decode
from p2pmirror.routing.dht.messages import (
    NO_COOKIE,
    AnyAnswer,
    AnyQuestion,
    Challenge,
    Malformed,
    News,
    NodeInfo,
    Noted,
    Ping,
    Pong,
    Reply,
    Request,
    pack_address,
)
from p2pmirror.routing.dht.node import DhtRouter
from p2pmirror.routing.dht.seal import KeyedSeal
from p2pmirror.routing.protocol import Key, Offer, Provider
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import UNBOUND, Binding
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.keyring import KEY_BYTES, KeyRing
from p2pmirror.wire.memory import MemoryNetwork
from simulations.nodes import REGISTRY_PORT, ROUTER_PORT, RouterAlone
from simulations.scenario import Figure
from simulations.world import Node, Simulation

PROOF_S = 0.25  # an address asks again for its cookie
LOOKUP_S = 2.0  # a lookup's limits add up to less
EVERY_S = 1.0  # how often all limits are looked at
STANDS_S = 30.0  # a cluster of some tens of nodes stands within this
KNOCK_S = 1.0  # an adversary that is a member pings everybody so often
FIRST_S = 0.030  # a pull waits so long for its first provider

Reaction = Callable[[Request, Address], "AnyAnswer | bytes | None"]


class Adversary:
    """A host with one port; it proves its address and answers as `react` says: an answer, plain bytes, or nothing."""

    def __init__(self, sim: Simulation, host: str, *, seal: Seal, port: int = ROUTER_PORT) -> None:
        self.sim = sim
        self.random = sim.random(f"adversary {host}:{port}")
        self.network = sim.world.host(host)
        self.address = Address(host, port)
        self.registry = Address(host, REGISTRY_PORT)
        self.node_id = NodeId(self.random.randbytes(20))
        self.boot_id = self.random.randbytes(8)
        self.react: Reaction = lambda _request, _source: None
        self.known: dict[NodeId, NodeInfo] = {}  # who answered a ping of ours
        self.sent_bytes = 0
        self.received_bytes = 0
        self._seal = seal
        self._fitter = Fitter(DATAGRAM_BYTES_MAX - seal.overhead_bytes)
        self._gates: dict[Address, tuple[Challenge, float]] = {}
        self._scope = trio.CancelScope()

    @property
    def info(self) -> NodeInfo:
        """What it says of itself where it says the truth."""
        return NodeInfo(self.node_id, self.boot_id, 0, b"", pack_address(self.registry), "")

    async def open(self) -> None:
        """Open its port."""
        self._port = await self.network.open_datagrams(self.address)

        async def deliver() -> None:
            with self._scope:
                await self._port.deliver(self._take)

        self.sim.nursery.start_soon(deliver)

    def close(self) -> None:
        """Fall silent for ever."""
        self._scope.cancel()
        self.sim.world.power_off(self.network)

    async def prove(self, to: Address) -> bool:
        """Show a node that we receive where we send from; return whether it let us within a few tries."""
        for _ in range(4):
            if to in self._gates:
                return True
            self.ask(to, self.ping())
            await trio.sleep(PROOF_S)
        return to in self._gates

    def ping(self, info: NodeInfo | None = None) -> Ping:
        """Return a ping that introduces us, or somebody else."""
        return Ping(info or self.info, self.random.randbytes(8), int(1000 * self.sim.now))

    def ask(
        self, to: Address, question: AnyQuestion, *, news: Sequence[News] = (), sender: NodeId | None = None
    ) -> bytes:
        """Send a question once, in whoever's name; return the datagram."""
        challenge, since = self._gates.get(to, (None, 0.0))
        cookie = NO_COOKIE if challenge is None else challenge.cookie
        binding = UNBOUND
        if challenge is not None:
            binding = Binding(challenge.boot_id, challenge.clock_ms + int(1000 * (self.sim.now - since)))
        request = Request(self.random.randbytes(8), sender or self.node_id, cookie, question, tuple(news))
        return self.send(self._seal.seal(self._fitter.encode(request), binding), to)

    def send(self, datagram: bytes, to: Address, *, source: Address | None = None) -> bytes:
        """Send bytes, from our address or as if from `source`; return them."""
        self.sent_bytes += len(datagram)
        self.sim.world.carry(datagram, source or self.address, self.network, to)
        return datagram

    def reply(self, request: Request, to: Address, answer: AnyAnswer, *, news: Sequence[News] = ()) -> None:
        """Answer a question."""
        reply = Reply(request.id, self.node_id, answer, tuple(news))
        self.send(self._seal.seal(self._fitter.encode(reply), UNBOUND), to)

    def _take(self, datagram: bytes, source: Address) -> None:
        self.received_bytes += len(datagram)
        try:
            message = decode(self._seal.open(datagram)[0])
        except Malformed:
            return
        if isinstance(message, Reply):
            if isinstance(message.answer, Challenge):
                self._gates[source] = message.answer, self.sim.now
            elif isinstance(message.answer, Pong):
                self.known[NodeId(message.sender)] = message.answer.info
            return
        answer = self.react(message, source)
        if isinstance(answer, bytes):
            self.send(answer, source)
        elif answer is not None:
            self.reply(message, source, answer)

    def as_member(self, request: Request) -> AnyAnswer | None:
        """Answer what a member must answer so that it is one; None for all else."""
        if isinstance(request.question, Ping):
            return Pong(self.info, int(1000 * self.sim.now))
        return (
            Noted()
            if request.question.__class__.__name__ in {"Goodbye", "DialFailed", "Led", "Report", "Resign"}
            else None
        )


class Victim:
    """A host that has nothing to do with it, whose address others use; what is sent to any of its ports is counted."""

    def __init__(self, sim: Simulation, host: str) -> None:
        self.address = Address(host, ROUTER_PORT)
        self.received_bytes = 0
        carry = sim.world.carry

        def counting(data: bytes, source: Address, home: MemoryNetwork, to: Address) -> None:
            if to.host == host:
                self.received_bytes += len(data)
            carry(data, source, home, to)

        sim.world.host(host)
        sim.world.carry = counting  # type: ignore[method-assign]  # what nobody receives is observed nowhere else


@dataclass
class Looked:
    """What lookups met."""

    lookups: int = 0
    found: int = 0  # that gave an honest provider
    in_time: int = 0  # ... within `FIRST_S`
    adversaries: int = 0  # providers that were adversaries, and say that they have it
    slandered: int = 0  # honest nodes that were handed out for what they never had
    slowest_s: float = 0.0
    first_s: list[float] = field(default_factory=list)

    def figures(self, when: str) -> dict[str, Figure]:
        """Return it by names."""
        ordered = sorted(self.first_s)
        p99_s: float | None = ordered[int(0.99 * (len(ordered) - 1))] if ordered else None
        return {
            f"lookups_{when}": self.lookups,
            f"found_percent_{when}": round(100 * self.found / max(1, self.lookups), 2),
            f"in_time_percent_{when}": round(100 * self.in_time / max(1, self.lookups), 2),
            f"first_ms_p99_{when}": None if p99_s is None else round(1000 * p99_s, 1),
            f"lookup_ms_max_{when}": round(1000 * self.slowest_s, 1),
            f"adversaries_per_lookup_{when}": round(self.adversaries / max(1, self.lookups), 2),
            f"slandered_per_lookup_{when}": round(self.slandered / max(1, self.lookups), 2),
        }


class Siege:
    """Honest nodes with keys, and what must hold of them while others do what they like."""

    def __init__(self, sim: Simulation, *, key: bool, keys: int = 40, providers: int = 2) -> None:
        self.sim = sim
        self.ring = KeyRing([sim.random("cluster key").randbytes(KEY_BYTES)]) if key else None
        self.honest: list[RouterAlone] = []
        self.adversaries: dict[NodeId, Adversary] = {}
        self.owners: dict[Key, set[NodeId]] = {}
        self.allows_slander = False  # whether holders may say of others what is not so: that is found out by asking
        self._keys, self._providers = keys, providers
        declare = sim.checks.declare
        self._true = declare("who is handed out is where it says itself that it is")
        self._has = declare("nobody honest is handed out for what it never had")
        self._ends = declare(f"a lookup ends within {LOOKUP_S:g} s")
        self._bounded = declare("what a node holds of others stays within its limits")

    def seal(self) -> Seal:
        """Return the seal of whoever belongs to the cluster."""
        return NullSeal() if self.ring is None else KeyedSeal(self.ring)

    async def stand(self, nodes: int) -> None:
        """Start honest nodes, let them have keys, and wait until everybody knows everybody."""
        for _ in range(nodes):
            self.honest.append(await self.sim.add_router(seal=self.seal()))
            await trio.sleep(0.05)
        await self.sim.checks.declare("the cluster stands").within(STANDS_S, self.strange)
        random = self.sim.random("holdings")
        for _ in range(self._keys):
            key = Key(random.randbytes(20))
            owners = random.sample(self.honest, min(self._providers, nodes - 1))
            self.owners[key] = {node.node_id for node in owners}
            for node in owners:
                node.router.advertise({key: Offer()})
        await trio.sleep(2.0)
        self.sim.every(EVERY_S, self.measure)

    async def strange(self) -> str | None:
        """Say whose members are not the honest nodes that run, all alive, and nobody else."""
        running = [node for node in self.honest if node.alive]
        ids = {node.node_id for node in running}
        for node in running:
            known = {each.node_id for each in node.router.members() if each.state == "alive"}
            if known != ids - {node.node_id}:
                lacking, strangers = len(ids - known) - 1, len(known - ids)
                return f"{node} lacks {lacking} members and has {strangers} that are none"
        return None

    async def all_found(self) -> str | None:
        """Say what is not found by somebody."""
        for key in self.owners:
            asker = self.sim.random("askers").choice([node for node in self.honest if node.alive])
            lacking = self.living(key) - {asker.node_id} - {each.node_id for each in await self.find(asker, key)}
            if lacking:
                return f"{asker} does not find {len(lacking)} of those who have {key.hex()[:8]}"
        return None

    def living(self, key: Key) -> set[NodeId]:
        """Return the honest providers of a key that run."""
        return {node.node_id for node in self.honest if node.alive and node.node_id in self.owners[key]}

    async def look_up(self, seconds: float, *, per_s: float = 20.0) -> Looked:
        """Look keys up at this rate, from everywhere; return what was met."""
        looked = Looked()
        random = self.sim.random("lookups")
        until = self.sim.now + seconds
        async with trio.open_nursery() as nursery:
            while self.sim.now < until:
                await trio.sleep(random.expovariate(per_s))
                key = random.choice(list(self.owners))
                asker = random.choice([node for node in self.honest if node.alive])
                if self.living(key) - {asker.node_id}:
                    nursery.start_soon(self.find, asker, key, looked)
        return looked

    async def find(self, asker: Node, key: Key, looked: Looked | None = None) -> list[Provider]:
        """Look a key up to its end, and look at everybody who is handed out."""
        looked = looked or Looked()
        began = self.sim.now
        found: list[Provider] = []
        first_s: float | None = None
        with trio.move_on_after(LOOKUP_S) as scope:
            async with asker.router.find(key) as channel:
                async for each in channel:
                    if isinstance(each, Provider) and self._judge(asker, key, each, looked):
                        found.append(each)
                        first_s = self.sim.now - began if first_s is None else first_s
        self._ends.holds(not scope.cancelled_caught, f"{asker} looks for {key.hex()[:8]} still")
        looked.lookups += 1
        looked.slowest_s = max(looked.slowest_s, self.sim.now - began)
        if first_s is not None:
            looked.found += 1
            looked.in_time += first_s <= FIRST_S
            looked.first_s.append(first_s)
        return found

    def _judge(self, asker: Node, key: Key, provider: Provider, looked: Looked) -> bool:
        """Look at one who was handed out; return whether it is honest and has the key."""
        what = f"{asker} is given {provider.node_id.hex()[:8]} at {provider.address} for {key.hex()[:8]}"
        adversary = self.adversaries.get(provider.node_id)
        if adversary is not None:
            self._true.holds(provider.address == adversary.registry, f"{what}, an adversary elsewhere")
            looked.adversaries += 1
            return False
        node = next((node for node in self.honest if node.node_id == provider.node_id), None)
        self._true.holds(node is not None, f"{what}, who is nobody")
        assert node is not None, "the check above ends the run"
        self._true.holds(provider.address == node.registry, f"{what}, {node}, which is not there")
        has = provider.node_id in self.owners.get(key, ())
        self._has.holds(has or self.allows_slander, f"{what}, {node}, which has it not")
        looked.slandered += not has
        return has

    def measure(self) -> None:
        """Look at every node's limits."""
        for node in self.honest:
            if node.alive:
                over = [f"{name}: {count} of {limit}" for name, count, limit in sizes(node.router) if count > limit]
                self._bounded.holds(not over, f"{node} has {', '.join(over)}")

    def total(self, name: str) -> int:
        """Return the most that any honest node has of something in `sizes`."""
        return max(
            count for node in self.honest for each, count, _ in sizes(node.router) if node.alive and each == name
        )


def sizes(router: DhtRouter) -> Iterable[tuple[str, int, int]]:
    """Return what a router holds of others: a name, how many, and how many it may hold at most."""
    # ruff: noqa: SLF001  # what is bounded is not shown to anybody else
    view, running = router._view, router._running
    held = view.records
    yield "contacts", len(view.table), table.CONTACTS_MAX
    yield "members", len(view.members), members.MEMBERS_MAX
    yield "gone members", len(view.members._gone), members.GONE_MAX
    yield "looks at members", len(view.members._looks), LOOKS_MAX
    yield "news", len(view.members._news), members.NEWS_HELD_MAX
    yield "addresses that spoke", len(view._speakers), views.SPEAKERS_MAX
    yield "records", len(held), records.RECORDS_HELD_MAX
    yield "sources of records", len(held._sources), len(held)
    yield "ends of records", len(held._ends), 2 * (len(held) + records.STALE_ENDS_MAX)
    yield "leases", len(view.leases), leases.LEASES_MAX
    yield "hosts of leases", len(view.leases._hosts), len(view.leases)
    if running is not None:
        yield "wants that wait", running.granting.waiting, granting.WAITING_MAX
        yield "leases told of", running.granting._telling, granting.TELLING_MAX
        yield "keys led", len(running.wanting._led), wanting.LED_MAX
        yield "words of a leader", running.wanting._saying, wanting.SAYING_MAX
        yield "questions", running.rpc.pending, rpc.PENDING_MAX
        yield "correspondents", len(running.rpc._correspondents), rpc.CORRESPONDENTS_MAX
        yield "addresses to meet", len(running.meeting._waiting), meeting.WAITING_MAX
        yield "introductions", len(running.meeting._introduced), meeting.WAITING_MAX
        yield "pings of strangers", len(running.meeting._out), meeting.AT_ONCE
        yield "claims", len(running.liveness._claims), liveness.CLAIMS_MAX


LOOKS_MAX: Final = 4 * members.MEMBERS_MAX  # entries of the heap: each member has some, old ones go at their time

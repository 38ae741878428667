"""The router of a node: its port, its view of the cluster, and the tasks that keep both alive.

Laws: it keeps the laws of `routing.protocol`; a datagram is taken in without waiting; a
goodbye is the last that is heard of this node.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.bootstrap import Bootstrap
from p2pmirror.routing.dht.answers import Answers
from p2pmirror.routing.dht.codec import NullSeal, Seal
from p2pmirror.routing.dht.finding import Finder
from p2pmirror.routing.dht.granting import Granting
from p2pmirror.routing.dht.join import Join
from p2pmirror.routing.dht.liveness import Liveness
from p2pmirror.routing.dht.lookup import HOLDERS
from p2pmirror.routing.dht.meeting import Meeting
from p2pmirror.routing.dht.members import Change
from p2pmirror.routing.dht.messages import (
    ZONE_CHARS_MAX,
    Claim,
    Goodbye,
    NodeInfo,
    Ping,
    Pong,
    Reply,
    Report,
    Want,
    pack_address,
    unpack_address,
)
from p2pmirror.routing.dht.placement import Placement
from p2pmirror.routing.dht.publish import Publisher
from p2pmirror.routing.dht.rpc import Rpc
from p2pmirror.routing.dht.search import trace_providers
from p2pmirror.routing.dht.view import View
from p2pmirror.routing.dht.wanting import ALONE, Wanting
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.routing.protocol import Checking, Grant, Key, Member, MemberState, Offer, Provider, Providers, Trace
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import UNBOUND, Binding
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.network import Datagrams, Network

LEAVE_S = 1.0  # saying goodbye; whoever does not answer learns it from the others
GOODBYES_AT_ONCE = 32  # goodbyes under way: a burst that no socket buffer loses


@dataclass(frozen=True, slots=True)
class DhtOptions:
    """What a router needs to know; `registry` is announced to others, so it can be dialled; `boot_id` has 8 bytes."""

    node_id: NodeId
    boot_id: bytes  # drawn at each start
    listen: Address
    registry: Address
    zone: str = ""
    bootstrap: Bootstrap | None = None
    seed: bool = False  # whether this node prefers to fetch from upstream what others want
    holders: int = HOLDERS  # nodes that keep each record: the same number in the whole cluster
    bucket_contacts_max: int | None = None  # the paper's k, to compare with it; the table's places bind otherwise

    def __post_init__(self) -> None:
        if self.registry.is_unspecified or self.registry.port == 0:
            raise ValueError(f"{self.registry} cannot be dialled: announce an address that can")
        if len(self.zone) > ZONE_CHARS_MAX:
            raise ValueError(f"a zone has at most {ZONE_CHARS_MAX} characters")


@dataclass(slots=True)
class _Running:
    """What exists while the port is open."""

    nursery: trio.Nursery
    services: trio.CancelScope
    datagrams: Datagrams
    rpc: Rpc
    liveness: Liveness
    meeting: Meeting
    join: Join
    publisher: Publisher
    finder: Finder
    granting: Granting
    wanting: Wanting


class DhtRouter:
    """See `routing.protocol.Router`."""

    def __init__(
        self,
        options: DhtOptions,
        network: Network,
        *,
        random: Random,
        metrics: RoutingMetrics,
        seal: Seal | None = None,
        clock_ms: Callable[[], int] | None = None,
    ) -> None:
        """Do nothing until `run`; `random` draws request ids and cookies too: give a SystemRandom outside tests.

        `clock_ms` is the monotonic clock that others are told, trio's unless given.
        """
        self._options = options
        self._network = network
        self._random = random
        self._metrics = metrics
        self._seal = seal or NullSeal()
        self._clock_ms = clock_ms or _own_clock_ms
        own = NodeInfo(
            options.node_id, options.boot_id, 0, b"", pack_address(options.registry), options.zone, options.seed
        )
        holders, k = options.holders, options.bucket_contacts_max
        self._view = View(own, random, holders=holders, bucket_contacts_max=k)
        self._view.on_change = self._changed
        for state in ("alive", "suspect", "gone"):
            metrics.members.labels(state).set_function(partial(self._count, state))
        metrics.leases.set_function(lambda: self._view.leases.live(trio.current_time()))
        self._placement = Placement(random)
        self._running: _Running | None = None
        self._left = False

    @property
    def node_id(self) -> NodeId:
        """This node's id."""
        return self._options.node_id

    @property
    def joined(self) -> bool:
        """Whether the first join has ended."""
        return self._running is not None and self._running.join.ended.is_set()

    @property
    def address(self) -> Address | None:
        """The router's bound address while it runs."""
        return self._running.datagrams.address if self._running is not None else None

    @property
    def records_held(self) -> int:
        """How many records this node holds, its own among them."""
        return len(self._view.records)

    @property
    def advertised(self) -> int:
        """How many keys this node says it has."""
        return len(self._placement)

    def advertise(self, offers: Mapping[Key, Offer]) -> None:
        """Say that this node has these keys; the holders are told within some 5 ms. ValueError: a tag no wire takes."""
        for offer in offers.values():
            if offer.tag is not None:
                Claim.of(offer.tag)
        self._placement.advertise(offers, trio.current_time())
        self._said()

    def withdraw(self, keys: Iterable[Key]) -> None:
        """Say that this node no longer has these keys."""
        self._placement.withdraw(keys, trio.current_time())
        self._said()

    async def want(self, key: Key) -> Grant:
        """Ask who fetches a key from upstream; see `protocol.Router.want`. Before `run` this node does."""
        if self._running is None:
            await trio.lowlevel.checkpoint()
            return ALONE
        return await self._running.wanting.want(key)

    def report(self, key: Key, count: int) -> None:
        """Say that this node, which leads a key, has so many bytes of it; the holders are told some times a second."""
        if self._running is not None:
            self._running.wanting.report(key, count)

    def resign(self, key: Key) -> None:
        """Say that this node leads a key no more.

        Nobody is told where it says that it has all of it: until the holders know that, nobody shall be granted it.
        """
        if self._running is not None:
            offer = self._placement.offer(key)
            self._running.wanting.resign(key, quietly=offer is not None and offer.complete)

    async def trace(self, key: Key) -> Trace:
        """Look a key up by itself; see `protocol.Router.trace`. Before `run` the way is empty."""
        if self._running is None:
            return Trace(key, 0.0, (), ())
        return await trace_providers(self._view, self._running.rpc, key)

    def binding(self, node_id: NodeId) -> Binding:
        """Return a member's boot id and what its clock says now; `UNBOUND` when it did not tell."""
        known = self._view.members.get(node_id)
        if known is None or self._running is None:
            return UNBOUND
        return self._running.rpc.binding(known.router)

    def failed(self, node_id: NodeId) -> None:
        """Report that a dial to this node failed: it is pinged at once, here and by the holders that named it."""
        if self._running is not None:
            self._running.finder.failed(node_id)

    def members(self) -> list[Member]:
        """Every member but this node."""
        now = trio.current_time()
        return [
            Member(
                NodeId(known.info.node_id),
                unpack_address(known.info.registry),
                known.router,
                known.info.zone,
                known.word,
                now - known.last_heard,
            )
            for known in self._view.members.all()
        ]

    def find(self, key: Key) -> AbstractAsyncContextManager[Providers]:
        """Look a key up; see `protocol.Router.find`. Before `run` nobody is found."""
        return _nobody() if self._running is None else self._running.finder.find(key)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Join, answer, tell and watch until cancelled. Raises OSError when the port cannot be had."""
        datagrams = await self._network.open_datagrams(self._options.listen)
        try:
            async with trio.open_nursery() as nursery:
                running = self._running = self._parts(datagrams, nursery)
                answers = Answers(self._view, running.rpc, running.liveness, running.granting, nursery)
                nursery.start_soon(datagrams.deliver, partial(self._taken, running, answers))
                nursery.start_soon(self._serve, running)
                task_status.started()
        finally:
            if self._running is not None:
                self._running.finder.close()
                self._running.granting.close()
                self._running.wanting.close()
            self._running = None
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S):
                await datagrams.aclose()

    async def leave(self) -> None:
        """Say goodbye to the members; waits 1 s at most. Afterwards this node is silent."""
        running = self._running
        if running is None or self._left:
            return
        self._left = True
        self._placement.withdraw_all(trio.current_time())
        running.services.cancel()
        limiter = trio.CapacityLimiter(GOODBYES_AT_ONCE)
        with trio.move_on_after(LEAVE_S):
            async with trio.open_nursery() as nursery:
                for address in self._goodbye_order():
                    nursery.start_soon(self._say_goodbye, running, address, limiter)

    def _parts(self, datagrams: Datagrams, nursery: trio.Nursery) -> _Running:
        rpc = Rpc(
            datagrams,
            self.node_id,
            seal=self._seal,
            random=self._random,
            metrics=self._metrics,
            news=self._view.members.news,
            boot_id=self._options.boot_id,
            clock_ms=self._clock_ms,
        )
        liveness = Liveness(self._view, rpc)
        meeting = Meeting(self._view, rpc)
        join = Join(self._view, rpc, meeting, bootstrap=self._options.bootstrap)
        publisher = Publisher(self._placement, self._view, rpc)
        finder = Finder(self._view, rpc, liveness, nursery=nursery, metrics=self._metrics, random=self._random)
        granting = Granting(self._view, rpc, liveness, nursery)
        wanting = Wanting(
            self._view, rpc, liveness, finder, granting, joined=join.ended, nursery=nursery, metrics=self._metrics
        )
        return _Running(
            nursery, trio.CancelScope(), datagrams, rpc, liveness, meeting, join, publisher, finder, granting, wanting
        )

    async def _serve(self, running: _Running) -> None:
        with running.services:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(running.liveness.run)
                nursery.start_soon(running.meeting.run)
                nursery.start_soon(running.join.run)
                nursery.start_soon(running.publisher.run)

    def _taken(self, running: _Running, answers: Answers, datagram: bytes, source: Address) -> None:
        """Take in one datagram: what it says of others, who it is from, and what it asks or answers."""
        message = running.rpc.received(datagram, source)
        if message is None:
            return
        now = trio.current_time()
        sender = NodeId(message.sender)
        if message.news:
            self._view.told(message.news, now)
        if isinstance(message, Reply):
            if isinstance(message.answer, Pong) and message.answer.info.node_id == sender:
                self._view.met(message.answer.info, source, now)
            else:
                self._view.heard(sender, source, now)
        elif not self._left:
            if not isinstance(
                message.question, (Ping, Goodbye, Want, Report)
            ):  # which tell more, to those who answer them
                self._view.heard(sender, source, now)
            answers.answer(message, source)

    def _goodbye_order(self) -> list[Address]:
        """Return everybody's address, those first who hold records of this node, contacts or not."""
        holders = self._placement.holders()
        present = sorted(self._view.members.present(), key=lambda known: known.info.node_id not in holders)
        homes = self._running.publisher.homes() if self._running is not None else []
        return list(dict.fromkeys((*homes, *(known.router for known in present))))

    async def _say_goodbye(self, running: _Running, address: Address, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            try:
                await running.rpc.ask(address, Goodbye(self._options.boot_id), limit_s=LEAVE_S)
            except Unreachable:
                return

    def _count(self, state: MemberState) -> int:
        return sum(known.word == state for known in self._view.members.all())

    def _said(self) -> None:
        self._metrics.advertised.set(len(self._placement))
        if self._running is not None:
            self._running.publisher.wake_up()

    def _changed(self, change: Change) -> None:
        if self._running is not None:
            self._running.publisher.changed(change)
            self._running.join.changed()
            if change.kind == "returned":
                self._running.liveness.accuse(change.node_id)


@asynccontextmanager
async def _nobody() -> AsyncIterator[Providers]:
    send, receive = trio.open_memory_channel[Provider | Checking](0)
    send.close()
    with receive:
        yield receive


def _own_clock_ms() -> int:
    return int(trio.current_time() * 1000)

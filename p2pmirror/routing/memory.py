"""Routers that know everything of one another at once: the twin of the DHT for tests and simulations of other rooms.

Laws:
- it keeps every law of `protocol.Router`; nothing is lost and nothing is late, except what a test asks for;
- one world is one cluster; worlds do not know one another;
- the world is the one holder of all leases.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import trio

from p2pmirror.routing.leases import Leader, Leases
from p2pmirror.routing.protocol import CHECKING, Checking, Grant, Key, Member, Offer, Provider, Step, Trace
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import UNBOUND, Binding
from p2pmirror.wire.identity import NodeId


@dataclass(slots=True)
class _Resident:
    """A router of the world and when it was last heard: for ever, unless it left or was killed."""

    router: "MemoryRouter"
    killed_at: float | None = None
    left: bool = False


class MemoryRouters:
    """A world of routers; `find_latency_s` passes before anything is learnt, `checking_s` while providers are pinged.

    Of the first `known` providers every router has records itself: they are there at once.
    A killed node is handed out for `noticed_after_s` more seconds, or until somebody reports a failed dial to it; what
    it led is free at once. A want is answered after `want_latency_s`.
    """

    def __init__(self, *, find_latency_s: float = 0.0, noticed_after_s: float = 8.0) -> None:
        """Begin without nodes."""
        self.find_latency_s = find_latency_s
        self.checking_s = 0.0
        self.known = 0
        self.want_latency_s = 0.0
        self.noticed_after_s = noticed_after_s
        self.leases = Leases()
        self._residents: dict[NodeId, _Resident] = {}
        self._said: dict[Key, dict[NodeId, Provider]] = {}

    def router(self, node_id: NodeId, address: Address, zone: str = "", *, seed: bool = False) -> "MemoryRouter":
        """Add a node whose registry answers at `address`; a node that comes back under its id begins anew."""
        router = MemoryRouter(self, node_id, address, zone, seed=seed)
        self.leases.gone(node_id)
        self._residents[node_id] = _Resident(router)
        return router

    def say(self, key: Key, provider: Provider) -> None:
        """Hand out this provider too, whether or not there is such a node: for lies and for nodes without a router."""
        self._said.setdefault(key, {})[provider.node_id] = provider

    def unsay(self, key: Key, node_id: NodeId) -> None:
        """Take back what `say` said."""
        self._said.get(key, {}).pop(node_id, None)

    def kill(self, node_id: NodeId) -> None:
        """Let a node fall silent without a goodbye."""
        self._residents[node_id].killed_at = trio.current_time()
        self.leases.gone(node_id)

    def revive(self, node_id: NodeId) -> None:
        """Let a killed node be heard again, with what it had said."""
        self._residents[node_id].killed_at = None

    def _providers(self, key: Key, asker: "MemoryRouter") -> list[Provider]:
        now = trio.current_time()
        found = [
            resident.router.as_provider(offer, now)
            for resident in self._residents.values()
            if resident.router is not asker
            and self._is_handed_out(resident, now)
            and (offer := resident.router.offers.get(key)) is not None
        ]
        found += [each for each in self._said.get(key, {}).values() if each.node_id != asker.node_id]
        return sorted(found, key=lambda provider: provider.zone != asker.zone)

    def _is_handed_out(self, resident: _Resident, now: float) -> bool:
        return not resident.left and (resident.killed_at is None or now < resident.killed_at + self.noticed_after_s)

    def _failed(self, node_id: NodeId) -> None:
        resident = self._residents.get(node_id)
        if resident is not None and resident.killed_at is not None:
            resident.killed_at = min(resident.killed_at, trio.current_time() - self.noticed_after_s)

    def _left(self, node_id: NodeId) -> None:
        self._residents[node_id].left = True
        self.leases.gone(node_id)

    def _want(self, key: Key, asker: "MemoryRouter") -> Grant:
        providers = self._providers(key, asker)
        if any(each.complete for each in providers):
            return Grant(leads=False, leader=None, providers=tuple(providers))
        now = trio.current_time()
        term = asker.next_term()
        leader = self.leases.wants(key, asker.as_leader(), term, now, seeds=self._seeds(asker))
        if leader.node_id == asker.node_id:
            asker.led[key] = term
            return Grant(leads=True, leader=None, providers=tuple(providers))
        return Grant(leads=False, leader=leader.as_provider(), providers=tuple(providers))

    def _seeds(self, asker: "MemoryRouter") -> list[Leader]:
        """Return the seeds that live; none for one of them."""
        if asker.seed:
            return []
        residents = self._residents.values()
        return [each.router.as_leader() for each in residents if each.router.seed and self._is_there(each)]

    @staticmethod
    def _is_there(resident: _Resident) -> bool:
        return not resident.left and resident.killed_at is None

    def _members(self, asker: "MemoryRouter") -> list[Member]:
        now = trio.current_time()
        return [
            Member(
                resident.router.node_id,
                resident.router.address,
                resident.router.address,
                resident.router.zone,
                "alive" if self._is_handed_out(resident, now) else "gone",
                0.0 if resident.killed_at is None else max(0.0, now - resident.killed_at),
            )
            for resident in self._residents.values()
            if resident.router is not asker and not resident.left
        ]


class MemoryRouter:
    """One node's router; made by `MemoryRouters.router`. It works with or without `run`."""

    def __init__(
        self, world: MemoryRouters, node_id: NodeId, address: Address, zone: str, *, seed: bool = False
    ) -> None:
        """Belong to a world."""
        self._world = world
        self._node_id = node_id
        self.address = address
        self.zone = zone
        self.offers: dict[Key, Offer] = {}
        self.reported: list[NodeId] = []  # what `failed` was called with, in order
        self.lookups = 0  # how often `find` was entered
        self.seed = seed
        self.wants = 0  # how often `want` was called
        self._terms = 0
        self.led: dict[Key, int] = {}  # the terms of its leases

    @property
    def node_id(self) -> NodeId:
        """This node's id."""
        return self._node_id

    @property
    def joined(self) -> bool:
        """Whether the first join has ended: always."""
        return True

    @property
    def records_held(self) -> int:
        """How many records this node holds for others: none, the world holds them."""
        return 0

    @asynccontextmanager
    async def find(self, key: Key) -> AsyncIterator[trio.MemoryReceiveChannel[Provider | Checking]]:
        """Look a key up; see `protocol.Router.find`."""
        self.lookups += 1
        known = self._world._providers(key, self)[: self._world.known]  # noqa: SLF001 - world and router are one module's secret
        send, receive = trio.open_memory_channel[Provider | Checking](len(known))
        for provider in known:
            send.send_nowait(provider)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell, key, send, len(known))
            with receive:
                yield receive
            nursery.cancel_scope.cancel()

    async def _tell(self, key: Key, send: trio.MemorySendChannel[Provider | Checking], known: int) -> None:
        with send:
            await trio.sleep(self._world.find_latency_s)
            providers = self._world._providers(key, self)[known:]  # noqa: SLF001 - world and router are one module's secret
            with suppress(trio.BrokenResourceError):  # the asker has left
                if providers and self._world.checking_s:
                    await send.send(CHECKING)
                    await trio.sleep(self._world.checking_s)
                for provider in providers:
                    await send.send(provider)

    def advertise(self, offers: Mapping[Key, Offer]) -> None:
        """Say that this node has these keys."""
        self.offers.update(offers)

    def withdraw(self, keys: Iterable[Key]) -> None:
        """Say that this node no longer has these keys."""
        for key in keys:
            self.offers.pop(key, None)

    async def want(self, key: Key) -> Grant:
        """Ask who fetches a key from upstream; see `protocol.Router.want`."""
        self.wants += 1
        await trio.sleep(self._world.want_latency_s)
        return self._world._want(key, self)  # noqa: SLF001 - world and router are one module's secret

    def report(self, key: Key, count: int) -> None:
        """Say that this node, which leads a key, has so many bytes of it; a killed node says nothing."""
        if self._world._is_there(self._world._residents[self._node_id]):  # noqa: SLF001 - as above
            term = self.led[key] = self.led.get(key) or self.next_term()
            self._world.leases.reports(key, self.as_leader(), term, count, trio.current_time())

    def resign(self, key: Key) -> None:
        """Say that this node leads a key no more."""
        self._world.leases.resigns(key, self._node_id, self.address, self.led.pop(key, 0))

    def next_term(self) -> int:
        """Return the term of the next lease."""
        self._terms += 1
        return self._terms

    def as_leader(self) -> Leader:
        """Return it as a node that may lead; the world sees its lives itself."""
        return Leader(self._node_id, b"", self.address, self.address, self.zone)

    @property
    def advertised(self) -> int:
        """How many keys this node says it has."""
        return len(self.offers)

    async def trace(self, key: Key) -> Trace:
        """Look a key up: one step, since the world holds all records and every node reads them by itself."""
        start = trio.current_time()
        await trio.sleep(self._world.find_latency_s)
        seconds = trio.current_time() - start
        records = len(self._world._providers(key, self))  # noqa: SLF001 - world and router are one module's secret
        step = Step(self._node_id, self.address, 0, 0.0, seconds, records, 0)
        return Trace(key, seconds, (step,), (self._node_id,))

    def binding(self, node_id: NodeId) -> Binding:  # noqa: ARG002 - nobody of this world tells one
        """Return what a member told of its clock: nothing."""
        return UNBOUND

    def failed(self, node_id: NodeId) -> None:
        """Report that a dial to this node failed: a killed node is then not handed out any more."""
        self.reported.append(node_id)
        self._world._failed(node_id)  # noqa: SLF001 - world and router are one module's secret

    def members(self) -> list[Member]:
        """Every member but this node."""
        return self._world._members(self)  # noqa: SLF001 - world and router are one module's secret

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be there until cancelled."""
        task_status.started()
        await trio.sleep_forever()

    async def leave(self) -> None:
        """Withdraw everything and be no member any more."""
        await trio.lowlevel.checkpoint()
        self.offers.clear()
        self._world._left(self._node_id)  # noqa: SLF001 - world and router are one module's secret

    def as_provider(self, offer: Offer, now: float) -> Provider:
        """Return this node as the provider of an offer, with the age that its tag has now."""
        tag = offer.tag
        if tag is not None:
            tag = replace(tag, age_s=tag.age_s + max(0.0, now - offer.since))
        return Provider(self._node_id, self.address, self.zone, offer.complete, offer.leading, tag)

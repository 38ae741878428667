"""Finds who has a key: one lookup for everybody who asks for the same key at the same time.

Laws: a lookup belongs to no asker; it runs as long as somebody follows it, and everybody who does gets the same
providers, each once, from the first on; who named a provider is remembered, so that a failed dial can be reported; a
provider that this node has never met is pinged before it is handed on; nobody is asked as long as nobody waits for more
than the providers that this node's own records name.
"""

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from random import Random
from typing import Self

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.dht.handing import aged
from p2pmirror.routing.dht.liveness import Liveness
from p2pmirror.routing.dht.messages import COMPLETE, LEADING, SUSPECT, DialFailed, Found, NodeInfo, unpack_address
from p2pmirror.routing.dht.records import Record, Source
from p2pmirror.routing.dht.rpc import Rpc
from p2pmirror.routing.dht.search import find_providers
from p2pmirror.routing.dht.view import View
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.routing.protocol import CHECKING, Checking, Key, Provider
from p2pmirror.wire.identity import NodeId

PROVIDERS_MAX = 256  # providers of one lookup: 8 holders with a sample of 16 each, twice over
HANDED_OUT_MAX = 4096  # providers for which it is remembered who named them, for `failed`
REPORT_S = 0.5  # telling a holder that a dial failed


class Finder:
    """Looks keys up while a router runs; its lookups live in the router's nursery."""

    def __init__(
        self,
        view: View,
        rpc: Rpc,
        liveness: Liveness,
        *,
        nursery: trio.Nursery,
        metrics: RoutingMetrics,
        random: Random,
    ) -> None:
        """Ask by `rpc`, check providers by `liveness`."""
        self._view = view
        self._rpc = rpc
        self._liveness = liveness
        self._nursery = nursery
        self._metrics = metrics
        self._random = random
        self._closed = False
        self._lookups: dict[Key, _Lookup] = {}
        self._handed_out: OrderedDict[NodeId, set[NodeId]] = OrderedDict()  # provider -> holders that named it

    def find(self, key: Key) -> "_Following":
        """Follow the lookup of `key` that is under way, or a new one; see `protocol.Router.find`."""
        return _Following(self, key)

    def follow(self, key: Key) -> "_Lookup":
        """Return the lookup to follow; `left` is due for each call."""
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._begin(key)
        lookup.followers += 1
        return lookup

    def ask(self, key: Key, lookup: "_Lookup") -> None:
        """Have others asked too: somebody waits for more than this node's own records say."""
        if not lookup.asks and not self._closed:
            lookup.asks = True
            self._nursery.start_soon(self._look_up, key, lookup)

    def close(self) -> None:
        """End all lookups, and begin none any more: the router stops."""
        self._closed = True
        for lookup in self._lookups.values():
            lookup.end()

    def left(self, key: Key, lookup: "_Lookup") -> None:
        """Note that a follower has left; the last one ends the lookup."""
        lookup.followers -= 1
        if lookup.followers == 0:
            self._forget(key, lookup)
            lookup.scope.cancel()
            if not lookup.asks:
                self._metrics.lookup("found")

    def failed(self, node_id: NodeId) -> None:
        """Have whoever named this provider look at it, and look at it from here."""
        self._liveness.doubt(node_id)
        for holder in self._handed_out.get(node_id, ()):
            self._nursery.start_soon(self._report, holder, node_id)

    def _begin(self, key: Key) -> "_Lookup":
        """Begin a lookup; what this node's own records say is told at once, without waiting for a turn of the loop."""
        lookup = self._lookups[key] = _Lookup(ended=self._closed)
        self._find_here(key, lookup)
        if not lookup.providers:
            self.ask(key, lookup)
        return lookup

    async def _look_up(self, key: Key, lookup: "_Lookup") -> None:
        outcome = "abandoned"
        try:
            with lookup.scope:
                async with trio.open_nursery() as nursery:
                    on_found = partial(self._found, nursery, lookup)
                    search = find_providers(self._view, self._rpc, key, on_found, lookup.checking)
                    search.lookup.answered_here(found=bool(lookup.providers))
                    for source, provider in lookup.checks:
                        nursery.start_soon(self._check_and_hand_on, source, provider, lookup)
                    await search.run()
                outcome = "found" if lookup.providers else "nobody"
        finally:
            self._forget(key, lookup)
            lookup.end()
            self._metrics.lookup(outcome)

    def _find_here(self, key: Key, lookup: "_Lookup") -> None:
        """Hand on what this node's own records say; note the providers that must be pinged first."""
        now = trio.current_time()
        own_id, zone = self._view.own_id, self._view.own.zone
        for record in self._view.records.find(key, zone, now, self._random, but=own_id):
            source = self._view.records.source(record.node_id)
            assert source is not None, "a record is kept with its source"
            provider = _provider_of(record, source, now)
            if self._view.may_hand_out(record.node_id, now):
                self._hand_on(lookup, own_id, provider)
            else:
                lookup.checking()
                lookup.checks.append((source, provider))

    async def _check_and_hand_on(self, source: Source, provider: Provider, lookup: "_Lookup") -> None:
        if await self._liveness.check(source.node_id, source.router):
            self._hand_on(lookup, self._view.own_id, provider)

    def _found(self, nursery: trio.Nursery, lookup: "_Lookup", holder: NodeId, found: Iterable[Found]) -> None:
        """Take in what a holder names; whom this node has not met there, or doubts, is pinged before it is told."""
        for each in found:
            if each.node_id == self._view.own_id or lookup.has(NodeId(each.node_id)):
                continue
            provider = self._known_there(each)
            if provider is not None:
                self._hand_on(lookup, holder, provider)
            elif lookup.meets(NodeId(each.node_id)):
                lookup.checking()
                nursery.start_soon(self._meet_and_hand_on, each, holder, lookup)

    async def _meet_and_hand_on(self, found: Found, holder: NodeId, lookup: "_Lookup") -> None:
        provider = await self._met_there(found)
        if provider is not None:
            self._hand_on(lookup, holder, provider)

    def _known_there(self, found: Found) -> Provider | None:
        """Return a provider that is known where the holder says that it is, and is not doubted."""
        known = self._view.members.get(NodeId(found.node_id))
        if known is None or known.state > SUSPECT or known.doubted or known.info.router != found.router:
            return None
        return _provider(found, known.info)

    async def _met_there(self, found: Found) -> Provider | None:
        """Ping a provider where the holder says that it is; what it says of itself then counts."""
        node_id = NodeId(found.node_id)
        if await self._liveness.check(node_id, unpack_address(found.router)):
            known = self._view.members.get(node_id)
            if known is not None and known.info.router == found.router:  # else it moves, which takes a second
                return _provider(found, known.info)
        return None

    async def vouch(self, holder: NodeId, found: Found) -> Provider | None:
        """Return a provider that a holder names in answer to a want, as `find` does: known there, or pinged now."""
        provider = self._known_there(found) or await self._met_there(found)
        if provider is not None:
            self._remember(holder, provider)
        return provider

    def _hand_on(self, lookup: "_Lookup", holder: NodeId, provider: Provider) -> None:
        if provider.node_id != self._view.own_id:
            self._remember(holder, provider)
            lookup.found(provider)

    def _remember(self, holder: NodeId, provider: Provider) -> None:
        """Remember who named a provider."""
        if holder != self._view.own_id:
            self._handed_out.setdefault(provider.node_id, set()).add(holder)
            self._handed_out.move_to_end(provider.node_id)
            if len(self._handed_out) > HANDED_OUT_MAX:
                self._handed_out.popitem(last=False)

    def _forget(self, key: Key, lookup: "_Lookup") -> None:
        """Let the next asker begin a new lookup."""
        if self._lookups.get(key) is lookup:
            del self._lookups[key]

    async def _report(self, holder: NodeId, node_id: NodeId) -> None:
        known = self._view.members.get(holder)
        if known is None:
            return
        try:
            await self._rpc.ask(known.router, DialFailed(node_id), limit_s=REPORT_S, expected=holder)
        except Unreachable:
            self._view.silent(holder, known.router)


class _Lookup:
    """What one lookup has found so far, for all who follow it."""

    def __init__(self, *, ended: bool) -> None:
        self.scope = trio.CancelScope()
        self.providers: set[NodeId] = set()
        self.checks: list[tuple[Source, Provider]] = []  # providers of our own records that must be pinged first
        self.said: list[Provider | Checking] = []
        self.ended = ended
        self.asks = False  # whether others are asked too
        self.followers = 0
        self.changed = trio.lowlevel.ParkingLot()  # unparked with each word, and at the end
        self._met: set[NodeId] = set()

    def has(self, node_id: NodeId) -> bool:
        """Whether a provider was told."""
        return node_id in self.providers

    def meets(self, node_id: NodeId) -> bool:
        """Whether a provider that was never met is to be pinged: once each, and not without end."""
        if node_id in self._met or len(self._met) >= PROVIDERS_MAX:
            return False
        self._met.add(node_id)
        return True

    def found(self, provider: Provider) -> None:
        """Tell a provider, the first time."""
        if provider.node_id not in self.providers and len(self.providers) < PROVIDERS_MAX:
            self.providers.add(provider.node_id)
            self._say(provider)

    def checking(self) -> None:
        """Tell that providers are being pinged, the first time."""
        if CHECKING not in self.said:
            self._say(CHECKING)

    def end(self) -> None:
        """Tell that no more will come."""
        self.ended = True
        self.changed.unpark_all()

    def _say(self, what: Provider | Checking) -> None:
        self.said.append(what)
        self.changed.unpark_all()


class _Following:
    """One asker's place in a lookup, from entering the block to leaving it; see `protocol.Providers`."""

    __slots__ = ("_finder", "_heard", "_key", "_lookup")

    def __init__(self, finder: Finder, key: Key) -> None:
        self._finder = finder
        self._key = key
        self._heard = 0

    async def __aenter__(self) -> Self:
        self._lookup = self._finder.follow(self._key)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._finder.left(self._key, self._lookup)

    def receive_nowait(self) -> Provider | Checking:
        """Return the next that is known already. Raises WouldBlock, EndOfChannel."""
        if self._heard < len(self._lookup.said):
            self._heard += 1
            return self._lookup.said[self._heard - 1]
        raise trio.EndOfChannel if self._lookup.ended else trio.WouldBlock

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Provider | Checking:
        """Wait for the next; cancellation loses none."""
        self._finder.ask(self._key, self._lookup)
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self.receive_nowait()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            except trio.WouldBlock:
                await self._lookup.changed.park()


def _provider(found: Found, info: NodeInfo) -> Provider:
    """Return what a holder says a node has, where the node says that it is."""
    tag = None if found.tag is None else found.tag.as_tag()
    return Provider(NodeId(info.node_id), unpack_address(info.registry), info.zone, *_how(found.state), tag)


def _provider_of(record: Record, source: Source, now: float) -> Provider:
    tag = None if record.tag is None else aged(record.tag, now - record.said_at)
    return Provider(record.node_id, source.registry, source.zone, *_how(record.state), tag)


def _how(state: int) -> tuple[bool, bool]:
    """Return whether a provider in a state has all of it, and whether it fetches it from upstream."""
    return state == COMPLETE, state == LEADING

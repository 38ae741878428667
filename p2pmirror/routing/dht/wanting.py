"""Asks the holders of a key who fetches it from upstream, and tells them how far this node is when it does.

Laws:
- the closest holder that answers is asked, this node itself when it is that one; a silent one is passed over;
- whom a holder names is handed out as by a lookup: known there, or pinged now; when he is not there the holder is told,
  and asked again;
- it ends in time, whatever happens, and whoever gets no answer leads: a further leader costs a copy, never a failure;
- what this node leads is said to the holder that granted it and to the closest ones, at most every `REPORT_S`; each
  takes it for a lease if it knows of none.

DESIGN.md section 4, "Leader".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.dht.finding import Finder
from p2pmirror.routing.dht.granting import Asker, Granting, own_leader
from p2pmirror.routing.dht.liveness import CHECK_S, Liveness
from p2pmirror.routing.dht.messages import (
    ALIVE,
    COMPLETE,
    AnyAnswer,
    DialFailed,
    Found,
    Granted,
    Noted,
    Report,
    Resign,
    Want,
    pack_address,
)
from p2pmirror.routing.dht.rpc import Rpc
from p2pmirror.routing.dht.search import KNOWN_AT_START, find_nodes
from p2pmirror.routing.dht.table import distance
from p2pmirror.routing.dht.view import View
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.routing.protocol import LEASE_S, Grant, Key, Provider
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

JOIN_S = 1.0  # a node that has not joined yet waits so long for it: it would ask nobody
WANT_S = 2.0  # that, and all holders together: four to eight silent ones are passed over within it
HOLDER_S = 0.25  # a holder's first word, with three repeats: a busy process is frozen for some 100 ms
REPEAT_S = 0.03  # until the first repeat, then twice as long each: an answer takes a millisecond
PATIENCE_S = CHECK_S + 0.2  # a holder that pings somebody first
LOOKS = 4  # repeats within that, since the answer may be lost as well
ASKED_MAX = 2  # times that a holder is asked: once more when whom it named is not there
DOUBT_S = 0.25  # telling a holder that whom it names is not there
REPORT_S = 0.4  # between two reports of a key: the leader says it every 500 ms at least
REPORTED = 4  # closest holders that are told how far a leader is, beside the one that granted
SAY_S = 0.3  # a report or a resignation with its repeats
SAYING_MAX = 512  # such words under way; further ones are not said
LED_MAX = 4096  # keys that this node leads; whoever forgets to resign has the oldest forgotten

Holder = tuple[NodeId, Address]
ALONE = Grant(leads=True, leader=None, providers=())


@dataclass(slots=True)
class _Led:
    """A key that this node leads."""

    term: int
    granter: Holder | None
    spoke: float  # when it was granted, or last reported
    holders: tuple[Holder, ...] = ()  # the closest as they were when it was granted: a large table may lack them
    next_report: float = 0.0


class Wanting:
    """Wants keys while a router runs."""

    def __init__(
        self,
        view: View,
        rpc: Rpc,
        liveness: Liveness,
        finder: Finder,
        granting: Granting,
        *,
        joined: trio.Event,
        nursery: trio.Nursery,
        metrics: RoutingMetrics,
    ) -> None:
        """Ask by `rpc`, or `granting` where this node is the holder; say in `nursery` what this node leads."""
        self._view = view
        self._rpc = rpc
        self._liveness = liveness
        self._finder = finder
        self._granting = granting
        self._joined = joined
        self._nursery = nursery
        self._metrics = metrics
        self._term = 0
        self._led: dict[Key, _Led] = {}  # the one granted longest ago first
        self._saying = 0
        self._closed = False

    def close(self) -> None:
        """Say nothing any more: the router stops."""
        self._closed = True

    async def want(self, key: Key) -> Grant:
        """Ask; see `protocol.Router.want`."""
        self._term += 1
        term = self._term
        with trio.move_on_after(WANT_S):
            with trio.move_on_after(JOIN_S):
                await self._joined.wait()
            holders = await self._holders(key)
            granter, grant = await self._ask_holders(holders, key, term)
            self._count(grant, answered=granter is not None)
            if grant.leads:
                self._lead(key, term, granter, holders)
            return grant
        self._count(ALONE, answered=False)
        self._lead(key, term, None)
        return ALONE

    def report(self, key: Key, count: int) -> None:
        """Say how far this node is; see `protocol.Router.report`."""
        led = self._led.get(key)
        if led is None:
            self._term += 1
            led = self._lead(key, self._term, None)
        now = led.spoke = trio.current_time()
        self._view.leases.reports(key, own_leader(self._view), led.term, count, now)
        if now >= led.next_report:
            led.next_report = now + REPORT_S
            for holder in self._told(key, led):
                self._start_saying(holder, Report(key, self._view.own, led.term, count))

    def resign(self, key: Key, *, quietly: bool) -> None:
        """Lead a key no more; `quietly`: nobody is told, and its leases end by themselves."""
        led = self._led.pop(key, None)
        if led is None:
            return
        own = own_leader(self._view)
        self._view.leases.resigns(key, own.node_id, own.router, led.term)
        if not quietly:
            for holder in self._told(key, led):
                self._start_saying(holder, Resign(key, led.term))

    async def _ask_holders(self, holders: Sequence[Holder], key: Key, term: int) -> tuple[Holder | None, Grant]:
        """Ask one after the other until one answers; return it with the grant, None when there is nobody else."""
        for holder in holders:
            for _ in range(ASKED_MAX):
                granted = await self._ask(holder, key, term)
                if granted is None:
                    break
                grant = await self._vouched(holder, granted)
                if grant is not None:
                    return (holder if len(holders) > 1 else None), grant
        return None, ALONE

    async def _holders(self, key: Key) -> list[Holder]:
        """Return whom to ask, the closest first, this node among them; nobody who is known to be silent."""
        holders: dict[NodeId, Address] = {}
        if not self._view.table.knows_all_near(key, self._view.holders):
            holders.update(await find_nodes(self._view, self._rpc, key))
        contacts = self._view.table.closest(key, KNOWN_AT_START)
        holders.update({each.id: each.address for each in contacts if not each.failures and self._is_sound(each.id)})
        holders[self._view.own_id] = self._rpc.address
        return _by_distance(holders, key)

    def _is_sound(self, node_id: NodeId) -> bool:
        known = self._view.members.get(node_id)
        return known is not None and known.state == ALIVE and not known.doubted

    async def _ask(self, holder: Holder, key: Key, term: int) -> Granted | None:
        """Ask one holder; None when it does not answer in time."""
        answers = _Answers()
        if holder[0] == self._view.own_id:
            self._granting.want(key, Asker(own_leader(self._view), self._view.own.seed, term, answers.take))
            await answers.within(PATIENCE_S)
            return answers.granted
        node_id, address = holder
        try:
            asked = self._rpc.begin(address, Want(key, self._view.own, term), answers.take, expected=node_id)
        except Unreachable:
            return None
        try:
            await answers.asked_for(partial(self._rpc.send, asked), max(REPEAT_S, self._rpc.soft_s(address)))
        finally:
            self._rpc.end(asked)
        if not answers.came:
            self._view.silent(node_id, address)
        return answers.granted

    async def _vouched(self, holder: Holder, granted: Granted) -> Grant | None:
        """Return a grant with those who are there; None when the one who matters is not: then the holder is told."""
        named = [_placed(holder, each) for each in (granted.leader, *granted.found) if each is not None]
        named = [each for each in named if each.node_id != self._view.own_id]
        there: dict[bytes, Provider] = {}

        async def vouch(each: Found) -> None:
            provider = await self._finder.vouch(holder[0], each)
            if provider is not None:
                there[each.node_id] = provider

        async with trio.open_nursery() as nursery:
            for each in named:
                nursery.start_soon(vouch, each)
        providers = tuple(there[each.node_id] for each in granted.found if each.node_id in there)
        if granted.leads:
            return Grant(leads=True, leader=None, providers=providers)
        if granted.leader is not None and granted.leader.node_id in there:
            return Grant(leads=False, leader=there[granted.leader.node_id], providers=providers)
        if granted.leader is None and any(provider.complete for provider in providers):
            return Grant(leads=False, leader=None, providers=providers)
        missing = [each for each in named if each.node_id not in there and (granted.leader or each.state == COMPLETE)]
        await self._doubt(holder, missing)
        return None

    async def _doubt(self, holder: Holder, missing: Iterable[Found]) -> None:
        """Have a holder look at those whom it named and who are not there."""
        await trio.lowlevel.checkpoint()
        for each in missing:
            if holder[0] == self._view.own_id:
                self._liveness.doubt(NodeId(each.node_id))
                continue
            try:
                await self._rpc.ask(holder[1], DialFailed(each.node_id), limit_s=DOUBT_S, expected=holder[0])
            except Unreachable:
                return

    def _count(self, grant: Grant, *, answered: bool) -> None:
        if not answered:
            self._metrics.want("alone")
        else:
            self._metrics.want("led" if grant.leads else "provided" if grant.leader is None else "follows")

    def _lead(self, key: Key, term: int, granter: Holder | None, holders: Sequence[Holder] = ()) -> _Led:
        """Note that this node leads a key, here as well: others may ask it. What it fell silent about is forgotten."""
        now = trio.current_time()
        self._led.pop(key, None)
        for silent in [each for each, led in self._led.items() if led.spoke + LEASE_S <= now]:
            del self._led[silent]
        if len(self._led) >= LED_MAX:
            del self._led[next(iter(self._led))]
        led = self._led[key] = _Led(term, granter, now, tuple(holders[:REPORTED]))
        self._view.leases.reports(key, own_leader(self._view), term, 0, now)
        return led

    def _told(self, key: Key, led: _Led) -> list[Holder]:
        """Return the holders that are told of a key that this node leads."""
        holders = {node_id: address for node_id, address in led.holders if node_id not in self._view.table}
        holders.update({each.id: each.address for each in self._view.table.closest(key, REPORTED)})
        closest = _by_distance(holders, key)[:REPORTED]
        granter = [] if led.granter is None else [led.granter]
        return [holder for holder in dict.fromkeys((*granter, *closest)) if holder[0] != self._view.own_id]

    def _start_saying(self, holder: Holder, word: Report | Resign) -> None:
        if not self._closed and self._saying < SAYING_MAX:
            self._saying += 1
            self._nursery.start_soon(self._say, holder, word)

    async def _say(self, holder: Holder, word: Report | Resign) -> None:
        node_id, address = holder
        try:
            await self._rpc.ask(address, word, limit_s=SAY_S, expected=node_id)
        except Unreachable:
            self._view.silent(node_id, address)
        finally:
            self._saying -= 1


class _Answers:
    """What a holder has answered to a want so far."""

    def __init__(self) -> None:
        self.granted: Granted | None = None
        self.came = False  # anything
        self._arrived = trio.Event()

    def take(self, answer: AnyAnswer) -> None:
        """Take one in: the answer, or `Noted`, which asks for patience."""
        if isinstance(answer, Granted):
            self.granted = answer
        if isinstance(answer, Granted | Noted):
            self.came = True
            self._arrived.set()

    async def within(self, limit_s: float) -> None:
        """Wait for the answer, so long at most."""
        with trio.move_on_after(limit_s):
            while self.granted is None:
                await self._arrived.wait()
                self._arrived = trio.Event()

    async def asked_for(self, send: Callable[[], None], pause_s: float) -> None:
        """Send a question, and again, until it is answered or nobody is there."""
        deadline = trio.current_time() + HOLDER_S
        while not self.came and (left_s := deadline - trio.current_time()) > 0:
            send()
            with trio.move_on_after(min(pause_s, left_s)):
                await self._arrived.wait()
            pause_s *= 2
        if not self.came:
            await trio.lowlevel.checkpoint()  # a process that was frozen finds the answer in its socket only now
        self._arrived = trio.Event()
        for _ in range(LOOKS if self.came else 0):
            await self.within(PATIENCE_S / LOOKS)
            if self.granted is not None:
                return
            send()


def _by_distance(holders: Mapping[NodeId, Address], key: Key) -> list[Holder]:
    return sorted(holders.items(), key=lambda holder: distance(holder[0], key))


def _placed(holder: Holder, found: Found) -> Found:
    """Return whom a holder names; itself it names where it was asked, which it cannot know as well as we do."""
    if found.node_id != holder[0]:
        return found
    return msgspec.structs.replace(found, router=pack_address(holder[1]))

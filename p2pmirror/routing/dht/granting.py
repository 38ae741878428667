"""What a holder answers to those who want a key: who has it, who leads, or that the asker does.

Laws:
- a provider that has all of it, and is there, wins over every lease: nothing is granted then;
- who is handed out, the leader as well, was heard in the last 8 s; where the answer hangs on somebody who was not, he
  is pinged first, once for all who ask for the key meanwhile, and who asks is told to have patience;
- a leader that does not answer that ping leads no more;
- who is granted a lease is told to the key's other holders; what they are told they believe only as long as nobody
  leads as far as they know (see `leases`).

DESIGN.md section 4, "Leader".
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.dht.handing import found_of
from p2pmirror.routing.dht.liveness import Liveness
from p2pmirror.routing.dht.messages import (
    COMPLETE,
    LEADING,
    RECORDS_MAX,
    Found,
    Granted,
    Led,
    NodeInfo,
    Noted,
    Report,
    Resign,
    Want,
    found_at,
    pack_address,
    unpack_address,
)
from p2pmirror.routing.dht.records import Record
from p2pmirror.routing.dht.rpc import Rpc
from p2pmirror.routing.dht.view import View
from p2pmirror.routing.leases import Leader
from p2pmirror.routing.protocol import LEASE_S, Key
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

WAITING_MAX = 1024  # askers that wait for pings, of all keys: who is more asks again
TELL_S = 0.5  # telling another holder, with its repeats
TELLING_MAX = 512  # tellings under way: 64 grants in half a second; further ones are not told of

Answer = Callable[[Granted | Noted], None]


@dataclass(frozen=True, slots=True)
class Asker:
    """Who wants a key, under which number it would lead, and how it is answered: `Noted` asks for patience."""

    leader: Leader
    is_seed: bool
    term: int
    answer: Answer


class Granting:
    """Grants leases out of a view, while a router runs."""

    def __init__(self, view: View, rpc: Rpc, liveness: Liveness, nursery: trio.Nursery) -> None:
        """Ping and tell in `nursery`."""
        self._view = view
        self._rpc = rpc
        self._liveness = liveness
        self._nursery = nursery
        self._waiting: dict[Key, dict[NodeId, Asker]] = {}
        self._telling = 0
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many askers wait for pings."""
        return sum(len(askers) for askers in self._waiting.values())

    def close(self) -> None:
        """Ping and tell nobody any more: the router stops."""
        self._closed = True

    def asked(self, want: Want, sender: NodeId, source: Address, now: float, answer: Answer) -> None:
        """Answer a want, now or after pings; who is not believed to be there is granted nothing that is kept."""
        info = want.info
        if info.node_id != sender or not self._view.met(info, source, now):
            return  # it speaks from two places, and is asked to settle that; meanwhile another holder answers it
        self.want(Key(want.key), Asker(leader_of(found_at(info, source)), info.seed, want.term, answer))

    def want(self, key: Key, asker: Asker) -> None:
        """Answer who wants a key; of one asker's questions the last is answered."""
        waiting = self._waiting.get(key)
        if waiting is None:
            granted = self._decide(key, asker, pinged=self._closed)
            if granted is not None:
                asker.answer(granted)
                return
        if self.waiting >= WAITING_MAX:
            return
        if waiting is None:
            waiting = self._waiting[key] = {}
            self._nursery.start_soon(self._ping, key)
        waiting[asker.leader.node_id] = asker
        asker.answer(Noted())

    def reported(self, report: Report, sender: NodeId, source: Address, now: float) -> None:
        """Take in a leader's report."""
        if report.info.node_id == sender and self._view.met(report.info, source, now):
            leader = leader_of(found_at(report.info, source))
            self._view.leases.reports(Key(report.key), leader, report.term, report.count, now)

    def resigned(self, resign: Resign, sender: NodeId, source: Address) -> None:
        """Take in that a leader leads no more."""
        self._view.leases.resigns(Key(resign.key), sender, source, resign.term)

    def told(self, led: Led, sender: NodeId, source: Address, now: float) -> None:
        """Take in whom another holder names."""
        info = led.leader
        if not info.router and info.node_id == sender:
            info = found_at(info, source)
        if info.router and info.node_id != self._view.own_id:
            self._view.leases.told(Key(led.key), leader_of(info), led.term, source.host, now)

    def _decide(self, key: Key, asker: Asker, *, pinged: bool) -> Granted | None:
        """Return what a node is answered; None when somebody must be pinged before that is known."""
        now = trio.current_time()
        complete = self._records(key, asker.leader, now, COMPLETE)
        fresh = [each for each in complete if self._view.may_hand_out(each.node_id, now)]
        if fresh:
            return Granted(leads=False, leader=None, found=self._found([*fresh, *self._parts(key, asker, now)], now))
        while (leader := self._view.leases.leader(key, now)) is not None:
            if leader.node_id == asker.leader.node_id or self._is_there(leader, now):
                break
            if not pinged:
                return None
            self._view.leases.end(key, leader)
        if complete and not pinged:
            return None
        return self._grant(key, asker, now)

    def _grant(self, key: Key, asker: Asker, now: float) -> Granted:
        seeds = () if asker.is_seed else self._seeds(now)
        before = self._view.leases.leader(key, now)
        leader = self._view.leases.wants(key, asker.leader, asker.term, now, seeds=seeds)
        found = self._found(self._parts(key, asker, now), now)
        leads = leader.node_id == asker.leader.node_id
        if before is None:
            self._tell_others(key, leader, asker.term if leads else 0)
        return Granted(leads, None if leads else _as_found(leader), found)

    async def _ping(self, key: Key) -> None:
        """Ping those on whom the answer hangs; then answer all who have asked meanwhile."""
        now = trio.current_time()
        records = self._records(key, own_leader(self._view), now, COMPLETE)
        sources = [self._view.records.source(each.node_id) for each in records]
        stale = {each.node_id: each.router for each in sources if each is not None}
        leaders = self._view.leases.named(key, now)
        async with trio.open_nursery() as nursery:

            async def ping(node_id: NodeId, address: Address) -> None:
                if await self._liveness.check(node_id, address) and node_id in stale:
                    nursery.cancel_scope.cancel()  # one that has all of it is enough

            for node_id, address in stale.items():
                nursery.start_soon(ping, node_id, address)
            for leader in leaders:
                if leader.node_id not in stale and not self._is_there(leader, now):
                    nursery.start_soon(self._liveness.reaches, leader.node_id, leader.router)
        for asker in self._waiting.pop(key).values():
            granted = self._decide(key, asker, pinged=True)
            assert granted is not None, "who was pinged is there or not"
            asker.answer(granted)

    def _is_there(self, leader: Leader, now: float) -> bool:
        if leader.node_id == self._view.own_id:
            return True
        return self._view.may_hand_out(leader.node_id, now) and self._view.address(leader.node_id) == leader.router

    def _seeds(self, now: float) -> list[Leader]:
        """Return the seeds that were heard lately, this node among them if it is one."""
        members = self._view.members
        seeds = [known.info for known in members.present() if known.info.seed]
        live = [leader_of(info) for info in seeds if members.is_fresh(NodeId(info.node_id), now)]
        return [*live, own_leader(self._view)] if self._view.own.seed else live

    def _records(self, key: Key, asker: Leader, now: float, state: int | None = None) -> list[Record]:
        view = self._view
        return view.records.find(key, asker.zone, now, view.random, but=asker.node_id, state=state)

    def _parts(self, key: Key, asker: Asker, now: float) -> list[Record]:
        """Return those that are known to be there and have a part."""
        records = self._records(key, asker.leader, now)
        return [each for each in records if each.state != COMPLETE and self._view.may_hand_out(each.node_id, now)]

    def _found(self, records: Iterable[Record], now: float) -> tuple[Found, ...]:
        return tuple(found_of(self._view.records, record, now) for record in records)[:RECORDS_MAX]

    def _tell_others(self, key: Key, leader: Leader, term: int) -> None:
        """Tell the other holders who leads, so that they know it when this one dies."""
        info = _as_info(leader) if leader.node_id != self._view.own_id else self._view.own
        led = Led(key, info, term)
        for node_id in self._view.closest(key, self._view.holders):
            contact = self._view.table.get(node_id)
            if contact is not None and node_id != leader.node_id and self._telling < TELLING_MAX and not self._closed:
                self._telling += 1
                self._nursery.start_soon(self._tell, node_id, contact.address, led)

    async def _tell(self, node_id: NodeId, address: Address, led: Led) -> None:
        try:
            await self._rpc.ask(address, led, limit_s=TELL_S, expected=node_id)
        except Unreachable:
            self._view.silent(node_id, address)
        finally:
            self._telling -= 1


def leader_of(info: NodeInfo) -> Leader:
    """Return a node as one that may lead; its `router` is filled in."""
    return Leader(
        NodeId(info.node_id), info.boot_id, unpack_address(info.router), unpack_address(info.registry), info.zone
    )


def own_leader(view: View) -> Leader:
    """Return this node as one that may lead; its registry stands in for its router, which others know better."""
    own = view.own
    registry = unpack_address(own.registry)
    return Leader(view.own_id, own.boot_id, registry, registry, own.zone)


def _as_info(leader: Leader) -> NodeInfo:
    home, registry = pack_address(leader.router), pack_address(leader.registry)
    return NodeInfo(leader.node_id, leader.boot_id, 0, home, registry, leader.zone)


def _as_found(leader: Leader) -> Found:
    home, registry = pack_address(leader.router), pack_address(leader.registry)
    return Found(leader.node_id, home, registry, leader.zone, LEADING, int(LEASE_S))

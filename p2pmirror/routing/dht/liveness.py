"""Pings: each second one member, and at once whoever is doubted or silent.

Laws: every ping has a limit; a node is suspected only after others tried as well; one check of a node serves all who
wait for it; a member that answers costs no task, only a look at the next tick.

Follows SWIM, section 3.1 (ping, ping-req). DESIGN.md section 4, "Liveness".
"""

import math
from dataclasses import dataclass, field

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.dht.members import Known
from p2pmirror.routing.dht.messages import ALIVE, AnyAnswer, Contact, PingThrough, Pong, Reached, pack_address
from p2pmirror.routing.dht.rpc import Asked, Rpc
from p2pmirror.routing.dht.view import View
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

PERIOD_S = 1.0  # one member is pinged each period: SWIM's T'
GRID_S = 0.05  # ticks fall on multiples of this: timers that can wait wake a process, or a simulation, together
PROBE_S = 0.5  # a ping with its repeats
LOOK_S = 1.0  # a look at who was silent: directly, and after `DIRECT_S` through others as well
DIRECT_S = 0.25  # an answer takes a millisecond; one lost datagram is repeated within this
CHECK_S = 0.250  # a holder's ping before it hands a provider out; 50 ms took nodes that waited for a processor for dead
ACCUSE_S = 1.0  # telling a node that it was taken for gone
LATE_S = 0.25  # this node itself was frozen (a CPU quota, a busy host) so long: nobody else is to blame
KNOCK_PERIODS = 10  # periods between two pings at members that are gone
CLAIMS_MAX = 256  # nodes under way that spoke from another address: a rack that was renumbered, five racks
LOOKS_AT_ONCE = 64  # looks at who was silent, under way; each costs some datagrams


@dataclass(slots=True)
class _Probe:
    """The ping of the last tick."""

    known: Known
    asked: Asked | None = None
    answered: bool = False

    def take(self, answer: AnyAnswer) -> None:
        self.answered = self.answered or isinstance(answer, Pong)


@dataclass(slots=True)
class _Checking:
    """A ping that somebody waits for."""

    began: float
    done: trio.Event = field(default_factory=trio.Event)
    is_own: bool = False  # whether this node wants to know, and not only others


class Liveness:
    """Watches the members of a view."""

    def __init__(self, view: View, rpc: Rpc) -> None:
        """Ping nobody yet."""
        self._view = view
        self._rpc = rpc
        self._probe: _Probe | None = None
        self._looked_at: set[NodeId] = set()
        self._checks: dict[tuple[NodeId, Address], _Checking] = {}
        self._claims: set[NodeId] = set()  # nodes that spoke from another address, while they are looked at
        self._nursery: trio.Nursery | None = None  # while it runs
        self._limiter = trio.CapacityLimiter(LOOKS_AT_ONCE)
        self._late_at = -1.0  # when this node's own loop last came late
        view.on_silent = self._look_soon
        view.on_claimed = self._look_where_it_was

    async def ping(self, address: Address, *, limit_s: float, expected: NodeId | None = None) -> NodeId:
        """Ping an address; return who answered, who is a member then. Raises `Unreachable`."""
        answer = await self._rpc.ask(
            address, self._rpc.ping(self._view.own, address), limit_s=limit_s, expected=expected
        )
        if not isinstance(answer, Pong):
            raise Unreachable(f"{address} answered a ping with something else")
        return NodeId(answer.info.node_id)

    async def check(self, node_id: NodeId, address: Address, *, is_own: bool = True) -> bool:
        """Ping a node unless somebody does so already; return whether it was heard since, within `CHECK_S`.

        That it was heard before does not count: helpers who said so kept the dead alive for seconds.
        The ping goes on after that: a node that is only slow (frozen by a CPU quota) is fresh again when it answers.
        A node that is silent is looked at if anybody here wants to know for himself (`is_own`): whoever asks from
        elsewhere looks already, and helpers that looked too would call their helpers, until everybody looks.
        """
        checking = self._checks.get((node_id, address))
        if checking is None:
            if self._nursery is None:
                return False  # stopped
            checking = self._checks[node_id, address] = _Checking(trio.current_time())
            self._nursery.start_soon(self._check, node_id, address, checking)
        checking.is_own = checking.is_own or is_own
        with trio.move_on_after(CHECK_S):
            await checking.done.wait()
        known = self._view.members.get(node_id)
        if known is None or known.last_heard < checking.began or self._view.address(node_id) != address:
            return False
        return self._view.members.is_fresh(node_id, trio.current_time())

    async def _check(self, node_id: NodeId, address: Address, checking: _Checking) -> None:
        try:
            await self.ping(address, limit_s=PROBE_S, expected=node_id)
        except Unreachable:
            if self._view.address(node_id) == address:
                self._view.members.doubt(node_id)
                if checking.is_own:
                    self._view.silent(node_id, address)
        finally:
            del self._checks[node_id, address]
            checking.done.set()

    async def reaches(self, node_id: NodeId, address: Address) -> bool:
        """Ping a node for somebody else; return whether it answered within `CHECK_S`.

        Where this node does not know it to be it is pinged once: who asks repeats, and may have invented it.
        """
        if self._view.address(node_id) == address:
            return await self.check(node_id, address, is_own=False)
        arrived = trio.Event()
        answered = False

        def take(answer: AnyAnswer) -> None:
            nonlocal answered
            answered = isinstance(answer, Pong)
            arrived.set()

        try:
            asked = self._rpc.begin(address, self._rpc.ping(self._view.own, address), take, expected=node_id)
        except Unreachable:
            return False
        try:
            self._rpc.send(asked)
            with trio.move_on_after(CHECK_S):
                await arrived.wait()
        finally:
            self._rpc.end(asked)
        return answered

    def doubt(self, node_id: NodeId) -> None:
        """Do not hand a node out before it has answered a ping, which is sent now."""
        known = self._view.members.get(node_id)
        if known is not None:
            self._view.members.doubt(node_id)
            self._view.meet(known.router)

    def accuse(self, node_id: NodeId) -> None:
        """Tell a node that came back that it was taken for gone, so that it says again what it has."""
        if self._nursery is not None:
            self._nursery.start_soon(self._tell_accused, node_id)

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._watch()
        finally:
            self._nursery = None

    async def _watch(self) -> None:
        """Ping one member each period, and look at whoever did not answer the last one."""
        period = 0
        due = _on_grid(trio.current_time() + PERIOD_S * self._view.random.random())
        while True:
            await trio.sleep_until(due)
            now = trio.current_time()
            is_late = now > due + LATE_S
            if is_late:
                self._late_at = now
            self._end_probe(is_late=is_late)
            due = _on_grid(max(due, now - PERIOD_S) + PERIOD_S)
            if is_late:
                continue
            period += 1
            self._view.tick(now)
            self._begin_probe()
            if period % KNOCK_PERIODS == 0 and (gone := self._view.members.next_knock()) is not None:
                self._view.meet(gone.router)

    def _begin_probe(self) -> None:
        known = self._view.members.next_ping()
        if known is None:
            return
        probe = _Probe(known)
        try:
            ping = self._rpc.ping(self._view.own, known.router)
            probe.asked = self._rpc.begin(known.router, ping, probe.take, expected=NodeId(known.info.node_id))
        except Unreachable:
            return  # this node has too much under way to judge others
        self._rpc.send(probe.asked)
        self._probe = probe

    def _end_probe(self, *, is_late: bool) -> None:
        """Look at who was pinged in the last period; an answer may lie unread where this node itself comes late."""
        probe, self._probe = self._probe, None
        if probe is None or probe.asked is None:
            return
        self._rpc.end(probe.asked)
        if not probe.answered and not is_late:
            self._view.silent(NodeId(probe.known.info.node_id), probe.asked.to)

    def _look_soon(self, known: Known) -> None:
        """Have a member looked at that did not answer, unless somebody does or did: a suspect has to speak itself."""
        node_id = NodeId(known.info.node_id)
        self._view.members.doubt(node_id)
        if known.state == ALIVE and self._nursery is not None and node_id not in self._looked_at:
            self._looked_at.add(node_id)
            self._nursery.start_soon(self._look_at, known)

    async def _look_at(self, known: Known) -> None:
        node_id = NodeId(known.info.node_id)
        try:
            async with self._limiter:
                begun, boot_id, address = trio.current_time(), known.info.boot_id, known.router
                is_there = await self._is_reached(known) or known.last_heard >= begun
            is_another = (known.info.boot_id, known.router) != (boot_id, address)  # it began anew, or moved, meanwhile
            if not is_there and not is_another and self._late_at < begun:
                self._view.suspect(node_id, trio.current_time())
        finally:
            self._looked_at.discard(node_id)

    def _look_where_it_was(self, node_id: NodeId, old: Address, new: Address) -> None:
        """Look whether a node that spoke from another address still answers at the one that is known, unless we do."""
        if self._nursery is not None and node_id not in self._claims and len(self._claims) < CLAIMS_MAX:
            self._claims.add(node_id)
            self._nursery.start_soon(self._settle_claim, node_id, old, new)

    async def _settle_claim(self, node_id: NodeId, old: Address, new: Address) -> None:
        try:
            await self.ping(old, limit_s=LOOK_S, expected=node_id)
        except Unreachable:
            self._view.moved(node_id, old, new, trio.current_time())
        finally:
            self._claims.discard(node_id)

    async def _is_reached(self, known: Known) -> bool:
        """Ping a member, and have a few others ping it too; with nobody to ask, our own ping decides."""
        node_id = NodeId(known.info.node_id)
        target = Contact(known.info.node_id, pack_address(known.router))
        reached = False
        async with trio.open_nursery() as nursery:

            async def directly() -> None:
                nonlocal reached
                try:
                    await self.ping(known.router, limit_s=LOOK_S, expected=node_id)
                except Unreachable:
                    return
                reached = True
                nursery.cancel_scope.cancel()

            async def through(helper: Known) -> None:
                nonlocal reached
                try:
                    answer = await self._rpc.ask(helper.router, PingThrough(target), limit_s=LOOK_S)
                except Unreachable:
                    return
                if isinstance(answer, Reached) and answer.alive:
                    reached = True
                    nursery.cancel_scope.cancel()

            nursery.start_soon(directly)
            await trio.sleep(DIRECT_S)
            for helper in self._view.members.helpers(node_id):
                nursery.start_soon(through, helper)
        return reached

    async def _tell_accused(self, node_id: NodeId) -> None:
        known = self._view.members.get(node_id)
        if known is None:
            return
        ping, news = self._rpc.ping(self._view.own, known.router), self._view.members.accusation(node_id)
        try:
            await self._rpc.ask(known.router, ping, limit_s=ACCUSE_S, expected=node_id, news=news)
        except Unreachable:
            return  # gone again: the watch finds out


def _on_grid(at: float) -> float:
    """Return the first tick at or after a moment."""
    return math.ceil(at / GRID_S) * GRID_S

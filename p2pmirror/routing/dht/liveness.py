"""Pings: each second one member, at once whoever is doubted, and strangers before they count.

Laws: every ping has a limit; a node is suspected only after others tried as well; one check of a node serves all who
wait for it.

Follows SWIM, section 3.1 (ping, ping-req). DESIGN.md section 4, "Liveness".
"""

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.dht.members import Known
from p2pmirror.routing.dht.messages import Contact, Ping, PingThrough, Pong, Reached, pack_address
from p2pmirror.routing.dht.rpc import Rpc
from p2pmirror.routing.dht.view import View
from p2pmirror.routing.metrics import RoutingMetrics
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

PERIOD_S = 1.0  # one member is pinged each period: SWIM's T'
PROBE_S = 0.5  # half a period: the other half is for asking through others
CHECK_S = 0.250  # a holder's ping before it hands a provider out; 50 ms took nodes that waited for a processor for dead
MEET_S = 1.0  # a stranger's first answer: two round trips, also to another continent
LATE_S = 0.25  # this node itself was frozen (a CPU quota, a busy host) so long: nobody else is to blame
KNOCK_PERIODS = 10  # periods between two pings at members that are gone
PINGS_AT_ONCE = 64  # pings under way for strangers; each costs two datagrams


class Liveness:
    """Watches the members of a view."""

    def __init__(self, view: View, rpc: Rpc, metrics: RoutingMetrics) -> None:
        """Ping nobody yet."""
        self._view = view
        self._rpc = rpc
        self._metrics = metrics
        self._checks: dict[NodeId, trio.Event] = {}
        self._nursery: trio.Nursery | None = None  # while it runs
        self._wake = trio.Event()
        self._limiter = trio.CapacityLimiter(PINGS_AT_ONCE)
        self._accused: set[NodeId] = set()
        self._late_at = -1.0  # when this node's own loop last came late
        view.on_to_ping = self._wake_up

    async def ping(self, address: Address, *, limit_s: float, expected: NodeId | None = None) -> NodeId:
        """Ping an address; return who answered, who is a member then. Raises `Unreachable`."""
        answer = await self._rpc.ask(address, Ping(self._view.own), limit_s=limit_s, expected=expected)
        if not isinstance(answer, Pong):
            raise Unreachable(f"{address} answered a ping with something else")
        return NodeId(answer.info.node_id)

    async def check(self, node_id: NodeId, address: Address) -> bool:
        """Ping a node unless somebody does so already; return whether it answered within 50 ms.

        The ping goes on after that: a node that is only slow (frozen by a CPU quota) is fresh again when it answers.
        """
        done = self._checks.get(node_id)
        if done is None:
            if self._nursery is None:
                return False  # stopped
            done = self._checks[node_id] = trio.Event()
            self._nursery.start_soon(self._check, node_id, address, done)
        with trio.move_on_after(CHECK_S):
            await done.wait()
        return self._view.members.is_fresh(node_id, trio.current_time())

    async def _check(self, node_id: NodeId, address: Address, done: trio.Event) -> None:
        try:
            await self.ping(address, limit_s=PROBE_S, expected=node_id)
        except Unreachable:
            self._view.members.doubt(node_id)
            self._view.silent(node_id)
        finally:
            del self._checks[node_id]
            done.set()

    def doubt(self, node_id: NodeId) -> None:
        """Do not hand a node out before it has answered a ping, which is sent now."""
        known = self._view.members.get(node_id)
        if known is not None:
            self._view.members.doubt(node_id)
            self._view.ping_soon(known.router)

    def accuse(self, node_id: NodeId) -> None:
        """Tell a node that came back that it was taken for gone, so that it says again what it has."""
        self._accused.add(node_id)
        self._wake_up()

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._meet_strangers, nursery)
                await self._watch(nursery)
        finally:
            self._nursery = None

    async def _watch(self, nursery: trio.Nursery) -> None:
        """Ping one member each period."""
        period, due = 0, trio.current_time()
        while True:
            due = max(due + PERIOD_S, trio.current_time())
            await trio.sleep_until(due)
            if trio.current_time() > due + LATE_S:
                self._late_at = trio.current_time()
                continue
            period += 1
            self._view.tick(due)
            self._count()
            if (known := self._view.members.next_ping()) is not None:
                nursery.start_soon(self._probe, known)
            if period % KNOCK_PERIODS == 0 and (gone := self._view.members.next_knock()) is not None:
                nursery.start_soon(self._meet, gone.router)

    async def _probe(self, known: Known) -> None:
        node_id = NodeId(known.info.node_id)
        begun = trio.current_time()
        try:
            await self.ping(known.router, limit_s=PROBE_S, expected=node_id)
        except Unreachable:
            self._view.members.doubt(node_id)
            self._view.silent(node_id)
            if not await self._is_reached_by_others(known) and self._late_at < begun:
                self._view.suspect(node_id, trio.current_time())

    async def _is_reached_by_others(self, known: Known) -> bool:
        """Have a few others ping it; with nobody to ask, our own ping decides."""
        target = Contact(known.info.node_id, pack_address(known.router))
        reached = False
        async with trio.open_nursery() as nursery:

            async def through(helper: Known) -> None:
                nonlocal reached
                try:
                    answer = await self._rpc.ask(helper.router, PingThrough(target), limit_s=PERIOD_S)
                except Unreachable:
                    return
                if isinstance(answer, Reached) and answer.alive:
                    reached = True
                    nursery.cancel_scope.cancel()

            for helper in self._view.members.helpers(NodeId(known.info.node_id)):
                nursery.start_soon(through, helper)
        return reached

    async def _meet_strangers(self, nursery: trio.Nursery) -> None:
        while True:
            for address in self._view.take_to_ping():
                nursery.start_soon(self._meet, address)
            for node_id in self._accused:
                nursery.start_soon(self._tell_accused, node_id)
            self._accused = set()
            await self._wake.wait()
            self._wake = trio.Event()

    async def _meet(self, address: Address) -> None:
        try:
            async with self._limiter:
                await self.ping(address, limit_s=MEET_S)
        except Unreachable:
            return  # an introduction to somebody who is not there
        finally:
            self._view.pinged(address)

    async def _tell_accused(self, node_id: NodeId) -> None:
        known = self._view.members.get(node_id)
        if known is None:
            return
        news = self._view.members.accusation(node_id)
        try:
            await self._rpc.ask(known.router, Ping(self._view.own), limit_s=MEET_S, expected=node_id, news=news)
        except Unreachable:
            return  # gone again: the watch finds out

    def _wake_up(self) -> None:
        self._wake.set()

    def _count(self) -> None:
        counts = {"alive": 0, "suspect": 0, "gone": 0}
        for known in self._view.members.all():
            counts[known.word] += 1
        for state, count in counts.items():
            self._metrics.members.labels(state).set(count)

"""Finding the cluster: knock at the bootstrap's addresses, learn all members, look up oneself.

Laws: the first attempt ends, with members or without, so that a node alone becomes a cluster of one; a node that is
alone knocks again, at growing intervals; an address that our own id answers at is our own.
"""

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.bootstrap import Bootstrap
from p2pmirror.routing.dht.liveness import Liveness
from p2pmirror.routing.dht.messages import Members, MembersAfter, unpack_address
from p2pmirror.routing.dht.rpc import Rpc
from p2pmirror.routing.dht.search import find_nodes
from p2pmirror.routing.dht.view import View
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.network import Network

KNOCK_S = 1.0  # a bootstrap address that is silent so long is not there
KNOCKS_MAX = 64  # bootstrap addresses asked at a time: one live one is enough, and the next attempt asks others
TEACHERS = 3  # members whose lists are read on joining: one of them may have joined a moment ago itself
PAGE_S = 0.5  # a page of members; repeated meanwhile
LEARNT_MAX = 1024  # members read from one teacher; a larger cluster is known by lookups
MEET_ALL_S = 2.0  # pinging everybody who was learnt; stragglers are met later
PINGS_AT_ONCE = 32  # pings under way: a burst that no socket buffer loses
RETRY_S_MIN, RETRY_S_MAX = 0.5, 30.0  # pauses while alone: members may start in this second, or tomorrow
RECHECK_S = 1.0  # how often to look whether this node has become alone
EXCHANGE_S = 60.0  # read a random member's list: finds what news has missed
BOOTSTRAP_S = 300.0  # knock again although not alone: two halves of a cluster that never met
REFRESH_S = 600.0  # look up a random id where nothing was looked up for so long


class Join:
    """Joins, and stays joined."""

    def __init__(
        self, view: View, rpc: Rpc, liveness: Liveness, *, network: Network, bootstrap: Bootstrap | None
    ) -> None:
        """Know nobody yet."""
        self._view = view
        self._rpc = rpc
        self._liveness = liveness
        self._network = network
        self._bootstrap = bootstrap
        self.joined = False

    async def run(self) -> None:
        """Join, and look after it until cancelled."""
        await self._attempt()
        self.joined = True
        pause = RETRY_S_MIN
        next_exchange = next_bootstrap = next_refresh = trio.current_time()
        while True:
            now = trio.current_time()
            if not self._view.members.present():
                await trio.sleep(pause * self._view.random.uniform(0.5, 1.0))
                pause = min(2 * pause, RETRY_S_MAX)
                await self._attempt()
                continue
            pause = RETRY_S_MIN
            if now >= next_bootstrap:
                next_bootstrap = now + self._jittered(BOOTSTRAP_S)
                await self._knock()
            if now >= next_exchange:
                next_exchange = now + self._jittered(EXCHANGE_S)
                await self._learn_from_somebody()
            if now >= next_refresh:
                next_refresh = now + self._jittered(REFRESH_S / 10)
                await self._refresh(now)
            await trio.sleep(RECHECK_S)

    async def _attempt(self) -> None:
        await self._knock()
        for known in self._view.members.present()[:TEACHERS]:
            await self._learn(known.router)
        if self._view.members.present():
            await find_nodes(self._view, self._rpc, self._view.own_id)

    async def _knock(self) -> None:
        """Ping some of the bootstrap's addresses; whoever answers and is not this node is a member."""
        if self._bootstrap is None:
            return
        named = await self._bootstrap.addresses()
        chosen = self._view.random.sample(named, min(len(named), KNOCKS_MAX))  # in the order of chance
        await self._ping_all(chosen, KNOCK_S)

    async def _learn_from_somebody(self) -> None:
        present = self._view.members.present()
        if present:
            await self._learn(self._view.random.choice(present).router)

    async def _learn(self, teacher: Address) -> None:
        """Read a member's list, and ping whoever is new."""
        strangers: list[Address] = []
        after = bytes(20)
        try:
            for _ in range(LEARNT_MAX):
                answer = await self._rpc.ask(teacher, MembersAfter(after), limit_s=PAGE_S)
                if not isinstance(answer, Members) or not answer.infos:
                    break
                strangers += [
                    unpack_address(info.router)
                    for info in answer.infos
                    if info.router and self._is_new(NodeId(info.node_id))
                ]
                after = max(after, *(info.node_id for info in answer.infos))
                if answer.last or len(strangers) >= LEARNT_MAX:
                    break
        except Unreachable:
            pass  # what was learnt until then counts
        await self._ping_all(strangers, MEET_ALL_S)

    def _is_new(self, node_id: NodeId) -> bool:
        known = self._view.members.get(node_id)
        return node_id != self._view.own_id and (known is None or known.word == "gone")

    async def _ping_all(self, addresses: list[Address], limit_s: float) -> None:
        limiter = trio.CapacityLimiter(PINGS_AT_ONCE)

        async def knock(address: Address) -> None:
            async with limiter:
                try:
                    await self._liveness.ping(address, limit_s=KNOCK_S)
                except Unreachable:
                    return

        with trio.move_on_after(limit_s):
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    nursery.start_soon(knock, address)

    async def _refresh(self, now: float) -> None:
        for lower, upper in self._view.table.unvisited(now - REFRESH_S):
            await find_nodes(self._view, self._rpc, self._view.random.randint(lower, upper).to_bytes(20, "big"))

    def _jittered(self, seconds: float) -> float:
        return seconds * self._view.random.uniform(0.8, 1.2)

"""Finding the cluster: knock at the bootstrap's addresses, learn all members, look up oneself.

Laws: the first attempt ends, with members or without, so that a node alone becomes a cluster of one; a node that is
alone, or alone again, knocks again, at growing intervals; an address that our own id answers at is our own; nobody is
pinged for whom the table has no place.
"""

from collections.abc import Iterable
from typing import Final

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.bootstrap import Bootstrap
from p2pmirror.routing.dht.meeting import Meeting
from p2pmirror.routing.dht.messages import Members, MembersAfter, NodeInfo, unpack_address
from p2pmirror.routing.dht.rpc import Rpc
from p2pmirror.routing.dht.search import find_nodes
from p2pmirror.routing.dht.table import CONTACTS_MAX
from p2pmirror.routing.dht.view import View
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

KNOCK_S = 1.0  # a bootstrap address that is silent so long is not there
KNOCKS_MAX = 64  # bootstrap addresses asked at a time: one live one is enough, and the next attempt asks others
TEACHERS = 3  # members whose lists are read on joining: one of them may have joined a moment ago itself
PAGE_S = 0.5  # a page of members; repeated meanwhile
LEARNT_MAX = 2 * CONTACTS_MAX  # members read from one teacher: nobody has more contacts than half of this
MEET_ALL_S = 2.0  # pinging everybody who was learnt; stragglers are met later
RETRY_S_MIN, RETRY_S_MAX = 0.5, 30.0  # pauses while alone: members may start in this second, or tomorrow
LEARN_AGAIN_S = 5.0  # between two looks for those who have a place since the cluster has shrunk
EXCHANGE_S = 30.0  # read a page of a member's list, both at random: finds in time what news has missed
BOOTSTRAP_S = 300.0  # knock again although not alone: two halves of a cluster that never met
NEIGHBOURS_S = 300.0  # look up oneself: in a cluster too large to be known, finds the neighbours that came since
FULL_FRACTION = 0.9  # of the places: a list so long is that of a table that is full, or nearly
NO_MEMBERS: Final = Members(last=True, infos=())


class Join:
    """Joins, and stays joined."""

    def __init__(self, view: View, rpc: Rpc, meeting: Meeting, *, bootstrap: Bootstrap | None) -> None:
        """Know nobody yet."""
        self._view = view
        self._rpc = rpc
        self._meeting = meeting
        self._bootstrap = bootstrap
        self._wake = trio.Event()
        self._knock_now = False
        self._learns_again = False  # because the cluster has shrunk
        self.ended = trio.Event()  # the first join

    async def run(self) -> None:
        """Join, and look after it until cancelled."""
        await self._attempt()
        self.ended.set()
        async with trio.open_nursery() as nursery:
            if self._bootstrap is not None:
                nursery.start_soon(self._follow, self._bootstrap)
            await self._stay()

    def changed(self) -> None:
        """Look whether this node is alone now, or knows few of those that are left."""
        table = self._view.table
        if not len(table):
            self._wake.set()
        elif not self._learns_again and table.is_sparse:
            self._learns_again = True
            self._wake.set()

    async def _stay(self) -> None:
        pause = RETRY_S_MIN
        now = trio.current_time()
        next_knock, next_exchange, next_neighbours, next_learn = (
            now + self._jittered(each) for each in (BOOTSTRAP_S, EXCHANGE_S, NEIGHBOURS_S, LEARN_AGAIN_S)
        )
        while True:
            if not len(self._view.table):
                await trio.sleep(pause * self._view.random.uniform(0.5, 1.0))
                pause = min(2 * pause, RETRY_S_MAX)
                await self._attempt()
                continue
            pause = RETRY_S_MIN
            first = min(next_knock, next_exchange, next_neighbours)
            with trio.move_on_at(min(first, next_learn) if self._learns_again else first):
                await self._wake.wait()
            self._wake = trio.Event()
            now = trio.current_time()
            if self._knock_now or now >= next_knock:
                next_knock, self._knock_now = now + self._jittered(BOOTSTRAP_S), False
                await self._knock_at_others()
            if self._learns_again and now >= next_learn:
                next_learn = now + self._jittered(LEARN_AGAIN_S)
                await self._learn_again()
            if now >= next_exchange:
                next_exchange = now + self._jittered(EXCHANGE_S)
                await self._exchange()
            if now >= next_neighbours:
                next_neighbours = now + self._jittered(NEIGHBOURS_S)
                if not self._view.table.knows_all:
                    await find_nodes(self._view, self._rpc, self._view.own_id)

    async def _follow(self, bootstrap: Bootstrap) -> None:
        """Knock when the bootstrap names others."""
        while True:
            await bootstrap.changed()
            self._knock_now = True
            self._wake.set()

    async def _attempt(self) -> None:
        await self._knock()
        for teacher in self._teachers():
            if await self._learn(teacher):
                break
        if len(self._view.table):
            await find_nodes(self._view, self._rpc, self._view.own_id)

    def _teachers(self) -> list[Address]:
        contacts = self._view.table.contacts()
        return [each.address for each in self._view.random.sample(contacts, min(TEACHERS, len(contacts)))]

    async def _knock(self) -> list[Address]:
        """Ping some of the bootstrap's addresses, and return them; who answers and is not this node is a member."""
        if self._bootstrap is None:
            return []
        named = await self._bootstrap.addresses()
        chosen = self._view.random.sample(named, min(len(named), KNOCKS_MAX))  # in the order of chance
        await self._meeting.meet_all(chosen, limit_s=KNOCK_S)
        return chosen

    async def _knock_at_others(self) -> None:
        """Knock although not alone; a stranger who opens may have a whole cluster behind him, and is asked for it."""
        known = {contact.address for contact in self._view.table.contacts()}
        knocked = await self._knock()
        strangers = [each.address for each in self._view.table.contacts() if each.address not in known]
        opened = [address for address in strangers if address in knocked]
        if opened:
            await self._learn(self._view.random.choice(opened))

    async def _learn_again(self) -> None:
        """Read the lists of some members: whoever is on them has a place now; when nobody new is, everybody is known.

        Until then the table is not believed to know who is near to a key: others may know of many who are not in it.
        """
        lists = [await self._list(teacher) for teacher in self._teachers()]
        strangers = self._wanted(info for infos in lists for info in infos)
        if strangers:
            await self._meet(strangers)
        elif any(lists):
            self._view.table.trust()
        self._learns_again = self._view.table.is_sparse

    async def _exchange(self) -> None:
        """Read a page of somebody's list, from anywhere in it, and all of the list where strangers are on that page."""
        contacts = self._view.table.contacts()
        if not contacts:
            return
        teacher = self._view.random.choice(contacts).address
        page = await self._page(teacher, self._view.random.randbytes(20))
        if self._wanted(page.infos):
            await self._learn(teacher)

    async def _learn(self, teacher: Address) -> bool:
        """Read a member's list, and ping whoever is new; return whether it showed that not everybody can be known.

        Then half of the table is filled, with those whom it would keep; the other half will be filled by others.
        """
        infos = await self._list(teacher)
        contacts_max = self._view.table.contacts_max
        is_large = len(infos) >= contacts_max * FULL_FRACTION
        if is_large:
            self._view.random.shuffle(infos)
            kept = set(self._view.table.would_keep((NodeId(info.node_id) for info in infos), contacts_max // 2))
            for info in infos:
                if info.node_id not in kept:
                    self._view.table.turn_away(NodeId(info.node_id))
            infos = [info for info in infos if info.node_id in kept]
        await self._meet(infos)
        return is_large

    async def _list(self, teacher: Address) -> list[NodeInfo]:
        """Read a member's list, page after page."""
        infos: list[NodeInfo] = []
        after = bytes(20)
        while len(infos) < LEARNT_MAX:
            page = await self._page(teacher, after)
            infos += page.infos
            if page.last or not page.infos:
                break
            after = max(after, *(info.node_id for info in page.infos))
        return infos

    async def _page(self, teacher: Address, after: bytes) -> Members:
        """Return the members after an id, or none and the end when there is no answer."""
        try:
            answer = await self._rpc.ask(teacher, MembersAfter(after), limit_s=PAGE_S)
        except Unreachable:
            return NO_MEMBERS
        return answer if isinstance(answer, Members) else NO_MEMBERS

    async def _meet(self, infos: Iterable[NodeInfo]) -> None:
        """Ping those who are new and wanted."""
        addresses = (unpack_address(info.router) for info in self._wanted(infos))
        await self._meeting.meet_all(addresses, limit_s=MEET_ALL_S)

    def _wanted(self, infos: Iterable[NodeInfo]) -> list[NodeInfo]:
        return [info for info in infos if info.router and self._view.table.wants(NodeId(info.node_id))]

    def _jittered(self, seconds: float) -> float:
        return seconds * self._view.random.uniform(0.8, 1.2)

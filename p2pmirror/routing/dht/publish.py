"""Tells the holders what this node has: batched, acknowledged, renewed.

Laws: what is said within a few milliseconds goes out together; a holder that did not answer is told again; nothing is
sent to a holder that has the latest word.
"""

from collections import OrderedDict

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.dht.members import Change
from p2pmirror.routing.dht.messages import NO_COOKIE, Entry, Request, Store, Stored
from p2pmirror.routing.dht.placement import TTL_S, Placement
from p2pmirror.routing.dht.rpc import Rpc
from p2pmirror.routing.dht.search import find_nodes
from p2pmirror.routing.dht.view import View
from p2pmirror.routing.protocol import Key
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

COALESCE_S = 0.005  # an image's blobs are said one by one within this; they leave as one batch
CHANGES_COALESCE_S = 0.050  # members that join or die together have the keys placed once
BATCHES_AT_ONCE = 16  # batches under way: 20 KB, which no socket buffer loses
BATCH_S = 2.0  # limit of a batch with its repeats
KEYS_PER_STEP = 64  # keys placed before others may run: about a millisecond
HOMES_MAX = 4096  # holders that are no contacts, with their addresses: 8 for each of some hundred images' blobs
REFUSED_S = 5.0  # before a holder is told again that took nothing: it is full, or looks where this node was before
ACCUSED_S = 2.0  # pause between two rounds of saying everything again, however many accuse


class Publisher:
    """Keeps the holders told."""

    def __init__(self, placement: Placement, view: View, rpc: Rpc) -> None:
        """Tell nobody yet."""
        self._placement = placement
        self._view = view
        self._rpc = rpc
        self._wake = trio.Event()
        self._sleeps_until = 0.0  # 0: it is awake, and looks again before it sleeps
        self._limiter = trio.CapacityLimiter(BATCHES_AT_ONCE)
        self._again_from = 0.0
        self._homes: OrderedDict[NodeId, Address] = OrderedDict()  # of holders that are no contacts

    def homes(self) -> list[Address]:
        """Return the addresses of the holders that are no contacts."""
        return list(self._homes.values())

    def wake_up(self) -> None:
        """Look at what is due."""
        self._wake.set()

    def changed(self, change: Change) -> None:
        """Take in a change of the membership."""
        now = trio.current_time()
        if change.kind == "gone":
            self._placement.gone(change.node_id, now + CHANGES_COALESCE_S)
        elif change.kind == "accused":
            if now >= self._again_from:
                self._again_from = now + ACCUSED_S
                self._placement.say_again(now)
        else:
            self._placement.joined(change.node_id, now + CHANGES_COALESCE_S)
        due = self._placement.next_due()
        if due is not None and due < self._sleeps_until:  # most changes concern no key of this node
            self.wake_up()

    async def run(self) -> None:
        """Tell until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._wait()
                await trio.sleep(COALESCE_S)
                for holder, entries in (await self._plan()).items():
                    self._tell(nursery, holder, entries)

    async def _wait(self) -> None:
        while (due := self._placement.next_due()) is None or due > trio.current_time():
            self._sleeps_until = trio.current_time() + TTL_S if due is None else due
            with trio.move_on_at(self._sleeps_until):
                await self._wake.wait()
            self._wake = trio.Event()
        self._sleeps_until = 0.0

    async def _plan(self) -> dict[NodeId, list[Entry]]:
        """Place what is due; return what each holder is to be told."""
        plan: dict[NodeId, list[Entry]] = {}
        for count, key in enumerate(self._placement.take(trio.current_time())):
            if count % KEYS_PER_STEP == KEYS_PER_STEP - 1:
                await trio.lowlevel.checkpoint()
            closest = await self._closest(key)
            farthest = int.from_bytes(closest[-1], "big") ^ int.from_bytes(key, "big")
            targets = self._placement.place(key, closest, farthest if len(closest) == self._view.holders else -1)
            entry = self._placement.entry(key, trio.current_time())
            if entry is not None:
                for node_id in targets:
                    plan.setdefault(node_id, []).append(entry)
        return plan

    async def _closest(self, key: Key) -> list[NodeId]:
        """Return a key's holders; a table that does not know everybody near it is helped by a lookup."""
        if self._view.table.knows_all_near(key, self._view.holders):
            return self._view.closest(key, self._view.holders)
        found = await find_nodes(self._view, self._rpc, key)
        for node_id, address in found.items():
            self._homes[node_id] = address
            self._homes.move_to_end(node_id)
        while len(self._homes) > HOMES_MAX:
            self._homes.popitem(last=False)
        return list(found)

    def _tell(self, nursery: trio.Nursery, holder: NodeId, entries: list[Entry]) -> None:
        own = self._view.own
        store = Store(own.boot_id, own.registry, own.zone, int(TTL_S), tuple(entries))
        if holder == self._view.own_id:
            self._view.keep_own(store, trio.current_time())
            self._placement.told(holder, entries)
            return
        sample = Request(bytes(8), own.node_id, NO_COOKIE, store)
        for batch in self._rpc.fitter.batches(store, sample):
            nursery.start_soon(self._send, holder, batch)

    async def _send(self, holder: NodeId, batch: Store) -> None:
        async with self._limiter:
            contact = self._view.table.get(holder)
            address = self._homes.get(holder) if contact is None else contact.address
            if address is None:
                self._placement.gone(holder, trio.current_time())
                self.wake_up()
                return
            try:
                answer = await self._rpc.ask(address, batch, limit_s=BATCH_S, expected=holder)
            except Unreachable:
                self._view.silent(holder, address)
                self._placement.not_told(batch.entries, trio.current_time())
                self.wake_up()
                return
            if isinstance(answer, Stored) and answer.count:
                self._placement.told(holder, batch.entries)
            else:
                self._placement.not_told(batch.entries, trio.current_time() + REFUSED_S)

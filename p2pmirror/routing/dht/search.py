"""Drives a lookup over the network: asks whom it names, tells it what comes, until it has ended.

Laws: one task, one writer of the lookup; what is found is handed on in the moment it arrives; being cancelled leaves no
question behind.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import msgspec
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.dht.lookup import NO_QUORUM, PENDING_S, QUORUM, Lookup
from p2pmirror.routing.dht.messages import (
    AnyAnswer,
    AnyQuestion,
    Contact,
    Contacts,
    FindNode,
    FindProviders,
    Found,
    Providers,
    pack_address,
    unpack_address,
)
from p2pmirror.routing.dht.rpc import Asked, Rpc
from p2pmirror.routing.dht.view import View
from p2pmirror.routing.protocol import Key, Step, Trace
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.patience import Patience

KNOWN_AT_START = 20  # contacts that a lookup begins with: k of the paper; more than its 8 holders, since some are gone
ASK_LIMIT_S = 0.100  # a node that is silent so long has failed for this lookup; pulls wait 30 ms

OnFound = Callable[[NodeId, Iterable[Found]], None]


@dataclass(slots=True)
class _Out:
    """A question to one node; `answered_at` is None while there is no answer. Times are trio's."""

    node_id: NodeId
    asked: Asked
    asked_at: float
    repeat_at: float
    deadline: float
    answered_at: float | None = None
    records: int = 0
    closer: int = 0


class Search:
    """One lookup of `target`; `on_found` gets records with their holder, `on_checking` hears that more may come."""

    def __init__(
        self,
        view: View,
        rpc: Rpc,
        target: bytes,
        question: AnyQuestion,
        *,
        on_found: OnFound = lambda _holder, _found: None,
        on_checking: Callable[[], None] = lambda: None,
        is_thorough: bool = False,
    ) -> None:
        """Begin with the table's closest contacts; `is_thorough`: ask all holders, whatever the first of them have."""
        self._view = view
        self._rpc = rpc
        self._question = question
        self._clock = Patience()
        self._on_found = on_found
        self._on_checking = on_checking
        contacts = view.table.closest(target, KNOWN_AT_START)
        self._addresses: dict[NodeId, Address] = {contact.id: contact.address for contact in contacts}
        self._hops: dict[NodeId, int] = dict.fromkeys(self._addresses, 1)
        quorum = NO_QUORUM if is_thorough else QUORUM
        self.lookup = Lookup(target, view.own_id, self._addresses, holders=view.holders, quorum=quorum)
        self._way: list[_Out] = []
        self._out: dict[NodeId, _Out] = {}
        self._answers: list[tuple[NodeId, AnyAnswer]] = []
        self._arrived = trio.Event()

    async def run(self) -> None:
        """Ask until the lookup has ended. Raises nothing; cancellation ends it."""
        try:
            while True:
                now = self._clock.now()  # one look for each turn, which takes a fraction of a millisecond
                self._take_answers(now)
                self._give_up(now)
                for node_id in self.lookup.next_asks(now):
                    self._ask(node_id, now)
                self._repeat(now)
                if self.lookup.ended(now):
                    break
                await self._wait(now)
        finally:
            for out in self._out.values():
                self._rpc.end(out.asked)

    def address(self, node_id: NodeId) -> Address:
        """Return where the router of a node is that this lookup knows."""
        return self._rpc.address if node_id == self._view.own_id else self._addresses[node_id]

    def steps(self, begun: float) -> tuple[Step, ...]:
        """Return the questions so far, in the order of asking, timed from `begun`."""
        return tuple(
            Step(
                out.node_id,
                self._addresses[out.node_id],
                self._hops[out.node_id],
                out.asked_at - begun,
                None if out.answered_at is None else out.answered_at - begun,
                out.records,
                out.closer,
            )
            for out in self._way
        )

    async def _wait(self, now: float) -> None:
        deadlines = [min(out.repeat_at, out.deadline) for out in self._out.values()]
        soft = self.lookup.next_deadline(now)
        await self._clock.wait(self._arrived, min([*deadlines, now + ASK_LIMIT_S if soft is None else soft]))

    def _ask(self, node_id: NodeId, now: float) -> None:
        to = self._addresses[node_id]
        try:
            asked = self._rpc.begin(to, self._question, partial(self._answered, node_id), expected=node_id)
        except Unreachable:
            self.lookup.asked(node_id, 0.0)
            self.lookup.failed(node_id)
            return
        soft_deadline = now + self._rpc.soft_s(to)
        out = self._out[node_id] = _Out(node_id, asked, trio.current_time(), soft_deadline, now + ASK_LIMIT_S)
        self._way.append(out)
        self.lookup.asked(node_id, soft_deadline)
        self._rpc.send(asked)

    def _answered(self, node_id: NodeId, answer: AnyAnswer) -> None:
        self._answers.append((node_id, answer))
        out = self._out.get(node_id)
        if out is not None and out.answered_at is None:
            out.answered_at = trio.current_time()
        self._arrived.set()

    def _take_answers(self, now: float) -> None:
        self._arrived = trio.Event()
        answers, self._answers = self._answers, []
        for node_id, answer in answers:
            if node_id not in self._out:
                continue  # it came with the last of its repeats
            if isinstance(answer, Providers):
                self._take(node_id, answer.closer, now, found=answer.found, final=answer.final)
            elif isinstance(answer, Contacts):
                self._take(node_id, answer.closer, now)

    def _take(
        self, node_id: NodeId, closer: Iterable[Contact], now: float, *, found: Iterable[Found] = (), final: bool = True
    ) -> None:
        found = tuple(self._placed(node_id, each) for each in found)
        if found:
            self._on_found(node_id, found)
        new = {NodeId(contact.node_id): contact for contact in closer}
        out = self._out[node_id]
        out.records += len(found)
        out.closer += len(new)
        if not final:
            self._on_checking()
        pending_until = None if final else now + PENDING_S
        for each in self.lookup.answered(node_id, new, found=bool(found), pending_until=pending_until):
            self._addresses[each] = self._view.address(each) or unpack_address(new[each].home)
            self._hops[each] = self._hops[node_id] + 1
        if final:
            self._rpc.end(self._out.pop(node_id).asked)
        else:
            out.repeat_at = out.deadline = max(out.deadline, now + PENDING_S)

    def _placed(self, holder: NodeId, found: Found) -> Found:
        """Return what a holder names; itself it names where it was asked, which it cannot know as well as we do."""
        if found.node_id != holder:
            return found
        return msgspec.structs.replace(found, router=pack_address(self._addresses[holder]))

    def _give_up(self, now: float) -> None:
        for node_id, out in list(self._out.items()):
            if out.deadline <= now:
                self._rpc.end(out.asked)
                del self._out[node_id]
                self.lookup.failed(node_id)
                self._view.silent(node_id, self._addresses[node_id])

    def _repeat(self, now: float) -> None:
        for out in self._out.values():
            if out.repeat_at <= now:
                out.repeat_at = out.deadline  # once: two lost in a row are rarer than a node that is gone
                self._rpc.send(out.asked)


async def find_nodes(view: View, rpc: Rpc, target: bytes) -> dict[NodeId, Address]:
    """Return the nodes closest to `target` that answered, nearest first, this one among them when it is."""
    search = Search(view, rpc, target, FindNode(target))
    await search.run()
    return {node_id: search.address(node_id) for node_id in search.lookup.closest()}


def find_providers(view: View, rpc: Rpc, key: Key, on_found: OnFound, on_checking: Callable[[], None]) -> Search:
    """Return the search for a key's records; a holder that is still checking some calls `on_checking`."""
    return Search(view, rpc, key, FindProviders(key, view.own.zone), on_found=on_found, on_checking=on_checking)


async def trace_providers(view: View, rpc: Rpc, key: Key) -> Trace:
    """Return the way of a lookup of a key's records that goes on until every holder was asked."""
    search = Search(view, rpc, key, FindProviders(key, view.own.zone), is_thorough=True)
    begun = trio.current_time()
    held = len(view.records.find(key, view.own.zone, begun, view.random, but=view.own_id))
    own = Step(view.own_id, rpc.address, 0, 0.0, 0.0, held, min(KNOWN_AT_START, len(view.table)))
    await search.run()
    return Trace(key, trio.current_time() - begun, (own, *search.steps(begun)), tuple(search.lookup.closest()))

"""What this node answers to the questions of others.

Laws:
- whoever asks has proved its address; what it says of itself is kept under that address only;
- a provider is handed out when it was heard in the last 8 s; the others are pinged first, and follow;
- an answer is made without waiting, except where it is a ping that is waited for, which has a limit, and so has how
  many of these are under way: beyond it what is fresh is all there is, and nobody is pinged for others.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from p2pmirror.routing.dht.granting import Granting
from p2pmirror.routing.dht.handing import found_of
from p2pmirror.routing.dht.liveness import CHECK_S, Liveness
from p2pmirror.routing.dht.messages import (
    MEMBERS_MAX,
    PARTIAL,
    AnyAnswer,
    Contacts,
    DialFailed,
    FindNode,
    FindProviders,
    Goodbye,
    Knock,
    Led,
    Members,
    MembersAfter,
    Noted,
    Ping,
    PingThrough,
    Pong,
    Providers,
    Reached,
    Report,
    Request,
    Resign,
    Store,
    Stored,
    Want,
    unpack_address,
)
from p2pmirror.routing.dht.records import Record
from p2pmirror.routing.dht.rpc import Rpc
from p2pmirror.routing.dht.view import View
from p2pmirror.routing.protocol import Key
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

CONTACTS_PER_ANSWER = 20  # k of the paper
CONTACTS_PER_PROVIDERS = 10  # records need the room: the key's 8 holders, and two in place of dead ones
CONTACTS_WITH_RECORDS = 3  # beside records: the lookup needs two holders more, whom it mostly knows
LATER_MAX = 128  # answers that wait for pings, of 16 at most: half of the questions that may wait for an answer
FLUSH_S = 0.001  # providers that answered their ping within this go out together


class Answers:
    """Answers questions out of a view."""

    def __init__(self, view: View, rpc: Rpc, liveness: Liveness, granting: Granting, nursery: trio.Nursery) -> None:
        """Run in `nursery` what takes a ping to answer; wants are answered by `granting`."""
        self._view = view
        self._rpc = rpc
        self._liveness = liveness
        self._granting = granting
        self._nursery = nursery
        self._later = 0  # answers that wait for pings

    def answer(self, request: Request, source: Address) -> None:
        """Answer, or have it answered."""
        answer = self._now(request, source, trio.current_time())
        if answer is not None:
            self._rpc.reply(request, source, answer)

    def _now(self, request: Request, source: Address, now: float) -> AnyAnswer | None:
        sender = NodeId(request.sender)
        match request.question:
            case Ping(info=info):
                if info.node_id == sender:
                    self._view.met(info, source, now)
                return Pong(self._view.own, self._rpc.clock_ms())
            case FindProviders(key, zone):
                return self._providers(request, source, Key(key), zone)
            case FindNode(target):
                return Contacts(self._view.contacts(target, CONTACTS_PER_ANSWER, but=sender))
            case Store() as store:
                return Stored(self._view.keep(sender, source, store, now))
            case MembersAfter(node_id):
                infos, last = self._view.page_after(node_id, MEMBERS_MAX)
                return Members(last, tuple(infos))
            case Goodbye(boot_id):
                self._view.left(sender, boot_id, source, now)
                return Noted()
            case DialFailed(node_id):
                self._liveness.doubt(NodeId(node_id))
                return Noted()
            case PingThrough():
                if self._later < LATER_MAX:
                    self._start(self._ping_for, request, source)
                return None
            case Knock():
                return None  # the rpc gave it its cookie
            case said:
                return self._of_leaders(said, request, source, now)

    def _of_leaders(
        self, said: Want | Report | Resign | Led, request: Request, source: Address, now: float
    ) -> AnyAnswer | None:
        sender = NodeId(request.sender)
        match said:
            case Want():
                self._granting.asked(said, sender, source, now, partial(self._rpc.reply, request, source))
                return None
            case Report():
                self._granting.reported(said, sender, source, now)
            case Resign():
                self._granting.resigned(said, sender, source)
            case Led():
                self._granting.told(said, sender, source, now)
        return Noted()

    def _providers(self, request: Request, source: Address, key: Key, zone: str) -> Providers:
        now = trio.current_time()
        sender = NodeId(request.sender)
        records = self._view.records.find(key, zone, now, self._view.random, but=sender)
        fresh = [record for record in records if self._view.may_hand_out(record.node_id, now)]
        may_wait = len(fresh) < len(records) and self._later < LATER_MAX
        stale = [record for record in records if record not in fresh] if may_wait else []
        closer = self._view.contacts(key, CONTACTS_WITH_RECORDS if fresh else CONTACTS_PER_PROVIDERS, but=sender)
        if stale:
            self._start(self._providers_later, request, source, stale)
        return Providers(not stale, tuple(found_of(self._view.records, record, now) for record in fresh), closer)

    def _start(self, answer: Callable[..., Awaitable[None]], *args: object) -> None:
        """Have something answered later."""

        async def run() -> None:
            try:
                await answer(*args)
            finally:
                self._later -= 1

        self._later += 1
        self._nursery.start_soon(run)

    async def _providers_later(self, request: Request, source: Address, stale: list[Record]) -> None:
        """Ping providers; hand out those that answer, as they do, and say when no more will."""
        confirmed: list[Record] = []
        arrived = trio.Event()

        async def check(record: Record) -> None:
            provider = self._view.records.source(record.node_id)
            if provider is not None and await self._liveness.check(record.node_id, provider.router):
                confirmed.append(record)
                arrived.set()

        async def flush() -> None:
            nonlocal arrived
            while True:
                await arrived.wait()
                await trio.sleep(FLUSH_S)
                arrived = trio.Event()
                self._rpc.reply(request, source, self._part(confirmed, final=False))

        with trio.move_on_after(2 * CHECK_S):
            async with trio.open_nursery() as flushing:
                flushing.start_soon(flush)
                async with trio.open_nursery() as checking:
                    for record in stale:
                        checking.start_soon(check, record)
                flushing.cancel_scope.cancel()
        self._rpc.reply(request, source, self._part(confirmed, final=True))

    def _part(self, confirmed: list[Record], *, final: bool) -> Providers:
        now = trio.current_time()
        found = tuple(found_of(self._view.records, each, now) for each in confirmed if self._is_held(each))
        confirmed.clear()
        return Providers(final, found, ())

    def _is_held(self, record: Record) -> bool:
        """Whether nothing newer was said while its provider was pinged."""
        source = self._view.records.source(record.node_id)
        return source is not None and source.records.get(record.key) is record and record.state >= PARTIAL

    async def _ping_for(self, request: Request, source: Address) -> None:
        question = request.question
        assert isinstance(question, PingThrough)
        target = question.target
        alive = await self._liveness.reaches(NodeId(target.node_id), unpack_address(target.home))
        self._rpc.reply(request, source, Reached(alive))

"""Meets strangers: pings addresses that somebody named, many at a time, without a task for each.

Laws: an address is pinged once for all who want it; a ping is repeated twice and then given up; whoever answers becomes
a member by its answer, so that nothing is handed back; what is too much is forgotten, and comes again when it matters.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.dht.messages import AnyAnswer, Ping
from p2pmirror.routing.dht.rpc import Asked, Rpc
from p2pmirror.routing.dht.view import View
from p2pmirror.wire.address import Address

WAITING_MAX = 1024  # addresses that wait to be pinged: a list of members, and the news of a burst
AT_ONCE = 32  # pings under way: a burst that no socket buffer loses
PATIENCE_S = (0.25, 0.35, 0.4)  # until the first repeat, the second, and the end: two round trips to another continent


@dataclass(slots=True)
class _Out:
    """A ping under way."""

    asked: Asked
    next_look: float
    looks: int = 0


@dataclass(slots=True)
class _Party:
    """Addresses of which somebody waits until each has answered or was given up."""

    left: set[Address]
    over: trio.Event = field(default_factory=trio.Event)


class Meeting:
    """Pings on behalf of a view."""

    def __init__(self, view: View, rpc: Rpc) -> None:
        """Ping nobody yet."""
        self._view = view
        self._rpc = rpc
        self._waiting: dict[Address, None] = {}
        self._out: dict[Address, _Out] = {}
        self._parties: list[_Party] = []
        self._wake = trio.Event()
        view.meet = self.meet

    def meet(self, address: Address) -> None:
        """Have an address pinged soon."""
        if len(self._waiting) < WAITING_MAX and address not in self._out:
            self._waiting[address] = None
            self._wake.set()

    async def meet_all(self, addresses: Iterable[Address], *, limit_s: float) -> None:
        """Ping addresses, and wait until each has answered or was given up; after `limit_s` it goes on without us.

        Cancellation: the pings go on.
        """
        for address in (party := _Party(set(addresses))).left.copy():
            self.meet(address)
        party.left &= {*self._waiting, *self._out}
        if not party.left:
            return
        self._parties.append(party)
        try:
            with trio.move_on_after(limit_s):
                await party.over.wait()
        finally:
            self._parties.remove(party)

    async def run(self) -> None:
        """Ping until cancelled."""
        try:
            while True:
                self._send()
                with trio.move_on_at(min((out.next_look for out in self._out.values()), default=float("inf"))):
                    await self._wake.wait()
                self._wake = trio.Event()
                self._repeat(trio.current_time())
        finally:
            for out in self._out.values():
                self._rpc.end(out.asked)
            self._out.clear()

    def _send(self) -> None:
        while self._waiting and len(self._out) < AT_ONCE:
            address = next(iter(self._waiting))
            del self._waiting[address]
            try:
                asked = self._rpc.begin(address, Ping(self._view.own), partial(self._answered, address))
            except Unreachable:
                self._end(address)
                continue
            self._out[address] = _Out(asked, trio.current_time() + PATIENCE_S[0])
            self._rpc.send(asked)

    def _repeat(self, now: float) -> None:
        """Repeat what had no answer for a while; give up what was repeated."""
        for address, out in [each for each in self._out.items() if each[1].next_look <= now]:
            out.looks += 1
            if out.looks == len(PATIENCE_S):
                self._end(address)
            else:
                out.next_look = now + PATIENCE_S[out.looks]
                self._rpc.send(out.asked)

    def _answered(self, address: Address, _: AnyAnswer) -> None:
        self._end(address)
        if not self._out or (self._waiting and len(self._out) <= AT_ONCE // 2):
            self._wake.set()

    def _end(self, address: Address) -> None:
        out = self._out.pop(address, None)
        if out is not None:
            self._rpc.end(out.asked)
        for party in self._parties:
            party.left.discard(address)
            if not party.left:
                party.over.set()

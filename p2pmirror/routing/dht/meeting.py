"""Meets strangers: pings addresses that somebody named, many at a time, without a task for each.

Laws:
- an address is pinged once for all who want it; a ping is repeated twice and then given up, but not where only others
  say that somebody is there: who invents addresses has no more sent to them than he sends himself;
- whoever answers becomes a member by its answer, so that nothing is handed back;
- a newcomer of whom others tell is given time to introduce itself, as it does to everybody: pinging it at once would
  double all pings, and have a large cluster ping one node in one moment;
- what is too much is forgotten, and comes again when it matters.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.routing.dht.messages import AnyAnswer
from p2pmirror.routing.dht.rpc import Asked, Rpc
from p2pmirror.routing.dht.view import View
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

WAITING_MAX = 1024  # addresses that wait to be pinged: a list of members, and the news of a burst
AT_ONCE = 32  # pings under way: a burst that no socket buffer loses
INTRODUCTION_S = (0.5, 1.5)  # how long a newcomer is left to introduce itself, drawn from this
GRID_S = 0.1  # introductions are looked at so often
PATIENCE_S = (0.25, 0.35, 0.4)  # until the first repeat, the second, and the end: two round trips to another continent


@dataclass(slots=True)
class _Out:
    """A ping under way."""

    asked: Asked
    next_look: float
    pings: int
    looks: int = 0


@dataclass(slots=True)
class _Party:
    """Addresses of which somebody waits until each has answered or was given up."""

    left: dict[Address, None]  # in the order of asking
    over: trio.Event = field(default_factory=trio.Event)


class Meeting:
    """Pings on behalf of a view."""

    def __init__(self, view: View, rpc: Rpc) -> None:
        """Ping nobody yet."""
        self._view = view
        self._rpc = rpc
        self._waiting: dict[Address, int] = {}  # and how often to ping it
        self._out: dict[Address, _Out] = {}
        self._parties: list[_Party] = []
        self._introduced: dict[NodeId, tuple[float, Address]] = {}  # when to ping whom, unless it is known by then
        self._next_introduction = math.inf
        self._runs = False
        self._sleeps_until = math.inf  # while it runs
        self._wake = trio.Event()
        view.meet = self.meet
        view.introduced = self.introduced

    def meet(self, address: Address, pings: int = len(PATIENCE_S)) -> None:
        """Have an address pinged soon."""
        if len(self._waiting) < WAITING_MAX and address not in self._out:
            self._waiting[address] = max(pings, self._waiting.get(address, 0))
            self._send()

    def introduced(self, node_id: NodeId, address: Address) -> None:
        """Have a node pinged in a while, if the table still wants it then."""
        if node_id not in self._introduced and len(self._introduced) < WAITING_MAX:
            at = trio.current_time() + self._view.random.uniform(*INTRODUCTION_S)
            self._introduced[node_id] = at, address
            if at < self._next_introduction:
                self._next_introduction = math.ceil(at / GRID_S) * GRID_S
                self._wake.set()

    async def meet_all(self, addresses: Iterable[Address], *, limit_s: float) -> None:
        """Ping addresses, and wait until each has answered or was given up; after `limit_s` it goes on without us.

        Cancellation: the pings go on.
        """
        party = _Party(dict.fromkeys(addresses))
        for address in party.left:
            self.meet(address)
        party.left = {each: None for each in party.left if each in self._waiting or each in self._out}
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
        self._runs = True
        try:
            while True:
                self._send()
                repeat_at = min((out.next_look for out in self._out.values()), default=math.inf)
                self._sleeps_until = min(repeat_at, self._next_introduction)
                with trio.move_on_at(self._sleeps_until):
                    await self._wake.wait()
                self._wake = trio.Event()
                now = trio.current_time()
                self._repeat(now)
                if now >= self._next_introduction:
                    self._meet_introduced(now)
        finally:
            self._runs = False
            for out in self._out.values():
                self._rpc.end(out.asked)
            self._out.clear()

    def _send(self) -> None:
        while self._runs and self._waiting and len(self._out) < AT_ONCE:
            address = next(iter(self._waiting))
            pings = self._waiting.pop(address)
            try:
                ping = self._rpc.ping(self._view.own, address)
                asked = self._rpc.begin(address, ping, partial(self._answered, address))
            except Unreachable:
                self._end(address)
                continue
            out = self._out[address] = _Out(asked, trio.current_time() + PATIENCE_S[0], pings)
            self._rpc.send(asked)
            if out.next_look < self._sleeps_until:
                self._wake.set()

    def _meet_introduced(self, now: float) -> None:
        for node_id, (_, address) in [each for each in self._introduced.items() if each[1][0] <= now]:
            del self._introduced[node_id]
            if self._view.table.wants(node_id) and self._view.table.lacks(node_id):
                self.meet(address, 1)
        first = min((at for at, _ in self._introduced.values()), default=math.inf)
        self._next_introduction = first if first == math.inf else math.ceil(first / GRID_S) * GRID_S

    def _repeat(self, now: float) -> None:
        """Repeat what had no answer for a while; give up what was repeated."""
        for address, out in [each for each in self._out.items() if each[1].next_look <= now]:
            out.looks += 1
            if out.looks == out.pings:
                self._end(address)
            else:
                out.next_look = now + PATIENCE_S[out.looks]
                self._rpc.send(out.asked)

    def _answered(self, address: Address, _: AnyAnswer) -> None:
        self._end(address)
        self._send()

    def _end(self, address: Address) -> None:
        out = self._out.pop(address, None)
        if out is not None:
            self._rpc.end(out.asked)
        for party in self._parties:
            party.left.pop(address, None)
            if not party.left:
                party.over.set()

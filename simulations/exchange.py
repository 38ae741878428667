"""Pieces of one blob going round among many nodes, by the agent's own rules, without bytes, sockets or agents.

What is the agent's: which piece is asked for (`resolve.picking`), what a leader gives to whom (`resolve.spreading`),
how many a node lets go out at once (`front.slots`), and their numbers. What is not: looking for one another (each node
knows the leader and some others from the start), what questions, answers and hashing take, losses, faults.

Laws: all chance is the given one's; a node has a piece once, and asks each of its neighbours for one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

from p2pmirror.front.slots import Slots
from p2pmirror.resolve.neighbour import FETCHES_MAX
from p2pmirror.resolve.picking import WINDOW_PIECES, rarest, wanted, window
from p2pmirror.resolve.pieces import LATE, LATE_S
from p2pmirror.resolve.sharing import COALESCED_S
from p2pmirror.resolve.spreading import Spreading
from p2pmirror.resolve.swarm import BUSY_S, NEIGHBOURS_MAX
from p2pmirror.resolve.turns import TURNS_MAX
from p2pmirror.wire.identity import NodeId
from simulations.fluid import Fluid, Host

RATED_BYTES: Final = 4 << 20  # of a piece, for `Slots`
WEIGHT: Final = 0.3  # of the newest time in a node's average for a piece
PATIENCE_S: Final = 1.0  # between two looks for pieces that are late, and for gives that are due again


@dataclass(frozen=True)
class Rules:
    """What may be switched off, to see what it earns."""

    spreads: bool = True  # the leader gives each piece to one; else it is a peer as any other
    rarest: bool = True  # else any piece that a peer has, by chance
    late: bool = True  # a piece that is late is asked for once more
    slots: bool = True  # a node that has as many uploads as are good sends others away
    window_pieces: int = WINDOW_PIECES
    fetches: int = FETCHES_MAX
    turns: int = TURNS_MAX
    neighbours: int = NEIGHBOURS_MAX
    news_s: float = COALESCED_S  # until the others know of a piece


class Held(set[int]):
    """Which of `count` pieces are there."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count


class Peer:
    """One node."""

    def __init__(self, number: int, count: int, rate: float) -> None:
        self.node_id = NodeId(number.to_bytes(20, "big"))
        self.host = Host(rate, rate)
        self.have = Held(count)
        self.shown = Held(count)  # as the others know
        self.first = 0  # every piece before it is here
        self.fetching: dict[int, list[float]] = {}
        self.neighbours: list[Peer] = []
        self.asking: set[Peer] = set()  # of them, those from whom a piece is coming
        self.away_until: dict[Peer, float] = {}  # those who had no slot
        self.known_by: list[Peer] = []
        self.slots = Slots()
        self.usual_s: float | None = None
        self.is_told = True  # whether the others know all of `have`
        self.fetches = 0  # under way, that it chose itself
        self.done_at: float | None = None


class Exchange:
    """All of them; node 0 leads, and a registry sends to it in order."""

    def __init__(
        self, nodes: int, pieces: int, piece_s: float, *, upstream: float, rules: Rules, random: Random
    ) -> None:
        self.fluid = Fluid()
        self.wasted = 0  # pieces that came twice
        self.peers = [Peer(number, pieces, 1 / piece_s) for number in range(nodes)]
        self._leader, *self._others = self.peers
        self._pieces, self._piece_s, self._rules, self._random = pieces, piece_s, rules, random
        self._book = Spreading()
        self._turns = 0
        self._waiting: dict[Peer, None] = {}  # for the leader, the longest first
        registry = Host(upstream / piece_s, float("inf"))
        self._meet()
        self._stream(registry, 0)
        for peer in self._others:
            self._waiting[peer] = None
        self.fluid.at(PATIENCE_S, self._look_again)

    @property
    def is_over(self) -> bool:
        """Whether all have all."""
        return all(peer.done_at is not None for peer in self.peers)

    def _meet(self) -> None:
        """Let each node know the leader and some others."""
        for peer in self._others:
            others = [each for each in self._others if each is not peer]
            chosen = self._random.sample(others, min(len(others), self._rules.neighbours - 1))
            peer.neighbours = [*chosen] if self._rules.spreads else [self._leader, *chosen]
            for each in peer.neighbours:
                each.known_by.append(peer)

    def _stream(self, registry: Host, index: int) -> None:
        def ended(_: float) -> None:
            self._add(self._leader, index)
            if index + 1 < self._pieces:
                self._stream(registry, index + 1)

        self.fluid.begin(registry, self._leader.host, 1.0, ended)

    def _add(self, peer: Peer, index: int) -> None:
        """Let a node have a piece, and the others soon know."""
        peer.have.add(index)
        while peer.first in peer.have:
            peer.first += 1
        if len(peer.have) == self._pieces:
            peer.done_at = self.fluid.now
        if peer.is_told:
            peer.is_told = False
            self.fluid.at(self.fluid.now + self._rules.news_s, partial(self._tell, peer))
        if peer is self._leader and self._rules.spreads:
            self._give()

    def _tell(self, peer: Peer, _: float) -> None:
        peer.is_told = True
        peer.shown |= peer.have
        for each in peer.known_by:
            self._ask(each, [peer])

    def _look_again(self, now: float) -> None:
        """Look for what is late; whoever waits on news looks when they come."""
        self._give()
        for peer in self._others:
            self._ask(peer, peer.neighbours)
        if not self.is_over:
            self.fluid.at(now + PATIENCE_S, self._look_again)

    # what the leader gives

    def _give(self) -> None:
        """Give to those who wait as long as there are turns and pieces."""
        for peer in list(self._waiting):
            if self._turns >= self._rules.turns:
                return
            lacks = [index for index in self._wanted(peer) if index in self._leader.have]
            index = self._book.choose(peer.node_id, lacks, self.fluid.now)
            if index is None:
                continue
            del self._waiting[peer]
            self._turns += 1
            self._book.began(index, peer.node_id, self.fluid.now)
            self._fetch(peer, self._leader, index, partial(self._given, peer, index))

    def _given(self, peer: Peer, index: int) -> None:
        now = self.fluid.now
        self._book.ended(index, peer.node_id, now, whole=True)
        self._book.announced(peer.node_id, index, now)
        self._turns -= 1
        if peer.done_at is None:
            self._waiting[peer] = None
        self._give()

    # what nodes ask one another for

    def _wanted(self, peer: Peer) -> list[int]:
        usual_s = self._piece_s if peer.usual_s is None else peer.usual_s
        late_s = max(LATE_S, LATE * usual_s) if self._rules.late else float("inf")
        missing = window(peer.have, peer.first, most=self._rules.window_pieces)
        return wanted(missing, peer.fetching, self.fluid.now - late_s)

    def _ask(self, peer: Peer, neighbours: list[Peer]) -> None:
        """Ask as many of these as there is room for."""
        idle = [each for each in neighbours if each not in peer.asking and each.shown]
        if len(idle) > 1:
            self._random.shuffle(idle)
        for each in idle:
            if peer.fetches >= self._rules.fetches or peer.done_at is not None:
                return
            if self.fluid.now >= peer.away_until.get(each, 0.0):
                self._ask_one(peer, each)

    def _ask_one(self, peer: Peer, neighbour: Peer) -> None:
        candidates = [index for index in self._wanted(peer) if index in neighbour.shown]
        if not candidates:
            return
        if self._rules.rarest:
            index = rarest(candidates, [each.shown for each in peer.neighbours], self._random)
        else:
            index = self._random.choice(candidates)
        assert index is not None
        if self._rules.slots and not neighbour.slots.take(peer.node_id):
            back_at = self.fluid.now + BUSY_S * (1 + self._random.random())
            peer.away_until[neighbour] = back_at
            self.fluid.at(back_at, lambda _: self._ask(peer, [neighbour]))
            return
        peer.fetches += 1
        peer.asking.add(neighbour)
        self._fetch(peer, neighbour, index, partial(self._fetched, peer, neighbour, self.fluid.now))

    def _fetched(self, peer: Peer, neighbour: Peer, began: float) -> None:
        peer.fetches -= 1
        peer.asking.discard(neighbour)
        if self._rules.slots:
            seconds = self.fluid.now - began
            neighbour.slots.give_back(peer.node_id, None, sent=RATED_BYTES, seconds=seconds, whole=True)
        self._ask(peer, peer.neighbours)

    def _fetch(self, peer: Peer, source: Peer, index: int, over: Callable[[], None]) -> None:
        began = self.fluid.now
        peer.fetching.setdefault(index, []).append(began)

        def ended(now: float) -> None:
            asked = peer.fetching[index]
            asked.remove(began)
            if not asked:
                del peer.fetching[index]
            seconds = now - began
            peer.usual_s = seconds if peer.usual_s is None else peer.usual_s + WEIGHT * (seconds - peer.usual_s)
            if index in peer.have:
                self.wasted += 1
            else:
                self._add(peer, index)
            over()

        self.fluid.begin(source.host, peer.host, 1.0, ended)

"""One peer of a flight as this node sees it, what asking it takes, and how long an answer may take.

Law: a claim counts more than a peer's word only while its claimant is around, and is not that peer itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final, TypeVar

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.peers.piecemap import Bitmap
from p2pmirror.peers.protocol import Peers
from p2pmirror.peers.scores import Scores
from p2pmirror.resolve.hashing import Hashing
from p2pmirror.resolve.intake import Intake
from p2pmirror.routing.protocol import Provider, Router
from p2pmirror.wire.identity import NodeId

FETCHES_MAX: Final = 4  # pieces on their way to this node that it chose itself: more would only share its link
ANSWER_S: Final = 3.0  # beyond what a peer may wait: one that says nothing at all is gone

_T = TypeVar("_T")


@dataclass(eq=False)
class Neighbour:
    """One peer of a flight; `have` None: it has not told yet."""

    provider: Provider
    have: Bitmap | None = None
    seq: int = 0
    spreads: bool = False
    differs: set[int] = field(default_factory=set)  # pieces of which it tells another hash than is believed
    is_idle: bool = False  # nothing came, of it either, when it was to come: what it says it has is no reason to wait
    is_crowded: bool = False  # it is followed by as many as it may name: one of many asks it less often
    asks_all: bool = False  # its claims are to be told once more: some that came first were forgotten
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def node_id(self) -> NodeId:
        """Return its id."""
        return self.provider.node_id

    def tells(self, index: int, hashes: Mapping[int, bytes]) -> bool:
        """Whether the hash of a piece is known, and this peer has told no other one."""
        return index in hashes and index not in self.differs


@dataclass(frozen=True, slots=True)
class SwarmParts:
    """What a swarm works with."""

    peers: Peers
    router: Router
    scores: Scores
    random: Random
    hashing: Hashing
    fetches: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(FETCHES_MAX))  # of all flights
    intake: Intake = field(default_factory=Intake)
    zone: str = ""


def stands_against(teller: NodeId, neighbours: Mapping[NodeId, Neighbour]) -> Callable[[NodeId], bool]:
    """Return whether claims of a node count more than a peer's word."""
    return lambda claimant: claimant != teller and claimant in neighbours


async def in_time(wait_s: float, ask: Callable[[], Awaitable[_T]]) -> _T:
    """Ask somebody who may take `wait_s` to have something to say. Raises `Unreachable`."""
    try:
        with trio.fail_after(wait_s + ANSWER_S):
            return await ask()
    except trio.TooSlowError:
        raise Unreachable(f"no answer within {wait_s + ANSWER_S:g} s") from None

"""What it means to fetch from a peer: one question, one answer whose bytes are read as they come."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.oci import Digest
from p2pmirror.peers.piecemap import PieceMap
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

GATHER_S: Final = 0.05  # for bytes in the middle of an answer: 100 Mbit/s bring 600 KiB, and its last ones do not wait


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a peer: a path of the registry API, in a registry's name.

    From byte `offset` on, `count` bytes of it or all that follow. `follows`: who asks can follow somebody else's flight
    and may be told to. `waits_s`: who asks was told that this peer is asking a registry for it, and waits so long.
    """

    path: str
    registry: str
    method: Literal["GET", "HEAD"] = "GET"
    offset: int = 0
    count: int | None = None
    follows: bool = False
    waits_s: float = 0.0


@dataclass(frozen=True, slots=True)
class FlightQuestion:
    """Which blob's flight is meant, for which image, and of which zone is who asks."""

    digest: Digest
    registry: str
    repository: str
    zone: str = ""


class Busy(Unreachable):
    """The peer has too much to do right now: nothing is wrong with it."""

    def __init__(self, message: str, holders: Sequence[NodeId] = ()) -> None:
        """`holders` are nodes that it names in its own place."""
        super().__init__(message)
        self.holders = tuple(holders)


class Follow(NotHere):
    """The peer has it and is giving it to another node already: follow that one."""

    def __init__(self, message: str, leader: NodeId) -> None:
        """`leader` is the node to follow."""
        super().__init__(message)
        self.leader = leader


class RegistrySaid(NotHere):
    """The peer has asked the registry for it, for all who wait, and this is how it was refused."""

    def __init__(self, message: str, status: int) -> None:
        """`status` is the registry's (400 to 599)."""
        super().__init__(message)
        self.status = status


class Answer(Protocol):
    """A peer's answer, whose status and length were checked: 200, or 206 from exactly the byte asked for."""

    @property
    def size(self) -> int:
        """Length of the whole content in bytes, wherever the answer starts."""
        ...

    @property
    def offset(self) -> int:
        """The first byte that it brings."""
        ...

    @property
    def count(self) -> int:
        """How many bytes it brings."""
        ...

    @property
    def media_type(self) -> str | None:
        """What the peer says the content is; None when it does not know."""
        ...

    @property
    def piece_hash(self) -> bytes | None:
        """The hash that the peer claims for a piece that it spreads; 32 bytes of sha256."""
        ...

    @property
    def digest(self) -> str | None:
        """The `Docker-Content-Digest` that the peer sent."""
        ...

    async def receive_into(self, buffer: memoryview, gather_s: float = 0.0) -> int:
        """Fill the front of `buffer`; return the count, 0 after the last byte.

        It may wait `gather_s` for more than has come.
        Raises `Unreachable` when the connection ends before the announced length.
        """
        ...

    def close(self) -> None:
        """Give the connection back, or drop it when bytes were left unread; waits for nothing, twice does no harm."""
        ...


class Peers(Protocol):
    """Fetches from peers over kept connections."""

    async def ask(self, node_id: NodeId, address: Address, question: Question) -> Answer:
        """Ask a peer and return its answer once its head was read and checked; the caller closes it.

        Raises `NotHere` (404), `Unreachable` (no connection within its limit, cut off, 5xx), `PeerMisbehaved`
        (an answer that is no answer to this question), `Busy`, `Follow` (when the question `follows`; when it waits and
        the peer names itself: it is still asking), `RegistrySaid` (when it waits). The caller sets the deadline;
        cancellation drops the connection.
        """
        ...

    async def map(
        self, node_id: NodeId, address: Address, question: FlightQuestion, *, since: int, wait_s: float
    ) -> PieceMap:
        """Ask what a peer has of a blob that is arriving there, once that differs from `since`, or after `wait_s`.

        Raises as `ask`.
        """
        ...

    async def next(
        self, node_id: NodeId, address: Address, question: FlightQuestion, *, first: int, lacks: bytes, wait_s: float
    ) -> Answer | None:
        """Ask a peer that spreads a blob for a piece that nobody else has; None when there is none within `wait_s`.

        `lacks` is a bitmap of the pieces from `first` on that would do. Raises as `ask`; the caller closes the answer.
        """
        ...

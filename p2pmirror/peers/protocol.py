"""What it means to fetch from a peer: one question, one answer whose bytes are read as they come."""

from dataclasses import dataclass
from typing import Literal, Protocol

from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a peer: a path of the registry API, in a registry's name, from byte `offset` on."""

    path: str
    registry: str
    method: Literal["GET", "HEAD"] = "GET"
    offset: int = 0


class Answer(Protocol):
    """A peer's answer, whose status and length were checked: 200, or 206 from exactly the byte asked for."""

    @property
    def size(self) -> int:
        """Length of the whole content in bytes, wherever the answer starts."""
        ...

    @property
    def media_type(self) -> str | None:
        """What the peer says the content is; None when it does not know."""
        ...

    @property
    def digest(self) -> str | None:
        """The `Docker-Content-Digest` that the peer sent."""
        ...

    async def receive_into(self, buffer: memoryview) -> int:
        """Fill the front of `buffer`; return the count, 0 after the last byte.

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
        (an answer that is no answer to this question). The caller sets the deadline; cancellation drops the connection.
        """
        ...

"""The seams to other machines and to open files: what every real and simulated network offers.

Laws, which the conformance suite in `tests/wire` holds every implementation to:
- a stream delivers bytes in order, or fails; `aclose` says FIN after what was sent, never a reset;
- every await can be cancelled; a stream whose send was cancelled may only be closed;
- `Unreachable` is the one error that a network raises while it runs; a wrong local address is an `OSError` at start.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from p2pmirror.wire.address import Address


class File(Protocol):
    """Bytes that do not change while somebody holds them open: a file on disk, or content behind gRPC."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def fileno(self) -> int | None:
        """Return the descriptor that `sendfile` may read from, or None when there is none."""
        ...

    async def read_at(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`; fewer only at the end. Raises `Unreachable` when they cannot be read."""
        ...

    def close(self) -> None:
        """Let go of it; twice does no harm. Never waits."""
        ...


class ByteStream(Protocol):
    """What a question goes out on and its answer comes in: a connection, plain or under TLS."""

    @property
    def remote(self) -> Address:
        """Return the other end."""
        ...

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send every byte of `data`. Raises `Unreachable` when the other end is gone."""
        ...

    async def receive_some(self, count_max: int, gather_s: float = 0.0) -> bytes:
        """Return at least one byte and at most `count_max`, or b"" at the other end's FIN. Raises `Unreachable`.

        It may wait `gather_s` for more than has come, so that many bytes are one turn of the loop.
        """
        ...

    async def receive_into(self, buffer: memoryview, gather_s: float = 0.0) -> int:
        """Fill the front of `buffer`; return how many bytes came, 0 at the other end's FIN. Raises `Unreachable`.

        `gather_s` is as for `receive_some`.
        """
        ...

    def abort(self) -> None:
        """Close without waiting: for whoever has nothing left to say. Bytes that came in unread make it a reset."""
        ...


class Stream(ByteStream, Protocol):
    """One TCP connection, or its twin."""

    @property
    def local(self) -> Address:
        """Return our end."""
        ...

    async def send_file(self, file: File, offset: int, count: int, moved: Callable[[int], None] | None = None) -> None:
        """Send `count` bytes of `file` from `offset`, without copies where the file has a descriptor.

        `moved` is told of every part that the socket has taken, in bytes, as it goes. Raises `Unreachable` when the
        other end is gone or the file ends early. A cold page does not stop the loop.
        """
        ...

    async def send_eof(self) -> None:
        """Send FIN and keep receiving."""
        ...

    async def aclose(self) -> None:
        """Close with a FIN after what was sent, even when bytes came in unread; never raises, waits 1 s at most."""
        ...


class Dials(Protocol):
    """A way to other hosts: that of a `Network`, or one that puts TLS over it."""

    async def connect(self, address: Address) -> ByteStream:
        """Dial. Raises `Unreachable`. The caller sets the deadline."""
        ...


class Listener(Protocol):
    """A bound TCP port, or its twin."""

    @property
    def address(self) -> Address:
        """Return the bound address; the port is the real one when 0 was asked for."""
        ...

    async def accept(self) -> Stream:
        """Return the next connection; survives EMFILE and connections that were gone before they were accepted."""
        ...

    async def aclose(self) -> None:
        """Stop listening: later dials are refused at once."""
        ...


class Datagrams(Protocol):
    """A bound UDP port, or its twin. Datagrams may be lost, doubled and reordered."""

    @property
    def address(self) -> Address:
        """Return the bound address."""
        ...

    def send(self, data: bytes, to: Address) -> None:
        """Send one datagram; what cannot be sent now (no route, no buffer, a closed port) is lost without an error."""
        ...

    async def deliver(self, take: Callable[[bytes, Address], None]) -> None:
        """Hand every datagram and its source to `take`, as they come, until the port is closed; for one task at a time.

        What `take` raises is raised here. An ICMP error is not an error here. Cancellation loses no datagram.
        """
        ...

    async def aclose(self) -> None:
        """Close the port; `deliver` returns."""
        ...


@runtime_checkable
class Network(Protocol):
    """One host's way to all others."""

    async def connect(self, address: Address) -> Stream:
        """Dial. Raises `Unreachable`. The caller sets the deadline."""
        ...

    async def listen(self, address: Address) -> Listener:
        """Listen for streams; `::` means both families. Raises OSError when the address cannot be had."""
        ...

    async def open_datagrams(self, address: Address) -> Datagrams:
        """Bind a datagram port; `::` means both families. Raises OSError when the address cannot be had."""
        ...

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return every address of a name, both families, sorted, without duplicates. Raises `Unreachable`."""
        ...

    async def source_host(self, towards: Address) -> str:
        """Return the numeric source host of the route to `towards`. Raises `Unreachable` when there is no route."""
        ...

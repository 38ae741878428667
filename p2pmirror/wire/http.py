"""HTTP messages as the server and the client exchange them: heads as values, bodies as things that move themselves.

A response body is bytes, a part of an open file (sent with sendfile), or a pump that writes what arrives from
elsewhere. Whatever the body is, its length is known before the first byte goes out; a body that cannot be finished is
cut short of that length with a FIN, never ended cleanly.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from p2pmirror.wire.address import Address
from p2pmirror.wire.network import File

Headers = Mapping[str, str]
"""Header names in lower case; a repeated field is joined with ", " as RFC 9110 section 5.3 allows."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head; request bodies are refused by the server (this is a pull API) and never reach a handler."""

    method: str
    path: str  # still percent-encoded, without the query
    query: str  # still percent-encoded, without the question mark
    headers: Headers
    remote: Address
    local: Address


class Sink(Protocol):
    """Where a pump puts the bytes of its body; counts them, and refuses more than the announced length."""

    @property
    def sent(self) -> int:
        """Bytes of the body that have gone out so far."""
        ...

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes. Raises `Unreachable` when the client is gone or too slow."""
        ...

    async def send_file(self, file: File, offset: int, count: int) -> None:
        """Send a part of a file. Raises `Unreachable` when the client is gone or too slow."""
        ...


@dataclass(frozen=True, slots=True)
class FileBody:
    """`count` bytes of `file` from `offset`; the server closes the file however the response ends."""

    file: File
    offset: int
    count: int


@dataclass(frozen=True, slots=True)
class PumpBody:
    """`count` bytes that `pump` writes into a sink.

    The pump returns after exactly `count` bytes, or raises: any `MirrorError` then cuts the connection short (FIN).
    `close` is called once when the response has ended, also when the pump never ran (HEAD, a client that left).
    """

    count: int
    pump: Callable[[Sink], Awaitable[None]]
    close: Callable[[], None]


Body = bytes | FileBody | PumpBody


@dataclass(slots=True)
class Response:
    """A response; the server adds Date, Content-Length (unless `headers` has it) and Connection.

    For HEAD the body is closed, not sent.

    `done`, when given, is called once after the last byte with the bytes sent and whether the body was finished; before
    it `cut`, when it is the server that ends the response: at its stop, not because of the client or the body.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Body = b""
    done: Callable[[int, bool], None] | None = None
    cut: Callable[[], None] | None = None


Handler = Callable[[Request], Awaitable[Response]]
"""Answers one request; whatever it raises beyond `MirrorError` is logged as a bug and answered with 500."""

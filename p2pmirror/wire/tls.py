"""TLS over a `wire` connection, for whoever asks: the handshake, what comes through it, and what broke it, in words.

Laws:
- what goes wrong below, certificates included, is `Unreachable` above;
- a dial that is cancelled, in its handshake too, leaves no connection;
- whose certificates count is the caller's: a context comes in.
"""

import ssl
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import ByteStream, Network

READ_BYTES: Final = 1 << 20  # at a time, where httpcore asks for 64 KiB: the work around each read is the most of all
BULK_BYTES: Final = 1 << 20  # of one answer, after which it is a matter of bytes and no more of the first one
GATHER_S: Final = 0.005  # at 1 Gbit/s 600 KiB; where an answer ends is not known here, so its last bytes wait as long


class Plain(trio.abc.Stream):
    """A `wire` stream as trio's TLS wants it."""

    def __init__(self, stream: ByteStream) -> None:
        """Take the stream over."""
        self._stream = stream
        self._answered = 0  # bytes since something was sent

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all. Raises BrokenResourceError."""
        self._answered = 0
        try:
            await self._stream.send_all(data)
        except Unreachable as error:
            raise trio.BrokenResourceError(str(error)) from None

    async def wait_send_all_might_not_block(self) -> None:
        """Return: nobody here waits for that."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive some, b"" at the end. Raises BrokenResourceError. Cancellation loses none.

        In the middle of a long answer it waits a moment for more, where more is wanted than a record of TLS.
        """
        count_max = max_bytes or READ_BYTES
        try:
            data = await self._stream.receive_some(count_max, GATHER_S if self._answered > BULK_BYTES else 0.0)
        except Unreachable as error:
            raise trio.BrokenResourceError(str(error)) from None
        self._answered += len(data)
        return data

    async def aclose(self) -> None:
        """Close without waiting."""
        self._stream.abort()
        await trio.lowlevel.checkpoint()


class TlsStream:
    """A connection under TLS, as `network.ByteStream` describes it."""

    def __init__(self, stream: ByteStream, tls: "trio.SSLStream[Plain]") -> None:
        """Take over `stream`, over which `tls` speaks."""
        self._stream = stream
        self._tls = tls

    @property
    def remote(self) -> Address:
        """The other end."""
        return self._stream.remote

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send every byte. Raises `Unreachable`. Cancellation: a part was sent, the stream may only be closed."""
        try:
            await self._tls.send_all(data)
        except trio.BrokenResourceError as error:
            raise Unreachable(broken_by(error)) from None

    async def receive_some(self, count_max: int, gather_s: float = 0.0) -> bytes:  # noqa: ARG002  # records are small
        """Return 1 to `count_max` bytes, b"" at the end. Raises `Unreachable`. Cancellation loses no byte."""
        try:
            return bytes(await self._tls.receive_some(count_max))
        except trio.BrokenResourceError as error:
            raise Unreachable(broken_by(error)) from None

    async def receive_into(self, buffer: memoryview, gather_s: float = 0.0) -> int:
        """Fill the front of `buffer`, 0 at the end. Raises `Unreachable`. Cancellation loses no byte."""
        data = await self.receive_some(len(buffer), gather_s)
        buffer[: len(data)] = data
        return len(data)

    def abort(self) -> None:
        """Close without waiting, and without a word of TLS's own: HTTP says by itself where an answer ends."""
        self._stream.abort()


class TlsDials:
    """Dials one server, which proves that it is `server` (a name or a numeric host); see `network.Dials`."""

    def __init__(self, network: Network, server: str, context: Callable[[], Awaitable[ssl.SSLContext]]) -> None:
        """Dial over `network`; `context` is asked for anew at each dial, so its authorities may change."""
        self._network = network
        self._server = server
        self._context = context

    async def connect(self, address: Address) -> TlsStream:
        """Dial, and agree on keys. Raises `Unreachable`, and what `context` raises. Cancellation: undone."""
        context = await self._context()
        stream = await self._network.connect(address)
        try:
            tls = trio.SSLStream(Plain(stream), context, server_hostname=self._server, https_compatible=True)
            await tls.do_handshake()
        except trio.BrokenResourceError as error:
            stream.abort()
            raise Unreachable(f"{address}: {broken_by(error)}") from None
        except BaseException:
            stream.abort()
            raise
        return TlsStream(stream, tls)


def broken_by(error: BaseException) -> str:
    """Return the words of what broke a connection: TLS puts its own underneath."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or cause}"
    return str(cause or error) or "the connection broke"

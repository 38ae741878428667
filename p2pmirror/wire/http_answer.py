"""One exchange of the HTTP client on one connection: the question out, the answer's head and body in.

Laws:
- a body of known length goes from the socket straight into the caller's buffer, behind what came with the head;
- an end before the announced length is `Unreachable`; what is no HTTP is `BadAnswer`;
- a connection is reusable only when the answer has been read to its exact end and both sides want to keep it.

Follows RFC 9112 sections 6 and 9; h11 parses heads and chunks.
"""

from collections.abc import Callable, Mapping

import h11

from p2pmirror.errors import BadRequest, PeerMisbehaved, Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.network import ByteStream

RECEIVE_BYTES = 16 << 10  # for heads and chunks; bodies of known length bring their own buffer
INFORMATIONAL_MAX = 8  # an honest server sends one or two 1xx heads
READ_STEP_BYTES = 256 << 10  # `read` grows its buffer by what came, not by what was announced
QUOTED_CHARACTERS_MAX = 200  # of what is no HTTP, for a log


_NOTHING = memoryview(b"")


class BadAnswer(PeerMisbehaved):
    """What came is no HTTP answer, or a larger one than can be honest."""


class ClientResponse:
    """An answer whose head has come; its body is read once, by one task."""

    __slots__ = (
        "_early",
        "_finished",
        "_give_back",
        "_is_reusable",
        "_parser",
        "_remaining",
        "_stream",
        "headers",
        "length",
        "status",
    )

    def __init__(self, stream: ByteStream, parser: h11.Connection, event: h11.Response, method: str) -> None:
        """Take over the connection's receiving side; h11 is left behind where the length is known."""
        self._stream = stream
        self._give_back: Callable[[ClientResponse], None] | None = None
        self.status = event.status_code
        self.headers = _joined(event)
        """Names in lower case, repeated fields joined by a comma."""
        self.length = _announced_length(self.headers)
        """Content-Length in bytes (for HEAD: that of GET); None when there is none."""
        bodiless = method == "HEAD" or self.status in (204, 304)
        self._remaining: int | None = 0 if bodiless else self.length
        self._early = _NOTHING if self._remaining is None else memoryview(parser.trailing_data[0])
        # It holds what it was fed, some 30 KiB, for as long as a body may take.
        self._parser = parser if self._remaining is None else None
        self._finished = self._remaining == 0
        self._is_reusable = _is_kept(event, self.headers) and len(self._early) <= (self._remaining or 0)

    @property
    def is_reusable(self) -> bool:
        """Whether the connection can carry another question: the body was read to its end, nothing follows it."""
        return self._finished and self._is_reusable

    @property
    def unread(self) -> int | None:
        """Bytes of the body that have not been read; None when that is not known."""
        return self._remaining

    def on_close(self, give_back: Callable[["ClientResponse"], None]) -> None:
        """Call this once, at `close`."""
        self._give_back = give_back

    def close(self) -> None:
        """Give the connection back when it can be used again, or drop it; waits for nothing, twice does no harm."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back(self)

    async def receive_into(self, buffer: memoryview, gather_s: float = 0.0) -> int:
        """Fill the front of `buffer` (not empty); return how many bytes, 0 after the last.

        It may wait `gather_s` for more than has come, where the length of the body is known.
        Raises `Unreachable` (cut short, connection broken), `BadAnswer`. Cancelled, no byte is lost.
        """
        if self._finished:
            return 0
        if self._early:
            return self._take_early(buffer)
        if self._remaining is None:
            return await self._receive_parsed(buffer)
        count = await self._stream.receive_into(buffer[: self._remaining], gather_s)
        if count == 0:
            raise Unreachable(f"{self._stream.remote} cut its answer short by {self._remaining} bytes")
        self._remaining -= count
        self._finished = self._remaining == 0
        return count

    async def read(self, count_max: int) -> bytes:
        """Return the rest of the body. Raises as `receive_into` does; `BadAnswer` when it is over `count_max` bytes.

        Cancelled, what was read is lost.
        """
        if self._remaining is not None and self._remaining > count_max:
            raise BadAnswer(f"{self._stream.remote} announced {self._remaining} bytes where {count_max} are the limit")
        if self._finished:
            return b""
        parts: list[bytes] = []
        total = 0
        room = bytearray(min(READ_STEP_BYTES, self._remaining or READ_STEP_BYTES))
        with memoryview(room) as view:
            while count := await self.receive_into(view):
                total += count
                if total > count_max:
                    raise BadAnswer(f"{self._stream.remote} sent more than {count_max} bytes")
                parts.append(bytes(view[:count]))
        return b"".join(parts)

    def _take_early(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._early))
        if self._remaining is not None:
            count = min(count, self._remaining)
            self._remaining -= count
            self._finished = self._remaining == 0
        buffer[:count] = self._early[:count]
        self._early = self._early[count:] or _NOTHING  # an empty view would keep all of it
        return count

    async def _receive_parsed(self, buffer: memoryview) -> int:
        """Receive a body in chunks, or up to the FIN, by h11."""
        parser = self._parser
        assert parser is not None, "a body of unknown length keeps its parser"
        try:
            while (event := parser.next_event()) is h11.NEED_DATA:
                data = await self._stream.receive_some(RECEIVE_BYTES)
                if not data and "transfer-encoding" in self.headers:
                    raise Unreachable(f"{self._stream.remote} cut its answer short within a chunk")
                parser.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise BadAnswer(f"{self._stream.remote} sent a body that is no HTTP: {_short(error)}") from None
        if isinstance(event, h11.Data):
            self._early = memoryview(event.data)
            return self._take_early(buffer)
        self._finished, self._remaining = True, 0
        self._is_reusable = self._is_reusable and parser.trailing_data == (b"", False)
        return 0


async def exchange(
    stream: ByteStream, address: Address, method: str, target: str, headers: Mapping[str, str], *, head_bytes_max: int
) -> ClientResponse:
    """Send a question without a body and return its answer, whose head has come.

    Raises `Unreachable`, `NoAnswer` (its kind: not one byte of an answer came), `BadAnswer`, `BadRequest`.
    Cancelled, the stream may only be closed.
    """
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=head_bytes_max)
    question = _question(parser, address, method, target, headers)
    try:
        await stream.send_all(question)
        first = await _receive(stream, address)
    except Unreachable as error:
        raise NoAnswer(str(error)) from error
    parser.receive_data(first)
    try:
        event = await _receive_head(parser, stream, address)
    except h11.RemoteProtocolError as error:
        raise BadAnswer(f"{address} sent no HTTP: {_short(error)}") from None
    return ClientResponse(stream, parser, event, method)


async def _receive_head(parser: h11.Connection, stream: ByteStream, address: Address) -> h11.Response:
    """Return the final head, past the informational ones."""
    for _ in range(INFORMATIONAL_MAX + 1):
        while (event := parser.next_event()) is h11.NEED_DATA:
            parser.receive_data(await _receive(stream, address))
        if isinstance(event, h11.Response):
            return event
    raise BadAnswer(f"{address} sent nothing but informational answers")


async def _receive(stream: ByteStream, address: Address) -> bytes:
    data = await stream.receive_some(RECEIVE_BYTES)
    if not data:
        raise Unreachable(f"{address} closed the connection before it answered")
    return data


class NoAnswer(Unreachable):
    """Not one byte of an answer came: on a kept connection this is how the other side's closing looks."""


def _question(parser: h11.Connection, address: Address, method: str, target: str, headers: Mapping[str, str]) -> bytes:
    fields = list(headers.items())
    if not any(name.lower() == "host" for name in headers):
        fields.insert(0, ("Host", str(address)))
    try:
        request = h11.Request(method=method, target=target, headers=fields)
        return (parser.send(request) or b"") + (parser.send(h11.EndOfMessage()) or b"")
    except (h11.LocalProtocolError, UnicodeEncodeError) as error:
        raise BadRequest(
            f"{method} {target[:200]!r} cannot be said in HTTP: {str(error)[:QUOTED_CHARACTERS_MAX]}"
        ) from None


def _short(error: h11.RemoteProtocolError) -> str:
    """Return what h11 says, which may quote all that came."""
    return str(error)[:QUOTED_CHARACTERS_MAX]


def _joined(event: h11.Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers.raw_items():
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _announced_length(headers: Mapping[str, str]) -> int | None:
    if "transfer-encoding" in headers or "content-length" not in headers:
        return None
    return int(headers["content-length"].partition(",")[0])  # h11 has checked: digits, and repeated ones equal


def _is_kept(event: h11.Response, headers: Mapping[str, str]) -> bool:
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    return event.http_version >= b"1.1" and "close" not in options

"""One connection of the HTTP server: reads a request, lets the handler answer, sends the answer, again.

Laws:
- one request at a time: what a client sends early waits, and is answered in its order;
- whatever happens, a response's body is closed once and its `done` is called once;
- a response that cannot be finished ends in a FIN short of its length; an error of ours before its head is a 500;
- a small body, in memory or of a file, goes out with its head in one send;
- one scope with a moving deadline guards the wait for a head and the sending of a head; while a handler or a pump
  works there is no deadline but its own.
"""

import logging
from typing import Protocol

import h11
import trio

from p2pmirror.errors import MirrorError, Unreachable
from p2pmirror.wire.http import FileBody, Handler, Request, Response
from p2pmirror.wire.http_body import BodySink, close_body, send_body
from p2pmirror.wire.http_head import DateLine, Refused, body_count, request_of, response_head
from p2pmirror.wire.network import Stream

RECEIVE_BYTES = 16 << 10  # a head is 1 KiB; more at once would only let a client fill our memory
JOINED_BYTES_MAX = 64 << 10  # a copy of 64 KiB costs less than a second system call
QUOTED_CHARACTERS_MAX = 200  # of what is no HTTP: h11 quotes a whole head, four characters for a byte
FOREVER = float("inf")

log = logging.getLogger("p2pmirror.wire")


class ConnectionOptions(Protocol):
    """What a connection reads of the server's options."""

    @property
    def head_bytes_max(self) -> int:
        """Size of a request's head, bytes."""
        ...

    @property
    def head_s(self) -> float:
        """Time for a head once its first byte is here, seconds."""
        ...

    @property
    def idle_s(self) -> float:
        """Time without a request, seconds."""
        ...

    @property
    def stall_s(self) -> float:
        """Time in which a client must take something, seconds."""
        ...


class Connection:
    """A client's connection, from its accept to its FIN."""

    __slots__ = ("_date", "_draining", "_early", "_handler", "_idle", "_options", "_scope", "_stream")

    def __init__(self, stream: Stream, handler: Handler, options: ConnectionOptions, date: DateLine) -> None:
        self._stream = stream
        self._handler = handler
        self._options = options
        self._date = date
        self._scope = trio.CancelScope()
        self._early = b""  # came in behind the last head
        self._idle = False
        self._draining = False

    async def run(self) -> None:
        """Serve until either side has had enough. Raises nothing; closing the stream is the caller's."""
        with self._scope:
            try:
                while not self._draining and await self._serve_one():
                    pass
            except Unreachable:
                pass  # the client has gone; whom it concerns was told by `done`
            except Exception:
                log.exception("a bug of ours ended the connection of %s", self._stream.remote)

    def drain(self) -> None:
        """Close at once when idle; else close after the response that is under way."""
        self._draining = True
        if self._idle:
            self._scope.cancel()

    def cut(self) -> None:
        """End now, in the middle of whatever is under way."""
        self._scope.cancel()

    async def _serve_one(self) -> bool:
        """Answer one request; False when the connection is to be closed."""
        try:
            event = await self._read_head()
            if event is None:
                return False
            stream = self._stream
            request, kept = request_of(event, remote=stream.remote, local=stream.local)
        except Refused as refusal:
            await self._refuse(refusal)
            return False
        return await self._answer(request, kept=kept, http_version=event.http_version)

    async def _read_head(self) -> h11.Request | None:
        """Return the next request, None at a FIN between requests. Raises `Refused`, `Unreachable`."""
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=self._options.head_bytes_max)
        data = self._early.lstrip(b"\r\n")
        if data:
            await trio.lowlevel.checkpoint()  # who sends many requests at once takes turns with the others
        else:
            data = await self._wait_for_request()
        if not data:
            return None
        count = len(data)
        parser.receive_data(data)
        try:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                self._scope.deadline = trio.current_time() + self._options.head_s
            while event is h11.NEED_DATA:
                data = await self._stream.receive_some(RECEIVE_BYTES)
                count += len(data)
                parser.receive_data(data)
                event = parser.next_event()
        except h11.RemoteProtocolError as error:
            raise Refused(error.error_status_hint, str(error)[:QUOTED_CHARACTERS_MAX]) from None
        assert isinstance(event, h11.Request)
        self._early = parser.trailing_data[0]
        if count - len(self._early) > self._options.head_bytes_max:
            raise Refused(431, "the request's head is too large")
        return event

    async def _wait_for_request(self) -> bytes:
        """Return the first bytes of a request without the empty lines in front, b"" at FIN."""
        self._scope.deadline = trio.current_time() + self._options.idle_s
        self._idle = True
        while data := await self._stream.receive_some(RECEIVE_BYTES):
            if data := data.lstrip(b"\r\n"):  # RFC 9112 section 2.2: empty lines in front are ignored
                break
        self._idle = False
        return data

    async def _answer(self, request: Request, *, kept: bool, http_version: bytes) -> bool:
        self._scope.deadline = FOREVER
        try:
            response = await self._handler(request)
        except Exception:
            log.exception("a bug of ours: no answer to %s %s", request.method, request.path)
            response = _internal_error()
        kept = kept and not self._draining
        connection = "close" if not kept else None if http_version >= b"1.1" else "keep-alive"
        try:
            head, body_follows = response_head(
                response, method=request.method, date=self._date.text(), connection=connection
            )
        except ValueError:
            log.exception("a bug of ours: an answer to %s %s that cannot be sent", request.method, request.path)
            _end(response, sent=0, finished=False)
            response = _internal_error()
            head, body_follows = response_head(
                response, method=request.method, date=self._date.text(), connection=connection
            )
        return await self._send(response, head, body_follows=body_follows) and kept

    async def _send(self, response: Response, head: bytes, *, body_follows: bool) -> bool:
        """Send a response; whether it was finished."""
        sent, finished = 0, False
        body = response.body
        try:
            if not body_follows:
                await self._send_head(head)
                finished = True
            elif isinstance(body, bytes) and len(body) <= JOINED_BYTES_MAX:
                await self._send_head(head + body)
                sent, finished = len(body), True
            elif isinstance(body, FileBody) and body.count <= JOINED_BYTES_MAX:
                data = await self._read_small(body)
                await self._send_head(head + data)
                sent, finished = len(data), len(data) == body.count
            else:
                sink = BodySink(self._stream, body_count(response), self._options.stall_s)
                try:
                    await self._send_head(head)
                    self._scope.deadline = FOREVER  # the sink has one of its own
                    await _pour(response, sink)
                finally:
                    sent = sink.sent
                finished = sink.is_complete
        except BaseException as error:
            client_stood_still = trio.current_time() >= self._scope.deadline
            if response.cut is not None and not isinstance(error, Exception) and not client_stood_still:
                response.cut()
            raise
        finally:
            _end(response, sent=sent, finished=finished)
        return finished

    async def _read_small(self, body: FileBody) -> bytes:
        """Return a small body; fewer bytes than it has when the file ends early, none when it cannot be read."""
        self._scope.deadline = trio.current_time() + self._options.stall_s
        try:
            return await body.file.read_at(body.offset, body.count)
        except MirrorError:
            return b""
        except Exception:
            log.exception("a bug of ours: a file that cannot be read")
            return b""

    async def _send_head(self, data: bytes) -> None:
        self._scope.deadline = trio.current_time() + self._options.stall_s
        await self._stream.send_all(data)

    async def _refuse(self, refusal: Refused) -> None:
        await self._send_head(refusal_bytes(refusal, self._date.text()))


def refusal_bytes(refusal: Refused, date: str) -> bytes:
    """Return the whole answer to a request that no handler saw; the connection is to be closed behind it."""
    text = f"{refusal}\n".encode("ascii", "backslashreplace")
    response = Response(refusal.status, {"Content-Type": "text/plain; charset=utf-8"}, text)
    method = "HEAD" if refusal.bodiless else "GET"
    head, body_follows = response_head(response, method=method, date=date, connection="close")
    return head + text if body_follows else head


async def _pour(response: Response, sink: BodySink) -> None:
    """Send a body; an error leaves the sink incomplete. Raises nothing but cancellation."""
    try:
        await send_body(response.body, sink)
    except Exception as error:
        if not _is_expected(error):
            log.exception("a bug of ours cut a response after %d bytes", sink.sent)
    else:
        if not sink.is_complete:
            log.error("a bug of ours: a body of %d bytes ended after %d", body_count(response), sink.sent)


def _is_expected(error: Exception) -> bool:
    """Whether it is a `MirrorError`, or a group of nothing else."""
    if isinstance(error, ExceptionGroup):
        return error.split(MirrorError)[1] is None
    return isinstance(error, MirrorError)


def _end(response: Response, *, sent: int, finished: bool) -> None:
    """Close the body and tell `done`, each once and each whatever the other does."""
    try:
        close_body(response.body)
    except Exception:
        log.exception("a bug of ours: a body that cannot be closed")
    if response.done is not None:
        try:
            response.done(sent, finished)
        except Exception:
            log.exception("a bug of ours at the end of a response")


def _internal_error() -> Response:
    return Response(500, {"Content-Type": "text/plain; charset=utf-8"}, b"internal error\n")

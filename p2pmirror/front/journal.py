"""One line, one count and one place in the list of recent requests for each request, when it has ended.

Laws:
- a request ends once, whatever ends it (its last byte, a client that left, a bug, a cancellation); nothing is logged
  before that;
- how it ended is judged by who failed: `cut` is a source that failed in the middle or this agent, which stops, `left` a
  client that went away (containerd does so on purpose when it reads a blob in ranges), `error` a bug or no source in
  reach.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

from p2pmirror.errors import MirrorError
from p2pmirror.front.metrics import SAVING, FrontMetrics
from p2pmirror.oci import Digest
from p2pmirror.resolve.want import Trail
from p2pmirror.telemetry import logs
from p2pmirror.wire.http import PumpBody, Request, Response, Sink
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.network import File

Kind = Literal["base", "manifest", "blob", "tags", "referrers", "flight", "other"]
Outcome = Literal["ok", "miss", "left", "cut", "refused", "error"]

QUIET: Final = frozenset({"base", "flight"})  # asked every second, by containerd and by peers
CONTENT: Final = frozenset({"manifest", "blob"})
RECENT_MAX: Final = 200  # requests: what a person reads on a page; some 200 KiB
PATH_CHARS_MAX: Final = 300  # of a path that is kept because it says nothing that can be kept shorter

_log = logging.getLogger("p2pmirror.front")


@dataclass(slots=True)
class Exchange:
    """One request and how it was answered; written by the front until it has ended, then only read.

    Times are seconds; `began` and `ended` are the front's clock. `status` 0: nothing was answered. `remote` is the
    client's host.
    """

    method: str
    path: str
    began: float
    remote: str = ""
    kind: Kind = "other"
    registry: str = ""
    repository: str = ""
    reference: Digest | str = ""
    digest: Digest | None = None
    from_peer: NodeId | None = None
    trail: Trail = field(default_factory=Trail)
    status: int = 0
    outcome: Outcome = "ok"
    bytes_sent: int = 0
    first_byte_s: float = 0.0
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it took, from the request's head to the answer's last byte."""
        return self.ended - self.began

    def fields(self) -> dict[str, Any]:
        """Return the fields of the log line, in the order of DESIGN.md, section "Logs and metrics"."""
        trail = self.trail
        fields: dict[str, Any] = {
            "method": self.method,
            "registry": self.registry,
            "repository": self.repository,
            "reference": str(self.reference),
            "digest": "" if self.digest is None else str(self.digest),
            "status": self.status,
            "source": trail.source,
            "peer": ",".join([peer.hex() for peer in trail.peers]),
            "bytes": self.bytes_sent,
            "first_byte_s": round(self.first_byte_s, 6),
            "seconds": round(self.ended - self.began, 6),
            "attempts": trail.attempts,
            "resumes": trail.resumes,
            "outcome": self.outcome,
        }
        if self.from_peer is not None:
            fields["from_peer"] = self.from_peer.hex()
        if self.outcome == "refused":
            fields["remote"] = self.remote
        if not self.repository:
            fields["path"] = self.path
        return fields


class Journal:
    """Begins and ends exchanges."""

    def __init__(self, metrics: FrontMetrics, clock: Callable[[], float]) -> None:
        """Count with `metrics`; `clock` gives seconds."""
        self._metrics = metrics
        self._clock = clock
        self._recent: deque[Exchange] = deque(maxlen=RECENT_MAX)

    def recent(self) -> list[Exchange]:
        """Return the requests that ended last, newest first; without the pings of `/v2/` and the talk of peers."""
        return list(reversed(self._recent))

    def begin(self, request: Request) -> Exchange:
        """Note that a request has come."""
        self._metrics.in_flight.inc()
        return Exchange(request.method, request.path[:PATH_CHARS_MAX], self._clock(), request.remote.host)

    def answered(self, exchange: Exchange, response: Response) -> Response:
        """Note the head of the answer, and return it so that its end will be noted too."""
        exchange.status = response.status
        exchange.first_byte_s = self._clock() - exchange.began
        if isinstance(response.body, PumpBody):
            body = response.body
            response.body = PumpBody(body.count, partial(self._pump, exchange, body), body.close)
        response.done = partial(self._done, exchange, response.done)
        response.cut = partial(self._cut, exchange)
        return response

    def broke(self, exchange: Exchange, *, bug: bool) -> None:
        """End an exchange that has no answer: a bug, which the server answers with 500, or this agent's own stop."""
        exchange.status, exchange.outcome = (500, "error") if bug else (0, "cut")
        self._end(exchange)

    def _cut(self, exchange: Exchange) -> None:
        exchange.outcome = "cut"

    def _done(
        self,
        exchange: Exchange,
        before: Callable[[int, bool], None] | None,
        sent: int,
        finished: bool,  # noqa: FBT001  # Response.done's shape
    ) -> None:
        if before is not None:
            before(sent, finished)
        exchange.bytes_sent = sent
        if not finished and exchange.outcome == "ok":
            exchange.outcome = "left"
        self._end(exchange)

    async def _pump(self, exchange: Exchange, body: PumpBody, sink: Sink) -> None:
        watched = _WatchedSink(sink, exchange, self._clock)
        try:
            await body.pump(watched)
        except Exception as error:
            exchange.outcome = "left" if watched.client_left else "cut" if _is_foreseen(error) else "error"
            raise
        if sink.sent < body.count:
            exchange.outcome = "cut"

    def _end(self, exchange: Exchange) -> None:
        exchange.ended = self._clock()
        source, kind, metrics = exchange.trail.source, exchange.kind, self._metrics
        metrics.in_flight.dec()
        metrics.requests.child(kind, source, exchange.outcome).inc()
        if exchange.bytes_sent:
            metrics.bytes.child(source).inc(exchange.bytes_sent)
            if source in SAVING and kind in CONTENT and exchange.from_peer is None:  # a peer counts what it gets itself
                metrics.saved_bytes.inc(exchange.bytes_sent)
        if exchange.status and kind in CONTENT:
            metrics.first_byte.child(source).observe(exchange.first_byte_s)
        if kind not in QUIET:
            self._recent.append(exchange)
        level = _level(exchange)
        if _log.isEnabledFor(level):
            logs.event(_log, level, "request", exchange.fields())


class _WatchedSink:
    """A sink that notes the first byte, and whether it was the client that failed."""

    __slots__ = ("_clock", "_exchange", "_sink", "client_left")

    def __init__(self, sink: Sink, exchange: Exchange, clock: Callable[[], float]) -> None:
        self._sink = sink
        self._exchange = exchange
        self._clock = clock
        self.client_left = False

    @property
    def sent(self) -> int:
        return self._sink.sent

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._note_first()
        try:
            await self._sink.send_all(data)
        except MirrorError:
            self.client_left = True
            raise

    async def send_file(self, file: File, offset: int, count: int) -> None:
        self._note_first()
        try:
            await self._sink.send_file(file, offset, count)
        except MirrorError:
            self.client_left = True
            raise

    def _note_first(self) -> None:
        if not self._sink.sent:
            self._exchange.first_byte_s = self._clock() - self._exchange.began


def _is_foreseen(error: Exception) -> bool:
    """Return whether it is a `MirrorError`, or a group of nothing else, as a pump with a nursery raises."""
    if isinstance(error, ExceptionGroup):
        return error.split(MirrorError)[1] is None
    return isinstance(error, MirrorError)


def _level(exchange: Exchange) -> int:
    if exchange.outcome in {"error", "cut"}:
        return logging.WARNING
    return logging.DEBUG if exchange.kind in QUIET else logging.INFO

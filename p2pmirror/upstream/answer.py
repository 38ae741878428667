"""What a registry answered to one question, and the record of it: one log line, one count.

Laws: a question is recorded once, when its answer has been read or was given up; bodies of refusals, URLs of redirects
and headers are recorded nowhere.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import httpx
import trio

from p2pmirror.errors import NotHere, Unreachable, UpstreamRefused
from p2pmirror.telemetry import logs
from p2pmirror.upstream.governor import Cost
from p2pmirror.upstream.metrics import Outcome, UpstreamMetrics
from p2pmirror.upstream.transport import Body, Way

DROPPED_BYTES_MAX: Final = 64 << 10  # 64 KiB of a body that nobody wants are read, so that its connection can be kept
DROPPED_S_MAX: Final = 1.0
REFUSAL_BYTES_MAX: Final = 8 << 10  # 8 KiB of a refusal are looked at: error codes, and how long to wait

_CODE: Final = re.compile(r'"code"\s*:\s*"([A-Za-z_]{1,40})"')
_log = logging.getLogger(__name__)


class Held(UpstreamRefused):
    """The registry was not asked, since it or its quota does not want it now."""


class Paused(Unreachable):
    """The registry was not asked, since it has just failed."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question: `target` is path and query, `reference` a tag or a digest for the log."""

    kind: str
    method: Literal["GET", "HEAD"]
    target: str
    repository: str
    reference: str = ""
    cost: Cost = "free"
    way: Way = "documents"
    headers: Mapping[str, str] = field(default_factory=dict)


class Record:
    """What is told of a question; `end` tells it."""

    def __init__(self, registry: str, question: Question, metrics: UpstreamMetrics) -> None:
        """Begin now."""
        self.status: int | None = None
        self.bytes = 0
        self._registry = registry
        self._question = question
        self._metrics = metrics
        self._began = trio.current_time()
        self._ended = False

    def end(self, error: BaseException | None) -> None:
        """Tell how it ended, the first time; `error` is what it ended with."""
        if self._ended:
            return
        self._ended = True
        outcome = outcome_of(error)
        self._metrics.requests.child(self._registry, outcome).inc()
        self._metrics.bytes.child(self._registry).inc(self.bytes)
        if _log.isEnabledFor(logging.DEBUG):
            logs.event(_log, logging.DEBUG, "upstream.asked", self._fields(outcome, error))

    def _fields(self, outcome: Outcome, error: BaseException | None) -> dict[str, object]:
        question = self._question
        fields: dict[str, object] = {
            "registry": self._registry,
            "kind": question.kind,
            "method": question.method,
            "repository": question.repository,
            "reference": question.reference,
            "status": self.status,
            "outcome": outcome,
            "bytes": self.bytes,
            "seconds": round(trio.current_time() - self._began, 6),
        }
        if isinstance(error, Exception):
            fields["reason"] = str(error)
        return fields


def outcome_of(error: BaseException | None) -> Outcome:
    """Return the word for how a question ended."""
    match error:
        case None:
            return "ok"
        case Held() | Paused():
            return "held"
        case NotHere():
            return "absent"
        case Unreachable():
            return "unreachable"
        case UpstreamRefused(status=401 | 403):
            return "denied"
        case UpstreamRefused(status=429):
            return "limited"
        case UpstreamRefused(status=502):
            return "wrong"
        case UpstreamRefused():
            return "refused"
        case _:
            return "left"


class Answer:
    """A status of 200 or 206 with its head; the body is read by `receive`, and `aclose` must follow."""

    def __init__(self, response: httpx.Response, record: Record) -> None:
        """Take the response over."""
        self.status = response.status_code
        self.headers = response.headers
        self.url = response.request.url
        self._body = body_of(response)
        self._record = record

    async def receive(self) -> bytes:
        """Return the next bytes, b"" at the end. Raises `Unreachable`. Cancelled, it can only be closed."""
        part = await self._body.receive()
        self._record.bytes += len(part)
        return part

    async def read(self, bytes_max: int) -> bytes:
        """Return the whole body. Raises `Unreachable`; `UpstreamRefused` (502) when it is longer than `bytes_max`."""
        parts = bytearray()
        if (self.length or 0) <= bytes_max:
            while part := await self.receive():
                parts += part
                if len(parts) > bytes_max:
                    break
            else:
                if self.length not in {None, len(parts)}:
                    raise Unreachable(f"{self.url.host}: the answer is not as long as it says")
                return bytes(parts)
        raise UpstreamRefused(f"{self.url.host} answered with more than {bytes_max} bytes", status=502)

    @property
    def length(self) -> int | None:
        """Length of the body in bytes, as the head says."""
        return content_length(self.headers)

    @property
    def media_type(self) -> str:
        """The content's media type without parameters, empty when the head has none."""
        return str(self.headers.get("content-type", "")).partition(";")[0].strip()

    async def aclose(self, error: BaseException | None = None) -> None:
        """Let go of the connection and record the question, which ended with `error`. Cancelled, it does so too."""
        try:
            await self._body.aclose()
        finally:
            self._record.end(error)


def body_of(response: httpx.Response) -> Body:
    """Return the body that our transport gave the response."""
    assert isinstance(response.stream, Body), "our transport makes no other"
    return response.stream


def content_length(headers: httpx.Headers) -> int | None:
    """Return what `Content-Length` says, None when that is no number."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


async def drop(response: httpx.Response) -> None:
    """Throw a body away: read it when it is short, so that the connection can be kept. Cancellation: closed."""
    try:
        await begin_of(response, DROPPED_BYTES_MAX)
    finally:
        await body_of(response).aclose()


async def begin_of(response: httpx.Response, bytes_max: int) -> bytes:
    """Return the first bytes of a body, as many as come soon and are wanted, at most `bytes_max`."""
    found = bytearray()
    with trio.move_on_after(DROPPED_S_MAX):
        try:
            while len(found) <= bytes_max and (part := await body_of(response).receive()):
                found += part
        except Unreachable:
            pass
    return bytes(found[:bytes_max])


def error_code(body: str) -> str:
    """Return the code of a registry's error, such as MANIFEST_UNKNOWN, and nothing else of its body."""
    match = _CODE.search(body)
    return "" if match is None else f" ({match[1].upper()})"

"""Asking another agent over HTTP: the registry API, with the header that says that a peer asks.

Laws:
- a question carries the proof that the cluster asks for, or is not asked;
- an answer is handed out only when its status, length and first byte are those of the question;
- what no honest agent answers is `PeerMisbehaved`; an agent that is busy, in trouble or does not let us in is
  `Unreachable`.
"""

import re
from contextlib import suppress
from typing import Final
from urllib.parse import quote

from p2pmirror.errors import NotHere, PeerMisbehaved, Unreachable
from p2pmirror.oci import Digest, Invalid, mediatype
from p2pmirror.peers.metrics import PeersMetrics
from p2pmirror.peers.piecemap import MAP_BYTES_MAX, PieceMap, decode
from p2pmirror.peers.protocol import Busy, FlightQuestion, Follow, Question, RegistrySaid
from p2pmirror.peers.signing import Signer, Unsigned
from p2pmirror.wire.address import Address
from p2pmirror.wire.http_client import ClientResponse, HttpClient
from p2pmirror.wire.identity import (
    FOLLOWS_HEADER,
    HOLDERS_HEADER,
    LEADER_HEADER,
    PEER_HEADER,
    PIECE_HEADER,
    UPSTREAM_HEADER,
    WAITS_HEADER,
    NodeId,
    parse_node_id,
)
from p2pmirror.wire.peer_auth import Asked
from p2pmirror.wire.ranges import Span, parse_content_range

HOLDERS_MAX: Final = 8  # that a busy peer names; it says no more of them

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_REFUSAL: Final = re.compile(r"[45][0-9]{2}")


class HttpAnswer:
    """A peer's answer; see `protocol.Answer`."""

    def __init__(self, response: ClientResponse, span: Span, size: int) -> None:
        """Read the body of `response`, which is `span` of a content of `size` bytes."""
        self._response = response
        self.size = size
        self.offset = span.offset
        self.count = span.count
        self.media_type = _media_type(response.headers.get("content-type"))
        self.digest = response.headers.get("docker-content-digest")
        self.piece_hash = _piece_hash(response.headers.get(PIECE_HEADER.lower(), ""))

    async def receive_into(self, buffer: memoryview, gather_s: float = 0.0) -> int:
        """Receive; see `protocol.Answer`. Cancelled, it may only be closed."""
        return await self._response.receive_into(buffer, gather_s)

    def close(self) -> None:
        """Give the connection back, or drop it."""
        self._response.close()


class HttpPeers:
    """Fetches from peers; see `protocol.Peers`."""

    def __init__(
        self, client: HttpClient, own_id: NodeId, metrics: PeersMetrics, *, signer: Signer | None = None
    ) -> None:
        """Ask with `client`, as the node `own_id`, which `signer` proves (None: nobody asks for a proof)."""
        self._client = client
        self._own_id = own_id
        self._metrics = metrics
        self._signer = signer or Unsigned()

    async def ask(self, node_id: NodeId, address: Address, question: Question) -> HttpAnswer:
        """Ask; see `protocol.Peers`."""
        target = f"{question.path}?ns={quote(question.registry, safe='')}"
        fields = {"Range": _range(question)} if question.offset or question.count is not None else {}
        if question.follows:
            fields[FOLLOWS_HEADER] = "1"
        if question.waits_s:
            fields[WAITS_HEADER] = str(int(question.waits_s * 1000))
        response = await self._open(node_id, address, question.method, target, fields)
        try:
            self._check_status(response, node_id, question.path)
            span, size = self._checked(_span_of(response, question), node_id, question.path, response.status)
            return HttpAnswer(response, span, size)
        except BaseException:
            response.close()
            raise

    async def map(
        self, node_id: NodeId, address: Address, question: FlightQuestion, *, since: int, wait_s: float
    ) -> PieceMap:
        """Ask; see `protocol.Peers`."""
        target = f"{flight_path(question.digest)}?{_named(question)}&since={since}&wait_ms={int(wait_s * 1000)}"
        response = await self._open(node_id, address, "GET", target, {})
        try:
            self._check_status(response, node_id, "a map")
            if response.status != 200 or response.length is None:
                raise self._misbehaved(node_id, response.status, "a map")
            data = await response.read(MAP_BYTES_MAX)
        finally:
            response.close()
        try:
            return decode(data)
        except PeerMisbehaved:
            self._count("misbehaved")
            raise

    async def next(
        self, node_id: NodeId, address: Address, question: FlightQuestion, *, first: int, lacks: bytes, wait_s: float
    ) -> HttpAnswer | None:
        """Ask; see `protocol.Peers`."""
        asked = f"first={first}&lacks={lacks.hex()}&wait_ms={int(wait_s * 1000)}"
        target = f"{flight_path(question.digest)}/next?{_named(question)}&{asked}"
        response = await self._open(node_id, address, "GET", target, {})
        try:
            self._check_status(response, node_id, "a piece")
            if response.status == 200 and response.length == 0:
                response.close()
                return None
            span, size = self._checked(_part_of(response), node_id, "a piece", response.status)
            return HttpAnswer(response, span, size)
        except BaseException:
            response.close()
            raise

    async def _open(
        self, node_id: NodeId, address: Address, method: str, target: str, fields: dict[str, str]
    ) -> ClientResponse:
        """Ask with the proof of who asks. Raises `Unreachable` when this node cannot prove to that one who it is."""
        headers = {"Host": str(address), PEER_HEADER: self._own_id.hex()} | fields
        asked = Asked(method, target, headers.get("Range", ""), self._own_id)
        try:
            return await self._client.open(address, method, target, headers | self._signer.fields(node_id, asked))
        except PeerMisbehaved:
            self._count("misbehaved")
            raise
        except Unreachable:
            self._count("unreachable")
            raise

    def _check_status(self, response: ClientResponse, node_id: NodeId, what: str) -> None:
        """Raise what an answer that is none amounts to."""
        status, who = response.status, f"peer {node_id.hex()[:8]}"
        if status == 404:
            self._count("absent")
            refusal = _refusal_of(response)
            if refusal is not None:
                raise RegistrySaid(f"{who} was answered {refusal} when it asked the registry for {what}", refusal)
            raise NotHere(f"{who} does not have {what}")
        if status == 403:
            self._count("forbidden")
            raise Unreachable(f"{who} does not let us in")
        if status == 503:
            self._count("busy")
            leader = _leader_of(response)
            if leader is not None:
                raise Follow(f"{who} gives {what} to another node", leader)
            raise Busy(f"{who} is busy", _holders_of(response))
        if status >= 500 or status == 429:
            self._count("busy")
            raise Unreachable(f"{who} answers {status}")

    def _checked(self, found: tuple[Span, int] | None, node_id: NodeId, what: str, status: int) -> tuple[Span, int]:
        if found is None:
            raise self._misbehaved(node_id, status, what)
        return found

    def _misbehaved(self, node_id: NodeId, status: int, what: str) -> PeerMisbehaved:
        self._count("misbehaved")
        return PeerMisbehaved(f"peer {node_id.hex()[:8]} answers {status} to {what} with something else")

    def _count(self, reason: str) -> None:
        self._metrics.failures.labels(reason=reason).inc()


def flight_path(digest: Digest) -> str:
    """Return where a peer tells of a blob that is arriving."""
    return f"/p2p/v1/flights/{digest}"


def _named(question: FlightQuestion) -> str:
    zone = f"&zone={quote(question.zone, safe='')}" if question.zone else ""
    return f"ns={quote(question.registry, safe='')}&repository={quote(question.repository, safe='/')}{zone}"


def _range(question: Question) -> str:
    last = "" if question.count is None else str(question.offset + question.count - 1)
    return f"bytes={question.offset}-{last}"


def _leader_of(response: ClientResponse) -> NodeId | None:
    try:
        return parse_node_id(response.headers.get(LEADER_HEADER.lower(), ""))
    except ValueError:
        return None


def _holders_of(response: ClientResponse) -> list[NodeId]:
    """Return whom a busy peer names; what is no node id is nobody."""
    holders = []
    for text in response.headers.get(HOLDERS_HEADER.lower(), "").split(",")[:HOLDERS_MAX]:
        with suppress(ValueError):
            holders.append(parse_node_id(text.strip()))
    return holders


def _refusal_of(response: ClientResponse) -> int | None:
    text = response.headers.get(UPSTREAM_HEADER.lower(), "")
    return int(text) if _REFUSAL.fullmatch(text) else None


def _piece_hash(text: str) -> bytes | None:
    return bytes.fromhex(text) if _HASH.fullmatch(text) else None


def _span_of(response: ClientResponse, question: Question) -> tuple[Span, int] | None:
    """Return which bytes come, and the length of the whole; None when this is no answer to the question."""
    if not question.offset and question.count is None:
        if response.status != 200 or response.length is None or "content-encoding" in response.headers:
            return None
        return Span(0, response.length), response.length
    part = _part_of(response)
    if part is None:
        return None
    span, size = part
    count = size - question.offset if question.count is None else question.count
    return part if (span.offset, span.count) == (question.offset, count) else None


def _part_of(response: ClientResponse) -> tuple[Span, int] | None:
    """Return which bytes of which length a 206 brings; None when it is none, or contradicts itself."""
    if response.status != 206 or response.length is None or "content-encoding" in response.headers:
        return None
    try:
        span, size = parse_content_range(response.headers.get("content-range", ""))
    except ValueError:
        return None
    return (span, size) if size is not None and response.length == span.count else None


def _media_type(text: str | None) -> str | None:
    """Return a media type that says something; None for none, for nonsense, and for `application/octet-stream`."""
    if text is None or text == mediatype.OCTET_STREAM:
        return None
    try:
        return mediatype.check(text)
    except Invalid:
        return None

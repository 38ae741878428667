"""Asking another agent over HTTP: the registry API, with the header that says that a peer asks.

Laws:
- a question carries the proof that the cluster asks for, or is not asked;
- an answer is handed out only when its status, length and first byte are those of the question;
- what no honest agent answers is `PeerMisbehaved`; an agent that is busy, in trouble or does not let us in is
  `Unreachable`.
"""

from urllib.parse import quote

from p2pmirror.errors import NotHere, PeerMisbehaved, Unreachable
from p2pmirror.oci import Invalid, mediatype
from p2pmirror.peers.metrics import PeersMetrics
from p2pmirror.peers.protocol import Question
from p2pmirror.peers.signing import Signer, Unsigned
from p2pmirror.wire.address import Address
from p2pmirror.wire.http_client import ClientResponse, HttpClient
from p2pmirror.wire.identity import PEER_HEADER, NodeId
from p2pmirror.wire.peer_auth import Asked
from p2pmirror.wire.ranges import parse_content_range


class HttpAnswer:
    """A peer's answer; see `protocol.Answer`."""

    def __init__(self, response: ClientResponse, size: int) -> None:
        """Read the body of `response`; the whole content has `size` bytes."""
        self._response = response
        self.size = size
        self.media_type = _media_type(response.headers.get("content-type"))
        self.digest = response.headers.get("docker-content-digest")

    async def receive_into(self, buffer: memoryview) -> int:
        """Receive; see `protocol.Answer`. Cancelled, it may only be closed."""
        return await self._response.receive_into(buffer)

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
        try:
            headers = self._headers(node_id, address, question, target)
            response = await self._client.open(address, question.method, target, headers)
        except PeerMisbehaved:
            self._count("misbehaved")
            raise
        except Unreachable:
            self._count("unreachable")
            raise
        try:
            return HttpAnswer(response, self._checked_size(response, question, node_id))
        except BaseException:
            response.close()
            raise

    def _headers(self, node_id: NodeId, address: Address, question: Question, target: str) -> dict[str, str]:
        """Return the question's fields. Raises `Unreachable` when this node cannot prove to that one who it is."""
        headers = {"Host": str(address), PEER_HEADER: self._own_id.hex()}
        if question.offset:
            headers["Range"] = f"bytes={question.offset}-"
        asked = Asked(question.method, target, headers.get("Range", ""), self._own_id)
        return headers | self._signer.fields(node_id, asked)

    def _checked_size(self, response: ClientResponse, question: Question, node_id: NodeId) -> int:
        """Return the length of the whole content, or raise what the answer amounts to."""
        status, who = response.status, f"peer {node_id.hex()[:8]}"
        if status == 404:
            self._count("absent")
            raise NotHere(f"{who} does not have {question.path}")
        if status == 403:
            self._count("forbidden")
            raise Unreachable(f"{who} does not let us in")
        if status >= 500 or status == 429:
            self._count("busy")
            raise Unreachable(f"{who} answers {status}")
        size = _whole_size(response, question)
        if size is None:
            self._count("misbehaved")
            raise PeerMisbehaved(f"{who} answers {status} to {question.path} from byte {question.offset}")
        return size

    def _count(self, reason: str) -> None:
        self._metrics.failures.labels(reason=reason).inc()


def _whole_size(response: ClientResponse, question: Question) -> int | None:
    """Return the length of the whole content; None when this is no answer to the question."""
    if response.length is None or "content-encoding" in response.headers:
        return None
    if not question.offset:
        return response.length if response.status == 200 else None
    if response.status != 206:
        return None
    try:
        span, size = parse_content_range(response.headers.get("content-range", ""))
    except ValueError:
        return None
    if size is None or (span.offset, span.count) != (question.offset, size - question.offset):
        return None
    return size if response.length == span.count else None


def _media_type(text: str | None) -> str | None:
    """Return a media type that says something; None for none, for nonsense, and for `application/octet-stream`."""
    if text is None or text == mediatype.OCTET_STREAM:
        return None
    try:
        return mediatype.check(text)
    except Invalid:
        return None

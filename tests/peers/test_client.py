"""Promises of asking a peer under a key: what is sent is what was signed, and nobody is asked who would refuse."""

from __future__ import annotations

from random import Random

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock

from p2pmirror.errors import MirrorError, NotHere, Unreachable
from p2pmirror.peers.client import HttpPeers
from p2pmirror.peers.metrics import PeersMetrics
from p2pmirror.peers.protocol import Busy, Follow, Question, RegistrySaid
from p2pmirror.peers.signing import Signed, Signer
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import UNBOUND, Binding
from p2pmirror.wire.http import Request, Response
from p2pmirror.wire.http_client import ClientOptions, HttpClient
from p2pmirror.wire.http_server import HttpServer, ServerOptions
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.keyring import KeyRing
from p2pmirror.wire.memory import MemoryWorld
from p2pmirror.wire.peer_auth import Asked, check

RING = KeyRing([b"k" * 32])
HERE, THERE = NodeId(b"h" * 20), NodeId(b"t" * 20)
BINDING = Binding(b"boot-id.", 77)
DATA = b"0123456789"
PEER = Address("10.0.0.2", 29999)
QUESTION = Question("/v2/a/manifests/1", "docker.io", "HEAD", waits_s=0.5)


class Peer:
    """A server that keeps what it was asked and answers with one blob, or with a status."""

    def __init__(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = headers or {}
        self.requests: list[Request] = []
        self.registry = CollectorRegistry()

    async def ask(self, question: Question, signer: Signer | None) -> bytes:
        world = MemoryWorld(Random(1))
        here, there = world.host("10.0.0.1"), world.host("10.0.0.2")
        server = HttpServer(self._answer, ServerOptions(), wall_s=lambda: 0.0)
        client = HttpClient(here, ClientOptions())
        peers = HttpPeers(client, HERE, PeersMetrics(self.registry), signer=signer)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, await there.listen(PEER))
            outcome = await _outcome(peers, question)
            await client.aclose()
            nursery.cancel_scope.cancel()
        if isinstance(outcome, MirrorError):
            raise outcome
        return outcome

    async def _answer(self, request: Request) -> Response:
        self.requests.append(request)
        if self.status != 200:
            return Response(self.status, dict(self.headers))
        offset = int(request.headers.get("range", "bytes=0-")[6:-1])
        if not offset:
            return Response(200, {}, DATA)
        return Response(206, {"Content-Range": f"bytes {offset}-{len(DATA) - 1}/{len(DATA)}"}, DATA[offset:])

    def failures(self, reason: str) -> float:
        return self.registry.get_sample_value("p2pmirror_peers_failures_total", {"reason": reason}) or 0.0


async def _outcome(peers: HttpPeers, question: Question) -> bytes | MirrorError:
    try:
        answer = await peers.ask(THERE, PEER, question)
    except MirrorError as error:
        return error
    buffer = bytearray(100)
    count = await answer.receive_into(memoryview(buffer))
    answer.close()
    return bytes(buffer[:count])


@pytest.fixture(autouse=True)
def virtual_time(autojump_clock: MockClock) -> None:
    """No test here waits in real time."""


@pytest.mark.parametrize(
    "question",
    [
        Question("/v2/a/blobs/sha256:0", "docker.io"),
        Question("/v2/a/blobs/sha256:0", "localhost:5000", offset=4),
        Question("/v2/a/blobs/sha256:0", "docker.io", "HEAD"),
    ],
)
async def test_what_arrives_is_what_was_signed(question: Question) -> None:
    """The receiver can check the proof against the request as it came: method, target, range, sender."""
    peer = Peer()
    data = await peer.ask(question, Signed(RING, lambda _: BINDING))
    assert data == (b"" if question.method == "HEAD" else DATA[question.offset :])
    [request] = peer.requests
    sender = NodeId(bytes.fromhex(request.headers["p2pmirror-peer"]))
    asked = Asked(request.method, f"{request.path}?{request.query}", request.headers.get("range", ""), sender)
    assert sender == HERE
    check(RING, asked, request.headers["p2pmirror-auth"], BINDING)


async def test_each_question_is_bound_to_whom_it_goes_to() -> None:
    """The binding is that of the node that is asked, as it is at that moment."""
    asked: list[NodeId] = []

    def binding_of(node_id: NodeId) -> Binding:
        asked.append(node_id)
        return BINDING

    peer = Peer()
    await peer.ask(Question("/v2/a/blobs/sha256:0", "docker.io"), Signed(RING, binding_of))
    assert asked == [THERE]
    assert peer.requests[0].headers["p2pmirror-auth"].startswith(f"{BINDING.boot_id.hex()}.77.")


async def test_a_node_that_never_answered_a_ping_is_not_asked() -> None:
    """Without its binding it could only refuse: the question ends as unreachable, and nothing is sent."""
    peer = Peer()
    with pytest.raises(Unreachable):
        await peer.ask(Question("/v2/a/blobs/sha256:0", "docker.io"), Signed(RING, lambda _: UNBOUND))
    assert (peer.requests, peer.failures("unreachable")) == ([], 1.0)


async def test_without_a_key_nothing_is_proved() -> None:
    """A cluster without a key sends who asks, and no proof."""
    peer = Peer()
    await peer.ask(Question("/v2/a/blobs/sha256:0", "docker.io"), None)
    assert peer.requests[0].headers["p2pmirror-peer"] == HERE.hex()
    assert "p2pmirror-auth" not in peer.requests[0].headers


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [(403, Unreachable, "forbidden"), (404, NotHere, "absent"), (503, Unreachable, "busy")],
)
async def test_a_refusal_sends_us_elsewhere(status: int, error: type[Exception], reason: str) -> None:
    """403 is no misbehaviour: the node is looked at again and others are asked."""
    peer = Peer(status)
    with pytest.raises(error):
        await peer.ask(Question("/v2/a/blobs/sha256:0", "docker.io"), Signed(RING, lambda _: BINDING))
    assert peer.failures(reason) == 1.0


@pytest.mark.parametrize(
    ("named", "holders"),
    [
        ("", []),
        ("61" * 20, [b"a" * 20]),
        (f"{'61' * 20}, {'62' * 20}", [b"a" * 20, b"b" * 20]),
        (f"{'61' * 20},,nobody,{'62' * 19},{'63' * 20}", [b"a" * 20, b"c" * 20]),
        (",".join(["61" * 20] * 1000), [b"a" * 20] * 8),
    ],
)
async def test_whom_a_busy_peer_names(named: str, holders: list[bytes]) -> None:
    """The nodes to ask instead are told, a handful at most, and what is no node id is nobody."""
    with pytest.raises(Busy) as busy:
        await Peer(503, {"P2PMirror-Holders": named}).ask(Question("/v2/a/blobs/sha256:0", "docker.io"), None)
    assert list(busy.value.holders) == holders


@pytest.mark.parametrize(("waits_s", "said"), [(0.0, None), (0.5, "500"), (1.25, "1250")])
async def test_who_waits_says_for_how_long(waits_s: float, said: str | None) -> None:
    """In milliseconds; who does not wait says nothing of it."""
    peer = Peer()
    await peer.ask(Question("/v2/a/manifests/1", "docker.io", "HEAD", waits_s=waits_s), None)
    assert peer.requests[0].headers.get("p2pmirror-waits") == said


@pytest.mark.parametrize("status", [401, 404, 429, 503])
async def test_a_registrys_refusal_is_told_by_the_peer_that_met_it(status: int) -> None:
    """A peer that asked the registry says how it was refused."""
    with pytest.raises(RegistrySaid) as said:
        await Peer(404, {"P2PMirror-Upstream": str(status)}).ask(QUESTION, None)
    assert said.value.status == status


@pytest.mark.parametrize("text", ["", "200", "399", "600", "4040", "-404", "404, 403", "x"])
async def test_what_is_no_refusal_is_a_peer_that_does_not_have_it(text: str) -> None:
    """Nonsense in that header says nothing of the registry, and neither does a true one on another status."""
    peer = Peer(404, {"P2PMirror-Upstream": text})
    with pytest.raises(NotHere) as error:
        await peer.ask(QUESTION, None)
    assert type(error.value) is NotHere
    with pytest.raises(Busy):
        await Peer(503, {"P2PMirror-Upstream": "404"}).ask(QUESTION, None)


async def test_a_peer_that_is_still_asking_names_itself() -> None:
    """503 with the peer's own id: it is to be waited for; another id: another node is to be followed."""
    for leader in (THERE, NodeId(b"x" * 20)):
        with pytest.raises(Follow) as told:
            await Peer(503, {"P2PMirror-Leader": leader.hex()}).ask(QUESTION, None)
        assert told.value.leader == leader

"""What peers ask of blobs that are arriving: who is let in, what is refused, and what a peer's client reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry

from p2pmirror.errors import NotHere, PeerMisbehaved
from p2pmirror.oci import Digest
from p2pmirror.oci.filters import Filters
from p2pmirror.peers.client import HttpPeers
from p2pmirror.peers.metrics import PeersMetrics
from p2pmirror.peers.piecemap import PIECES_MAX, Bitmap, PieceMap
from p2pmirror.peers.protocol import FlightQuestion
from p2pmirror.peers.signing import Signed, Signer
from p2pmirror.resolve.sharing import Piece
from p2pmirror.wire.address import Address
from p2pmirror.wire.http_client import ClientOptions, HttpClient
from p2pmirror.wire.http_server import HttpServer, ServerOptions
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.memory import MemoryWorld
from tests.front.setting import THERE, Bench, FakeFile, FakeSink, send
from tests.front.test_admission import OWN, RING, Door, signed

DATA = Random(1).randbytes(1000)
DIGEST = Digest.of(DATA)
TARGET = f"/p2p/v1/flights/{DIGEST}"
NEXT = f"{TARGET}/next?lacks=80"
PEER = {"P2PMirror_Peer": THERE.hex()}
QUESTION = FlightQuestion(DIGEST, "docker.io", "library/app")


def told() -> PieceMap:
    """Return what there is: three pieces of 400 bytes, of which the second has come."""
    have = Bitmap(3)
    have.add(1)
    return PieceMap(7, 1000, 400, have, {1: b"h" * 32}, THERE, True, (NodeId(b"f" * 20),))


class Given:
    """A piece to give, and what became of it."""

    def __init__(self, offset: int = 400, count: int = 400) -> None:
        self.file = FakeFile(DATA)
        self.ended: list[bool] = []
        self.piece = Piece(self.file, offset, count, 1000, b"h" * 32, self.ended.append)


@pytest.mark.parametrize("target", [TARGET, NEXT])
async def test_clients_are_told_nothing(bench: Bench, target: str) -> None:
    """Whoever does not say that he is a peer is 403, and nothing is looked up."""
    bench.resolver.told[DIGEST] = told()
    assert (await bench.ask(target)).status == 403
    assert bench.resolver.flights_asked == []


@pytest.mark.parametrize("target", [TARGET, NEXT])
@pytest.mark.parametrize("method", ["HEAD", "PUT", "POST", "DELETE", "PATCH"])
async def test_it_is_only_read_from(bench: Bench, target: str, method: str) -> None:
    """Another method than GET, HEAD as well, is 405, which names the one that would do; nothing is looked up."""
    bench.resolver.told[DIGEST] = told()
    response = await bench.ask(target, method, **PEER)
    assert (response.status, response.headers["Allow"]) == (405, "GET")
    assert bench.resolver.flights_asked == []


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (f"{TARGET}?since=x", 400),
        (f"{TARGET}?since=-1", 400),
        (f"{TARGET}?since=1.5", 400),
        (f"{TARGET}?since=", 400),
        (f"{TARGET}?since=%D9%A1", 400),
        (f"{TARGET}?since={'9' * 19}", 400),
        (f"{TARGET}?wait_ms=1e3", 400),
        (f"{TARGET}?wait_ms=inf", 400),
        (f"{TARGET}?{'x' * 2049}", 400),
        (f"{TARGET}/next", 400),
        (f"{TARGET}/next?lacks=", 400),
        (f"{TARGET}/next?lacks=8", 400),
        (f"{TARGET}/next?lacks=zz", 400),
        (f"{TARGET}/next?lacks={'80' * 257}", 400),
        (f"{TARGET}/next?lacks=80&first=-1", 400),
        (f"{TARGET}/next?lacks=80&wait_ms=x", 400),
        (f"{TARGET}/other", 404),
        (f"{TARGET}/next/next?lacks=80", 404),
        ("/p2p/v1/flights/", 400),
        ("/p2p/v1/flights/sha256:zz", 400),
        ("/p2p/v1/flights/latest", 400),
        ("/p2p/v1/flights/%00", 400),
        ("/p2p/v1/flights/..%2f..%2fetc", 404),
    ],
)
async def test_nonsense_is_refused(bench: Bench, target: str, status: int) -> None:
    """A number that is none, a bitmap that is none or too long, a digest that is none: refused before a look."""
    bench.resolver.told[DIGEST] = told()
    assert (await bench.ask(target, **PEER)).status == status
    assert bench.resolver.flights_asked == []


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("ns=docker.io&repository=library/app", "docker.io/library/app"),
        ("ns=GHCR.io&repository=org%2Fapp", "ghcr.io/org/app"),
        ("ns=ghcr.io&repository=org/secret", None),
        ("ns=other.example&repository=app", None),
        ("ns=docker.io&repository=..%2fapp", None),
        ("ns=no%20host&repository=app", None),
        ("repository=app", None),
        ("", None),
    ],
)
async def test_what_may_be_fetched_for_a_peer(bench: Bench, query: str, name: str | None) -> None:
    """A map says for which image it is: that may be fetched where it is one of ours; else only what arrives is told."""
    registries = frozenset({"docker.io", "ghcr.io"})
    bench.build(filters=Filters(["!.*secret.*"]), registries_only=True, registries=registries)
    bench.resolver.told[DIGEST] = told()
    assert (await bench.ask(f"{TARGET}?{query}", **PEER)).status == 200
    (want,) = bench.resolver.flights_wanted
    assert (None if want is None else want.name) == name
    assert want is None or (want.reference, want.from_peer) == (DIGEST, None)


async def test_the_zone_of_who_asks_for_a_piece(bench: Bench) -> None:
    """It is told to whoever gives pieces, no longer than a zone's name may be; who says nothing is of none."""
    bench.resolver.told[DIGEST] = told()
    bench.resolver.pieces = [None, None, None]
    for query in ("", "&zone=rack%201%2Fb", f"&zone={'z' * 500}"):
        await bench.ask(f"{NEXT}{query}", **PEER)
    assert bench.resolver.zones == ["", "rack 1/b", "z" * 63]


@pytest.mark.parametrize("target", [TARGET, NEXT])
async def test_what_is_not_arriving(bench: Bench, target: str) -> None:
    """A digest of which there is no flight is 404."""
    assert (await bench.ask(target, **PEER)).status == 404


async def test_what_is_asked_for_is_bounded(bench: Bench) -> None:
    """Nobody waits longer than ten seconds or asks beyond the last piece that there may be, whatever he says."""
    bench.resolver.told[DIGEST] = told()
    await bench.ask(f"{TARGET}?since=5&wait_ms=999999999999", **PEER)
    await bench.ask(f"{TARGET}?wait_ms=250", **PEER)
    bench.resolver.pieces = [None, None]
    await bench.ask(f"{NEXT}&first={'9' * 18}&wait_ms={'9' * 18}", **PEER)
    await bench.ask(f"{TARGET}/next?lacks={'00' * 256}&first=3", **PEER)
    assert bench.resolver.flights_asked == [
        (DIGEST, THERE, 5, 10.0),
        (DIGEST, THERE, 0, 0.25),
        (DIGEST, THERE, PIECES_MAX, b"\x80", 10.0),
        (DIGEST, THERE, 3, bytes(256), 0.0),
    ]


@pytest.mark.parametrize(("error", "whole"), [(None, True), (NotHere("he has gone"), False)])
async def test_whether_a_piece_went_out_is_noted(bench: Bench, error: BaseException | None, whole: bool) -> None:
    """The book learns once whether it did, and the file is closed."""
    given = Given()
    bench.resolver.told[DIGEST], bench.resolver.pieces = told(), [given.piece]
    response = await bench.ask(NEXT, **PEER)
    assert await send(response, sink=FakeSink(error)) == (DATA[400:800] if whole else b"")
    assert (response.status, given.ended, given.file.closed) == (206, [whole], 1)


# --- under a key ---


@pytest.mark.parametrize("target", [TARGET, NEXT])
@pytest.mark.parametrize("remote", ["10.0.0.9", "127.0.0.1"])
async def test_under_a_key_the_proof_is_demanded(target: str, remote: str) -> None:
    """Who says that he is a peer proves it, for this target; from anywhere else, and without saying so, it is 403."""
    door = Door()
    door.bench.resolver.told[DIGEST], door.bench.resolver.pieces = told(), [None]
    assert await door.status(remote, target, **PEER) == 403
    assert await door.status(remote, target) == 403
    assert await door.status(remote, target, **signed(f"{target}&since=1")) == 403
    assert door.bench.resolver.flights_asked == []
    assert await door.status(remote, target, **signed(target)) == 200
    assert len(door.bench.resolver.flights_asked) == 1


# --- what the client of a peer reads ---


@asynccontextmanager
async def asking(bench: Bench, signer: Signer | None = None) -> AsyncIterator[Callable[..., Any]]:
    """Serve a front over pipes in memory, and yield the two questions of a peer's client."""
    world = MemoryWorld(Random(1))
    here, there = world.host("10.0.0.9"), world.host("10.0.0.1")
    address = Address("10.0.0.1", 29999)
    client = HttpClient(here, ClientOptions())
    peers = HttpPeers(client, THERE, PeersMetrics(CollectorRegistry()), signer=signer)

    async def ask(what: str, **options: Any) -> Any:
        method = peers.map if what == "map" else peers.next
        return await method(NodeId(b"s" * 20), address, QUESTION, wait_s=0.5, **options)

    async with trio.open_nursery() as nursery:
        server = HttpServer(bench.front.handle, ServerOptions(), wall_s=lambda: 0.0)
        await nursery.start(server.run, await there.listen(address))
        yield ask
        await client.aclose()
        nursery.cancel_scope.cancel()


async def read(answer: Any) -> bytes:
    buffer, data = memoryview(bytearray(300)), b""
    while count := await answer.receive_into(buffer):
        data += bytes(buffer[:count])
    answer.close()
    return data


async def test_a_map_comes_over(bench: Bench, autojump_clock: Any) -> None:
    """The client reads what the resolver told, and the resolver hears what the client asked."""
    bench.resolver.told[DIGEST] = told()
    async with asking(bench) as ask:
        found = await ask("map", since=3)
        assert (found.seq, found.size, found.piece_bytes, found.author) == (7, 1000, 400, THERE)
        assert (bytes(found.have), found.hashes) == (b"\x40", {1: b"h" * 32})
        assert (found.spreads, found.followers) == (True, (NodeId(b"f" * 20),))
    assert bench.resolver.flights_asked == [(DIGEST, THERE, 3, 0.5)]


async def test_a_piece_comes_over(bench: Bench, autojump_clock: Any) -> None:
    """Its place, its hash and its bytes; nothing to give is None; the last one may be short; all are noted."""
    first, last = Given(), Given(800, 200)
    bench.resolver.told[DIGEST] = told()
    bench.resolver.pieces = [first.piece, None, last.piece]
    async with asking(bench) as ask:
        answer = await ask("next", first=1, lacks=b"\xc0")
        assert (answer.offset, answer.count, answer.size, answer.piece_hash) == (400, 400, 1000, b"h" * 32)
        assert await read(answer) == DATA[400:800]
        assert await ask("next", first=1, lacks=b"\xc0") is None
        assert await read(await ask("next", first=2, lacks=b"\x80")) == DATA[800:]
    assert (first.ended, last.ended) == ([True], [True])
    assert bench.resolver.flights_asked[0] == (DIGEST, THERE, 1, b"\xc0", 0.5)


async def test_a_piece_that_is_left(bench: Bench, autojump_clock: Any) -> None:
    """A client that closes in the middle of one leaves no file open; the book learns of its end once."""
    given = Given()
    bench.resolver.told[DIGEST], bench.resolver.pieces = told(), [given.piece]
    async with asking(bench) as ask:
        answer = await ask("next", first=1, lacks=b"\xc0")
        answer.close()
        await trio.sleep(5)
        assert (len(given.ended), given.file.closed) == (1, 1)


async def test_nothing_arrives(bench: Bench, autojump_clock: Any) -> None:
    """Both questions say so."""
    async with asking(bench) as ask:
        for what, options in [("map", {"since": 0}), ("next", {"first": 0, "lacks": b"\x80"})]:
            with pytest.raises(NotHere):
                await ask(what, **options)


async def test_a_contradiction_is_misbehaviour(bench: Bench, autojump_clock: Any) -> None:
    """A map with more pieces than its blob has, and a piece longer than its blob, are the peer's fault."""
    bench.resolver.told[DIGEST] = PieceMap(1, 5, 1, Bitmap(9))
    bench.resolver.pieces = [Piece(FakeFile(DATA), 400, 400, 500, b"h" * 32, lambda _: None)]
    async with asking(bench) as ask:
        for what, options in [("map", {"since": 0}), ("next", {"first": 0, "lacks": b"\x80"})]:
            with pytest.raises(PeerMisbehaved):
                await ask(what, **options)


async def test_under_a_key_a_member_is_let_in(autojump_clock: Any) -> None:
    """What the client signs is what the door checks, query and all."""
    door = Door()
    door.bench.resolver.told[DIGEST], door.bench.resolver.pieces = told(), [Given().piece]
    async with asking(door.bench, Signed(RING, lambda _: OWN)) as ask:
        assert (await ask("map", since=3)).seq == 7
        assert await read(await ask("next", first=1, lacks=b"\xc0")) == DATA[400:800]

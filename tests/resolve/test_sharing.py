"""Promises of what peers are told of a flight: its map can be read at every moment, and hides nothing for good."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from p2pmirror.oci import Digest
from p2pmirror.peers.piecemap import PieceMap, decode, encode
from p2pmirror.resolve.flight import Flight, PieceSizes
from p2pmirror.resolve.sharing import next_piece, piece_map
from p2pmirror.resolve.turns import Turns
from p2pmirror.wire.identity import NodeId
from tests.resolve.test_flight import Arrived

PIECE = 1_000
OWN, LEADER, ASKER = (NodeId(bytes([number]) * 20) for number in (1, 2, 3))
HASH, LATER = b"a" * 32, b"b" * 32


async def told(flight: Flight, since: int) -> PieceMap:
    """Return what a peer reads of the map that he is sent."""
    return decode(encode(await piece_map(flight, OWN, ASKER, since=since, wait_s=1.0)))


async def test_hashes_are_told_once_their_pieces_are_known(autojump_clock: Any) -> None:
    """What the leader told while this node still makes room is told on afterwards: a map without a length has none."""
    flight = Flight(Digest.of(b""), "registry.example/team/app", 0.0, PieceSizes(PIECE, 2 * PIECE))
    flight.learn(LEADER, {0: HASH, 2: HASH}, lambda _: False)
    early = await told(flight, 0)
    assert (early.size, early.hashes, early.others) == (None, {}, {})
    flight.learn(LEADER, {1: LATER}, lambda _: False)
    flight.open(3 * PIECE, Arrived())  # type: ignore[arg-type]
    opened = await told(flight, early.seq)
    assert (opened.size, opened.hashes) == (3 * PIECE, {0: HASH, 1: LATER, 2: HASH})
    assert {claimant: sorted(indexes) for claimant, indexes in opened.others.items()} == {LEADER: [0, 1, 2]}
    flight.add(0)
    assert (await told(flight, opened.seq)).hashes == {}, "told once"


async def test_who_comes_to_a_leader_at_the_end_chooses_his_pieces(autojump_clock: Any) -> None:
    """Whoever follows before goes on as he began; of what is all here somebody else is told as of a plain peer's."""
    flight = Flight(Digest.of(b""), "registry.example/team/app", 0.0, PieceSizes(PIECE, 2 * PIECE))
    flight.open(2 * PIECE, Arrived())  # type: ignore[arg-type]
    flight.lead()
    early = await told(flight, 0)
    flight.add(0)
    flight.add(1)
    assert early.spreads
    flight.is_right = True
    assert (await told(flight, early.seq)).spreads
    assert not (await told(flight, 0)).spreads


class Readable(Arrived):
    """The same, of which pieces are given; their bytes are of no account here."""

    async def feed(self, hasher: Any, offset: int, count: int) -> None:
        hasher.update(bytes(count))

    async def reader(self) -> object:
        return object()


async def test_a_piece_is_given_with_its_givers_own_hash(autojump_clock: Any) -> None:
    """What somebody else claims of it maps alone say, as his: until the digest of all has shown that it is right."""
    flight = Flight(Digest.of(b""), "registry.example/team/app", 0.0, PieceSizes(PIECE, 2 * PIECE))
    flight.open(2 * PIECE, Readable())  # type: ignore[arg-type]
    flight.learn(LEADER, {0: HASH}, lambda _: False)
    flight.add(0, HASH)
    flight.add(1)
    flight.lead()

    async def given(lacks: bytes) -> bytes | None:
        piece = await next_piece(flight, Turns(), ASKER, first=0, lacks=lacks, wait_s=1.0)
        assert piece is not None
        piece.ended(False)  # so that it may be given again
        return piece.piece_hash

    assert await given(b"\x80") is None
    assert await given(b"\x40") == sha256(bytes(PIECE)).digest()
    flight.is_right = True
    assert await given(b"\x80") == HASH

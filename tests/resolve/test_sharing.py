"""Promises of what peers are told of a flight: its map can be read at every moment, and hides nothing for good."""

from __future__ import annotations

from typing import Any

from p2pmirror.oci import Digest
from p2pmirror.peers.piecemap import PieceMap, decode, encode
from p2pmirror.resolve.flight import Flight, PieceSizes
from p2pmirror.resolve.sharing import piece_map
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

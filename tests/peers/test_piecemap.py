"""Promises of peers/piecemap.py: what was sent is what is read, and what no honest peer sends is one error."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.errors import PeerMisbehaved
from p2pmirror.peers.piecemap import (
    FOLLOWERS_MAX,
    HASH_BYTES,
    PIECES_MAX,
    Bitmap,
    PieceMap,
    decode,
    encode,
    pieces_of,
)
from p2pmirror.wire.identity import NodeId

NODE = NodeId(b"n" * 20)
HONEST: dict[str, Any] = {
    "v": 1,
    "seq": 3,
    "size": 10,
    "complete": False,
    "piece_bytes": 4,
    "have": b"\xa0",
    "hashes": {0: bytes(32), 2: bytes(32)},
    "author": bytes(NODE),
    "spreads": True,
    "followers": [bytes(NODE)],
}
EMPTY: dict[str, Any] = {**HONEST, "size": None, "have": b"", "hashes": {}}

node_ids = st.binary(min_size=20, max_size=20).map(NodeId)


def document(**changes: Any) -> bytes:
    """Return what a peer sends that changes an honest map."""
    return msgspec.msgpack.encode({name: value for name, value in {**HONEST, **changes}.items() if value is not ...})


def bits(bitmap: Bitmap) -> set[int]:
    return {index for index in range(bitmap.count) if index in bitmap}


@st.composite
def maps(draw: st.DrawFn) -> PieceMap:
    """Any map that an honest agent may send."""
    size = draw(st.none() | st.integers(0, 5000))
    piece_bytes = draw(st.integers(1, 600))
    have = Bitmap(pieces_of(size or 0, piece_bytes))
    indexes = st.sets(st.integers(0, have.count - 1)) if have.count else st.just(set[int]())
    for index in draw(indexes):
        have.add(index)
    hashes = {index: bytes([index % 256]) * HASH_BYTES for index in draw(indexes)}
    followers = tuple(draw(st.lists(node_ids, max_size=FOLLOWERS_MAX)))
    author, spreads = draw(st.none() | node_ids), draw(st.booleans())
    return PieceMap(draw(st.integers(0, 2**63 - 1)), size, piece_bytes, have, hashes, author, spreads, followers)


@given(maps())
def test_what_was_sent_is_what_is_read(sent: PieceMap) -> None:
    """Every field comes out as it went in, and a map reads itself whole or not as its pieces are."""
    read = decode(encode(sent))
    assert bits(read.have) == bits(sent.have)
    assert (read.have.count, len(read.have)) == (sent.have.count, len(bits(sent.have)))
    assert read.complete == sent.complete == (sent.size is not None and len(bits(sent.have)) == sent.have.count)
    for name in ("seq", "size", "piece_bytes", "hashes", "author", "spreads", "followers"):
        assert getattr(read, name) == getattr(sent, name)


@given(st.sets(st.integers(0, 99)), st.integers(1, 100))
def test_a_bitmap_is_a_set(indexes: set[int], count: int) -> None:
    """It holds what was added, once each, the most significant bit first, and reads back what it writes."""
    bitmap, held = Bitmap(count), {index for index in indexes if index < count}
    for index in [*held, *held]:
        bitmap.add(index)
    assert bits(bitmap) == held
    assert (len(bitmap), bitmap.is_full) == (len(held), len(held) == count)
    written = "".join("1" if index in held else "0" for index in range(count)).ljust(-(-count // 8) * 8, "0")
    assert bytes(bitmap) == int(written, 2).to_bytes(len(written) // 8, "big")
    assert bits(Bitmap.read(bytes(bitmap), count)) == held


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_a_full_one(count: int) -> None:
    """It has all of them, and reads back as full; one of nothing is full from the beginning."""
    full = Bitmap.full(count)
    assert full.is_full
    assert len(full) == count
    assert Bitmap.read(bytes(full), count).is_full
    assert Bitmap(count).is_full == (count == 0)


@pytest.mark.parametrize(
    ("size", "piece_bytes", "count"),
    [(0, 4, 0), (1, 4, 1), (4, 4, 1), (5, 4, 2), (2**39, 4 << 20, PIECES_MAX), (2**63 - 1, 1, 2**63 - 1)],
)
def test_how_many_pieces_there_are(size: int, piece_bytes: int, count: int) -> None:
    """The last piece may be short; of nothing there is none."""
    assert pieces_of(size, piece_bytes) == count


def test_whose_claims_are_whose_is_told() -> None:
    """Claims of others than the author come over with their claimants; a map of an agent that tells none is read."""
    have = Bitmap.full(3)
    sent = PieceMap(1, 10, 4, have, {0: bytes(32), 2: bytes(32)}, NODE, others={NodeId(b"o" * 20): (2,)})
    assert decode(encode(sent)).others == {NodeId(b"o" * 20): (2,)}
    assert decode(document()).others == {}
    with pytest.raises(PeerMisbehaved):
        decode(document(others=[[b"short", [1]]]))


def test_the_honest_map_is_read() -> None:
    """What every lie below changes is read; what is optional may be absent, and what is not known is ignored."""
    assert bits(decode(document()).have) == {0, 2}
    assert decode(document(have=b"\xe0", complete=True)).complete
    assert not decode(msgspec.msgpack.encode(EMPTY)).complete
    bare = decode(document(author=..., spreads=..., followers=..., later="?"))
    assert (bare.author, bare.spreads, bare.followers) == (None, False, ())


@pytest.mark.parametrize(
    "lie",
    [
        {"v": 0},
        {"v": 2},
        {"v": ...},
        {"seq": -1},
        {"seq": 2**63},
        {"seq": 1.5},
        {"size": -1},
        {"size": 2**63},
        {"size": 2**63 - 1},
        {"size": 2**63 - 1, "piece_bytes": 2**31},
        {"size": 4 * PIECES_MAX + 1, "have": bytes(PIECES_MAX // 8 + 1)},
        {"size": None},
        {"size": 0},
        {"size": "10"},
        {"piece_bytes": 0},
        {"piece_bytes": -4},
        {"piece_bytes": 2**31 + 1},
        {"piece_bytes": 1},
        {"piece_bytes": 10},
        {"have": b""},
        {"have": b"\xa0\x00"},
        {"have": b"\xb0"},
        {"have": b"\xa1"},
        {"have": "\xa0"},
        {"have": None},
        {"have": b"\xe0"},
        {"complete": True},
        {"complete": True, "size": None, "have": b"", "hashes": {}},
        {"complete": False, "size": 0, "have": b"", "hashes": {}},
        {"complete": ...},
        {"hashes": {3: bytes(32)}},
        {"hashes": {-1: bytes(32)}},
        {"hashes": {2**63: bytes(32)}},
        {"hashes": {0: bytes(31)}},
        {"hashes": {0: bytes(33)}},
        {"hashes": {0: None}},
        {"hashes": {"0": bytes(32)}},
        {"hashes": [bytes(32)]},
        {"size": None, "have": b"", "hashes": {0: bytes(32)}},
        {"author": b""},
        {"author": bytes(21)},
        {"author": "n" * 20},
        {"spreads": 1},
        {"followers": [bytes(NODE)] * (FOLLOWERS_MAX + 1)},
        {"followers": [b"short"]},
        {"followers": bytes(20)},
    ],
)
def test_lies(lie: dict[str, Any]) -> None:
    """A map that contradicts itself, or counts what cannot be, is the peer's fault, and nothing else is raised."""
    with pytest.raises(PeerMisbehaved):
        decode(document(**lie))


@given(st.binary(max_size=200) | st.recursive(st.integers() | st.binary(), st.lists).map(repr).map(str.encode))
def test_anything_else_is_one_error(data: bytes) -> None:
    """Whatever bytes come, a map comes out or the peer is blamed."""
    with suppress(PeerMisbehaved):
        decode(data)


@given(maps(), st.data())
def test_a_changed_map_is_a_map_or_one_error(sent: PieceMap, data: st.DataObject) -> None:
    """A byte that is another one, or one cut off, gives a consistent map or blames the peer."""
    good = bytearray(encode(sent))
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = decode(bytes(good[: data.draw(st.integers(0, len(good)))]))
    except PeerMisbehaved:
        return
    assert read.have.count == pieces_of(read.size or 0, read.piece_bytes)
    assert all(index < read.have.count for index in read.hashes)


@pytest.mark.parametrize(
    "data",
    [
        document(size=2**63 - 1, piece_bytes=1),
        document(size=2**39, piece_bytes=4 << 20),
        b"\xdf\xff\xff\xff\xff",
        document()[:-25] + b"\xdd\xff\xff\xff\xff",
        msgspec.msgpack.encode({**HONEST, "have": 0})[:-1] + b"\xc6\xff\xff\xff\xff",
        b"\x91" * 1_000_000,
    ],
)
def test_memory_is_in_proportion_to_what_came(data: bytes) -> None:
    """Counts that promise gigabytes cost no more than what was sent, and the bitmap of the largest blob."""
    tracemalloc.start()
    try:
        with pytest.raises(PeerMisbehaved):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(data) + PIECES_MAX
    finally:
        tracemalloc.stop()

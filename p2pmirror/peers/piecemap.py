"""What an agent tells its peers about one blob that is arriving: its pieces, which of them it has, and their hashes.

Laws:
- a map that exists is consistent: as many pieces as the size takes, no bit and no hash beyond them;
- a hash is a claim of the map's author, or of whom `others` names, until the whole digest has been verified with it;
- reading costs memory in proportion to the bytes that came.

DESIGN.md section 4, "Flights and pieces". This module only thinks.
"""

from dataclasses import dataclass, field
from typing import Annotated, Final, Self

import msgspec
from msgspec import Meta, Struct

from p2pmirror.errors import PeerMisbehaved
from p2pmirror.wire.identity import NODE_ID_BYTES, NodeId

VERSION: Final = 1
HASH_BYTES: Final = 32  # sha256
PIECES_MAX: Final = 1 << 17  # 512 GiB in pieces of 4 MiB
FOLLOWERS_MAX: Final = 16  # neighbours of a flight
MAP_BYTES_MAX: Final = 8 << 20  # all hashes of `PIECES_MAX` pieces, and some


class Bitmap:
    """Which of `count` pieces there are; on the wire the most significant bit comes first."""

    __slots__ = ("_bits", "_held", "count")

    def __init__(self, count: int) -> None:
        """Begin with none."""
        self.count = count
        self._bits = bytearray((count + 7) // 8)
        self._held = 0

    @classmethod
    def full(cls, count: int) -> Self:
        """Return one that has all."""
        whole = cls(count)
        for index in range(count):
            whole.add(index)
        return whole

    @classmethod
    def read(cls, data: bytes, count: int) -> Self:
        """Read `count` bits. Raises ValueError for another length, or for bits after the last."""
        bitmap = cls(count)
        if len(data) != len(bitmap._bits):
            raise ValueError(f"{len(data)} bytes are no bitmap of {count} pieces")
        if count % 8 and data[-1] & ((1 << (8 - count % 8)) - 1):
            raise ValueError("bits after the last piece")
        bitmap._bits[:] = data
        bitmap._held = int.from_bytes(data, "big").bit_count()
        return bitmap

    def __contains__(self, index: int) -> bool:
        return 0 <= index < self.count and bool(self._bits[index >> 3] & (0x80 >> (index & 7)))

    def __len__(self) -> int:
        return self._held

    def __bytes__(self) -> bytes:
        return bytes(self._bits)

    @property
    def is_full(self) -> bool:
        """Whether none is missing."""
        return self._held == self.count

    def add(self, index: int) -> None:
        """Have a piece."""
        if index not in self:
            self._bits[index >> 3] |= 0x80 >> (index & 7)
            self._held += 1


@dataclass(slots=True)
class PieceMap:
    """One blob at one agent; `size` None: not known yet. `hashes` are those that are new since the last map.

    `others` are the claims of others than the author among them, by who claims which.
    `spreads`: it hands out what nobody else has, each piece to one asker (`Peers.next`). `followers` follow it too.
    """

    seq: int
    size: int | None
    piece_bytes: int
    have: Bitmap
    hashes: dict[int, bytes] = field(default_factory=dict)
    author: NodeId | None = None
    spreads: bool = False
    followers: tuple[NodeId, ...] = ()
    others: dict[NodeId, tuple[int, ...]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return self.size is not None and self.have.is_full


_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Hash = Annotated[bytes, Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
_Id = Annotated[bytes, Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]


class _Document(Struct, forbid_unknown_fields=False):
    """The map as it is sent."""

    v: int
    seq: _Count
    size: _Count | None
    complete: bool
    piece_bytes: Annotated[int, Meta(ge=1, le=2**31)]
    have: bytes
    hashes: dict[_Count, _Hash]
    author: _Id | None = None
    spreads: bool = False
    followers: Annotated[tuple[_Id, ...], Meta(max_length=FOLLOWERS_MAX)] = ()
    others: Annotated[tuple[tuple[_Id, tuple[_Count, ...]], ...], Meta(max_length=FOLLOWERS_MAX)] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Document)


def pieces_of(size: int, piece_bytes: int) -> int:
    """Return how many pieces a blob has."""
    return -(-size // piece_bytes)


def encode(piece_map: PieceMap) -> bytes:
    """Return a map as msgpack."""
    return _encoder.encode(
        _Document(
            VERSION,
            piece_map.seq,
            piece_map.size,
            piece_map.complete,
            piece_map.piece_bytes,
            bytes(piece_map.have),
            piece_map.hashes,
            piece_map.author,
            piece_map.spreads,
            piece_map.followers,
            tuple(piece_map.others.items())[:FOLLOWERS_MAX],
        )
    )


def decode(data: bytes) -> PieceMap:
    """Read a map. Raises `PeerMisbehaved`."""
    try:
        return _read(_decoder.decode(data))
    except (msgspec.MsgspecError, ValueError) as error:
        raise PeerMisbehaved(f"a peer's map of pieces is none: {error}") from None


def _read(document: _Document) -> PieceMap:
    if document.v != VERSION:
        raise ValueError(f"version {document.v}")
    count = pieces_of(document.size or 0, document.piece_bytes)
    if count > PIECES_MAX:
        raise ValueError(f"{count} pieces")
    have = Bitmap.read(document.have, count)
    if document.complete != (document.size is not None and have.is_full):
        raise ValueError("it says that it is complete, and its pieces say otherwise")
    if any(index >= count for index in document.hashes):
        raise ValueError("a hash of no piece")
    return PieceMap(
        document.seq,
        document.size,
        document.piece_bytes,
        have,
        document.hashes,
        None if document.author is None else NodeId(document.author),
        document.spreads,
        tuple(NodeId(each) for each in document.followers),
        {NodeId(claimant): indexes for claimant, indexes in document.others},
    )

"""One blob that is arriving, in pieces: what of it is here, who may read how far, and who is fetching what.

Laws:
- it is read up to what has come in its turn and through whole pieces, and the last 64 KiB of the blob only once the
  digest of all of it is right: no reader is ever given a clean end to wrong content;
- a piece is whole once and stays so; nobody fetches a piece that a stream is writing, and no stream enters one that is
  being fetched, nor anybody one that an earlier try has left and that is being hashed, so that nothing unverified is
  ever written over what was verified;
- a hash is somebody's claim until the digest of all of it is right, and when that is wrong the claimants are blamed;
- who sends another piece than somebody else claims is set apart: which of the two is wrong the digest will tell, or a
  second one who is contradicted by the same claim.

DESIGN.md section 4, "Flights and pieces".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pmirror.errors import MirrorError, NotHere, PeerMisbehaved
from p2pmirror.oci import Digest
from p2pmirror.peers.piecemap import Bitmap, pieces_of
from p2pmirror.resolve.spreading import Spreading
from p2pmirror.resolve.turns import Turn
from p2pmirror.routing.protocol import Key
from p2pmirror.store.cache.protocol import Incoming, Left
from p2pmirror.wire.identity import NodeId

TAIL_BYTES: Final = 64 * 1024  # withheld until the digest is known: small beside any layer that is worth keeping
BOOKS_MAX: Final = 16  # zones of which a leader keeps a book: more than a cluster has
PIECES_WANTED: Final = 128  # of a blob, unless they would be too short: 1 MiB each at 64 MiB, 2 at 256, 4 at 512
FOLLOWER_S: Final = 5.0  # a peer that asked for the map within this follows the flight


@dataclass(frozen=True, slots=True)
class PieceSizes:
    """How a blob is cut: below `whole_below_bytes` it is one piece; every node of a cluster has the same.

    A blob that is cut has pieces of `most_bytes`, or of a half, a quarter and so on of these, down to `least_bytes`,
    until there are `PIECES_WANTED`: its last pieces are elsewhere the sooner the shorter they are, and each costs some
    work, however short.
    """

    most_bytes: int = 4 << 20
    whole_below_bytes: int = 8 << 20
    least_bytes: int = 1 << 20

    def of(self, size: int) -> int:
        """Return the length of the pieces of a blob."""
        if size < self.whole_below_bytes:
            return max(1, size)
        piece_bytes = self.most_bytes
        while piece_bytes > self.least_bytes and pieces_of(size, piece_bytes) < PIECES_WANTED:
            piece_bytes //= 2
        return piece_bytes


@dataclass(eq=False)
class Flight:
    """One blob; `size` is known, and `incoming` there, once it is `opened` and has not `failed`.

    `leads`: it is fetched from a registry, or from a peer that has all of it, for whoever follows.
    """

    digest: Digest
    name: str  # registry/repository of the image for which it was asked first
    began: float  # trio's clock
    sizes: PieceSizes = field(default_factory=PieceSizes)
    size: int = 0
    size_by: NodeId | None = None  # the peer that told the length; None: a registry did, or it is not known
    doubters: set[NodeId] = field(default_factory=set)  # peers that told another one
    is_right: bool = False  # whether all of it is there and has the right digest
    failed: MirrorError | None = None
    opened: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)  # once it is right, or has failed
    incoming: Incoming | None = None
    leads: bool = False
    border: Key | None = None  # the lease under which it fetches from other zones for its own; it leads there then
    is_acknowledged: bool = False  # whether a live leader has said that it is fetching this
    is_from_registry: bool = False  # whether any of it came from there to this node
    moved: int = 0  # bytes that came, right or wrong, whole pieces or not
    readers: int = 0
    alone_since: float = 0.0  # since when nobody follows it, while `readers` is 0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    # pieces
    have: Bitmap = field(default_factory=lambda: Bitmap(0))
    seq: int = 1  # grows with every change that peers may want to know; 0: who asks knows nothing
    news: int = 1  # the `seq` of the last change that peers wait for: a piece, the length, a hash of this node's own
    author: NodeId | None = None  # whose claims are passed on here; None: this node's own
    hashes: dict[int, bytes] = field(default_factory=dict)
    claimed_by: dict[int, NodeId] = field(default_factory=dict)  # whose claim a hash is, where it is another node's
    apart: dict[NodeId, NodeId] = field(default_factory=dict)  # who sent something else than was claimed, and by whom
    refuted: frozenset[NodeId] = frozenset()  # whose claims made a wrong blob before, so that none is believed
    too_large: int | None = None  # a length that a peer told before, for which there was no room
    hashed_at: dict[int, int] = field(default_factory=dict)  # the `seq` at which a hash became known
    are_hashes_asked: bool = False
    unproven: set[int] = field(default_factory=set)  # pieces that an earlier try has left, until they have been hashed
    disproved: set[int] = field(default_factory=set)  # those that were wrong, until they are here
    resumed: int = 0  # bytes of those that were right
    fetching: dict[int, list[float]] = field(default_factory=dict)  # pieces that peers were asked for, and when
    streaming: int | None = None  # the piece that a stream is writing
    streams_from: Callable[[], Sequence[NodeId]] = tuple  # the peers of the stream, where it is one of peers
    spreadings: dict[str, Spreading] = field(default_factory=dict)  # of each zone of those who follow
    turns: dict[NodeId, Turn] = field(default_factory=dict)  # of the pieces that were given last, by who got them
    followers: dict[NodeId, float] = field(default_factory=dict)
    used: dict[NodeId, int] = field(default_factory=dict)  # peers whose bytes are in it, and how many
    streamed: set[NodeId] = field(default_factory=set)  # those of them whose bytes nobody claimed a hash of
    _changed: trio.Event = field(default_factory=trio.Event)
    _pieces_changed: trio.Event = field(default_factory=trio.Event)

    @property
    def registry(self) -> str:
        """The registry of its image."""
        return self.name.partition("/")[0]

    @property
    def repository(self) -> str:
        """The repository of its image."""
        return self.name.partition("/")[2]

    @property
    def piece_bytes(self) -> int:
        """How long its pieces are."""
        return self.sizes.of(self.size)

    @property
    def written(self) -> int:
        """How many bytes have come in their turn."""
        return 0 if self.incoming is None else self.incoming.written

    @property
    def has_all(self) -> bool:
        """Whether every piece is here, right or wrong."""
        return self.incoming is not None and self.have.is_full

    @property
    def arrived(self) -> int:
        """How many bytes are there, wherever."""
        return min(self.size, max(self.written, len(self.have) * self.piece_bytes))

    @property
    def progress(self) -> int:
        """What a leader reports: it stands still while this does."""
        return self.moved + self.resumed

    def readable_to(self, position: int) -> int:
        """Return up to where bytes from `position` on may be given out; at or before it: none now."""
        if self.is_right:
            return self.size
        end = max(position, self.written)
        index = end // self.piece_bytes
        while index < self.have.count and index in self.have:
            index += 1
            end = index * self.piece_bytes
        return min(end, self.size - TAIL_BYTES)

    def extent(self, index: int) -> tuple[int, int]:
        """Return the first byte of a piece, and how many it has."""
        offset = index * self.piece_bytes
        return offset, min(self.piece_bytes, self.size - offset)

    def begins_at(self, index: int) -> int:
        """Return the first byte of a piece that is still to come in: what came in its turn is not written again."""
        offset, count = self.extent(index)
        return self.written if offset < self.written < offset + count else offset

    def covers(self, start: int, end: int) -> bool:
        """Whether bytes `start` to `end` are in whole pieces, which a peer may be given."""
        if self.incoming is None or not 0 <= start < end <= self.size:
            return False
        return all(index in self.have for index in range(start // self.piece_bytes, -(-end // self.piece_bytes)))

    def open(self, size: int, incoming: Incoming, by: NodeId | None = None) -> None:
        """Begin to take bytes in; `by` told the length."""
        self.size, self.size_by, self.incoming = size, by, incoming
        self.have = Bitmap(pieces_of(size, self.sizes.of(size)))
        self.unproven = set(self._left(incoming.left))
        self._forget(index for index in [*self.hashes] if index >= self.have.count)
        self.seq += 1
        self.news = self.seq
        self.hashed_at = dict.fromkeys(self.hashed_at, self.seq)  # nobody was told before how many pieces there are
        self.opened.set()
        self.changed_pieces()

    def _left(self, left: Left) -> Iterator[int]:
        """Say which pieces an earlier try has left."""
        yield from range(pieces_of(max(left.prefixes, default=0), self.piece_bytes))
        yield from (offset // self.piece_bytes for offset in left.pieces)

    def prove(self, index: int, piece_hash: bytes | None = None) -> None:
        """Have a piece that an earlier try has left."""
        self.unproven.discard(index)
        self.resumed += self.extent(index)[1]
        self.add(index, piece_hash)

    def disprove(self, indexes: Iterable[int]) -> None:
        """Let pieces that an earlier try has left be fetched."""
        wrong = self.unproven.intersection(indexes)
        self.disproved |= wrong
        self.unproven -= wrong
        self.changed_pieces()

    def disputed(self, by: NodeId, size: int) -> MirrorError:
        """Take note that a peer tells another length; return what that makes of him."""
        text = f"{self.digest} has {self.size} bytes, and a peer says {size}"
        if self.size_by is None:
            return PeerMisbehaved(text)
        self.doubters.add(by)
        return NotHere(f"{text}: one of two peers is wrong, and which one will be seen")

    def missing(self, span: Iterable[int] | None = None) -> Iterator[int]:
        """Every piece that is to come, in order, or those of a span."""
        every = range(self.have.count) if span is None else span
        return (index for index in every if index not in self.have and index not in self.unproven)

    def next_for_stream(self, start: int = 0) -> int | None:
        """Return the first piece from `start` on that a stream may write."""
        return next((i for i in self.missing(range(start, self.have.count)) if i not in self.fetching), None)

    def lead(self) -> None:
        """Lead from now on; whoever waits for news hears of it, and may wait for the first byte in peace."""
        if not self.leads:
            self.leads = True
            self.seq += 1
            self.news = self.seq
            self.changed_pieces()

    def add(self, index: int, piece_hash: bytes | None = None) -> None:
        """Have a piece; with the hash that it was checked against, or with one to be computed when asked for."""
        self.have.add(index)
        self.disproved.discard(index)
        self.seq += 1
        if piece_hash is not None:
            self.know(index, piece_hash)
        self.news = self.seq
        self.changed_pieces()

    def know(self, index: int, piece_hash: bytes, by: NodeId | None = None) -> None:
        """Know the hash of a piece, as `by` claims it; None: as it was computed here. The first claim counts."""
        if index not in self.hashes:
            self.seq += 1
            self.hashes[index] = piece_hash
            self.hashed_at[index] = self.seq
            if by is None:
                self.news = self.seq
            else:
                self.claimed_by[index] = by

    def learn(self, author: NodeId, hashes: dict[int, bytes], is_around: Callable[[NodeId], bool]) -> None:
        """Take an author's claims in: where there is none, and where whoever claimed another one is not around."""
        seq = self.seq
        for index, piece_hash in hashes.items():
            if self.hashes.get(index, piece_hash) != piece_hash:
                claimant = self.claimed_by.get(index)
                if index in self.have or claimant is None or is_around(claimant):
                    continue
                self._forget([index])
            self.know(index, piece_hash, author)
        if self.seq > seq:
            self.changed_pieces()

    def contradicts(self, sender: NodeId, claimant: NodeId) -> bool:
        """Take note that a peer sent something else than another one claims; return whether he is not the first."""
        self.apart[sender] = claimant
        return list(self.apart.values()).count(claimant) > 1

    def disbelieve(self, claimant: NodeId) -> None:
        """Forget what somebody claims of pieces that are not here, and that others were set apart for it."""
        self._forget([i for i, by in self.claimed_by.items() if by == claimant and i not in self.have])
        self.apart = {sender: by for sender, by in self.apart.items() if by != claimant}
        self.changed_pieces()

    def _forget(self, indexes: Iterable[int]) -> None:
        for index in indexes:
            del self.hashes[index], self.hashed_at[index]
            self.claimed_by.pop(index, None)

    def spreading(self, zone: str) -> Spreading:
        """Return the book of what is given to nodes of a zone; zones beyond `BOOKS_MAX` share one."""
        if zone not in self.spreadings and len(self.spreadings) >= BOOKS_MAX:
            zone = ""
        return self.spreadings.setdefault(zone, Spreading())

    def follows_now(self, now: float) -> list[NodeId]:
        """Return who follows it, the latest last."""
        self.followers = {each: at for each, at in self.followers.items() if now < at + FOLLOWER_S}
        return list(self.followers)

    def goes_in_pieces_to(self, node_id: NodeId, now: float) -> bool:
        """Whether a node is to take pieces instead of all of it: since it came in pieces, or others take some."""
        came_in_pieces = bool(self.used) and not self.streamed
        return came_in_pieces or any(each != node_id for each in self.follows_now(now))

    def changed(self) -> None:
        """Wake all readers."""
        self._changed.set()
        self._changed = trio.Event()

    def changed_pieces(self) -> None:
        """Wake all readers, and whoever waits for pieces."""
        self._pieces_changed.set()
        self._pieces_changed = trio.Event()
        self.changed()

    async def wait(self) -> None:
        """Wait for the next change. Cancellation leaves nothing behind."""
        await self._changed.wait()

    async def wait_for_pieces(self) -> None:
        """Wait for the next change of pieces, hashes, or of who fetches what. Cancellation leaves nothing behind."""
        await self._pieces_changed.wait()

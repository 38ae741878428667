"""A blob that a cache is receiving.

Laws: its bytes are hashed as they are written, by the same thread; it is listed when it has its digest and is on the
disk, never before; whatever becomes of it, its readers read on; what an earlier try has left counts when it was hashed
again.
"""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from types import TracebackType
from typing import Self

from p2pmirror.oci import Digest, Hasher
from p2pmirror.store.cache.noting import Notes
from p2pmirror.store.cache.protocol import Left
from p2pmirror.store.files import Writer
from p2pmirror.wire.network import File


class CacheIncoming:
    """See `protocol.Incoming`."""

    def __init__(
        self,
        digest: Digest,
        size: int,
        writer: Writer,
        *,
        keep: Callable[["CacheIncoming"], Awaitable[None]],
        release: Callable[["CacheIncoming"], None],
        judged: Callable[[bool], None],
        notes: Notes | None = None,
        resumed: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Write to `writer`, which has room for all of it; `release` gives back what of the room is not used.

        `notes`: of what comes, and of what was there before; None: nothing is left to anybody. `resumed` is told how
        many bytes of that turned out to be right.
        """
        self.digest = digest
        self.writer = writer
        self.is_left = False  # to a later try
        self._size = size
        self._written = 0
        self._hasher = digest.hasher()
        self._keep = keep
        self._release = release
        self._judged = judged
        self._notes = notes
        self._resumed = resumed
        self._is_resumed = False
        self._kept = False
        self._released = False

    @property
    def size(self) -> int:
        """How long it will be."""
        return self._size

    @property
    def written(self) -> int:
        """How many bytes may be read."""
        return self._written

    @property
    def left(self) -> Left:
        """What an earlier try has left."""
        if self._notes is None:
            return Left()
        progress = self._notes.progress
        return Left(tuple(sorted(progress.prefixes)), tuple(sorted(progress.pieces)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released()
        try:
            await self.writer.discard()
        finally:
            if self._notes is not None:
                await self._notes.discard()

    async def leave(self) -> None:
        """Close it and leave it to whoever receives it next; where there is nothing to go on with it is discarded."""
        if self._notes is None or self._notes.are_none or self._released:
            await self.__aexit__(None, None, None)
            return
        self.is_left = True
        self.released()
        try:
            await self._notes.leave()
        finally:
            await self.writer.leave()

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write and hash the next bytes. Cancelled before it began or not at all."""
        count = memoryview(data).nbytes
        if self._written + count > self._size:
            raise ValueError(f"{self.digest} has more than its {self._size} bytes")
        await self._write_notes()
        await self.writer.write_at(self._written, data, self._hasher)
        self._written += count
        self._note_prefix()

    async def put(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes out of their turn. Cancelled before it began or not at all."""
        if offset < self._written or offset + memoryview(data).nbytes > self._size:
            raise ValueError(f"{self.digest}: byte {offset} is written already, or too much follows it")
        await self.writer.write_at(offset, data)

    async def note(self, offset: int, found: bytes) -> None:
        """Note the sha256 of a piece that was put. Cancelled, it may or may not be noted."""
        if self._notes is not None:
            self._notes.piece(offset, found.hex())
        await self._write_notes()

    async def catch_up(self, end: int) -> None:
        """Hash what was put up to `end`. Cancelled, nothing of it has happened."""
        if not self._written <= end <= self._size:
            raise ValueError(f"{self.digest}: {self._written} bytes are written, {end} cannot be")
        await self._write_notes()
        self._hasher, self._written = await self._hashed_to(end), end
        self._note_prefix()

    async def prove_to(self, end: int) -> bool:
        """Hash what was left up to `end`, and say whether it is what was noted. Cancelled, nothing has happened."""
        if self._notes is None or self._written >= end or end not in self._notes.progress.prefixes:
            raise ValueError(f"{self.digest}: nothing was left before {end}")
        hasher = await self._hashed_to(end)
        if hasher.hexdigest() != self._notes.progress.prefixes[end]:
            return False
        self._count_resumed(end - self._written)
        self._hasher, self._written = hasher, end
        return True

    async def prove_piece(self, offset: int) -> bytes | None:
        """Hash a piece that was left, and return its sha256 when it is the one that was noted."""
        if self._notes is None or offset not in self._notes.progress.pieces:
            raise ValueError(f"{self.digest}: no piece was left at {offset}")
        progress, hasher = self._notes.progress, sha256()
        await self.feed(hasher, offset, progress.count(offset))
        if hasher.hexdigest() != progress.pieces[offset]:
            return None
        self._count_resumed(progress.count(offset))
        return hasher.digest()

    async def feed(self, hasher: Hasher, offset: int, count: int) -> None:
        """Read a part back for another hasher. Raises `Unreachable`."""
        await self.writer.feed(hasher, offset, count)

    async def reader(self) -> File:
        """Open it for reading. Raises `Unreachable` when it has been closed."""
        return await self.writer.reader()

    async def is_right(self) -> bool:
        """Whether all bytes are there and have the digest."""
        right = self._is_right
        if self._written == self._size and not self._is_resumed:  # else it may be the old ones that are wrong
            self._judged(right)
        return right

    async def keep(self) -> None:
        """Put it on the disk and list it; a second time does nothing."""
        if not self._is_right:
            raise ValueError(f"{self.digest} is not what was received: {self._written} of {self._size} bytes")
        if not self._kept:
            await self._keep(self)
            self._kept = True

    def released(self) -> None:
        """Give back the room that was reserved, once."""
        if not self._released:
            self._released = True
            self._release(self)

    async def _hashed_to(self, end: int) -> Hasher:
        hasher = self._hasher.copy()
        await self.writer.feed(hasher, self._written, end - self._written)
        return hasher

    def _count_resumed(self, count: int) -> None:
        self._is_resumed = True
        self._resumed(count)

    def _note_prefix(self) -> None:
        if self._notes is not None and self._notes.progress.is_border(self._written):
            self._notes.prefix(self._written, self._hasher.hexdigest())

    async def _write_notes(self) -> None:
        if self._notes is not None:
            await self._notes.write()

    @property
    def _is_right(self) -> bool:
        return self._written == self._size and self.digest.matches(self._hasher)

"""A blob that a cache is receiving.

Laws: its bytes are hashed as they are written, by the same thread; it is listed when it has its digest and is on the
disk, never before; whatever becomes of it, its readers read on.
"""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from p2pmirror.oci import Digest, Hasher
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
    ) -> None:
        """Write to `writer`, which has room for all of it; `release` gives back what of the room is not used."""
        self.digest = digest
        self.writer = writer
        self._size = size
        self._written = 0
        self._hasher = digest.hasher()
        self._keep = keep
        self._release = release
        self._judged = judged
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released()
        await self.writer.discard()

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write and hash the next bytes. Cancelled before it began or not at all."""
        count = memoryview(data).nbytes
        if self._written + count > self._size:
            raise ValueError(f"{self.digest} has more than its {self._size} bytes")
        await self.writer.write_at(self._written, data, self._hasher)
        self._written += count

    async def put(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes out of their turn. Cancelled before it began or not at all."""
        if offset < self._written or offset + memoryview(data).nbytes > self._size:
            raise ValueError(f"{self.digest}: byte {offset} is written already, or too much follows it")
        await self.writer.write_at(offset, data)

    async def catch_up(self, end: int) -> None:
        """Hash what was put up to `end`. Cancelled, nothing of it has happened."""
        if not self._written <= end <= self._size:
            raise ValueError(f"{self.digest}: {self._written} bytes are written, {end} cannot be")
        hasher = self._hasher.copy()
        await self.writer.feed(hasher, self._written, end - self._written)
        self._hasher, self._written = hasher, end

    async def feed(self, hasher: Hasher, offset: int, count: int) -> None:
        """Read a part back for another hasher. Raises `Unreachable`."""
        await self.writer.feed(hasher, offset, count)

    async def reader(self) -> File:
        """Open it for reading. Raises `Unreachable` when it has been closed."""
        return await self.writer.reader()

    async def is_right(self) -> bool:
        """Whether all bytes are there and have the digest."""
        right = self._is_right
        if self._written == self._size:
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

    @property
    def _is_right(self) -> bool:
        return self._written == self._size and self.digest.matches(self._hasher)

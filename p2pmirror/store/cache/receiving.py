"""How a blob comes into a cache: room, a file, its bytes, its record, its name.

Laws: room is reserved before the first byte and given back once; the record is on the disk before the blob has its
name, so that what has a name is known; a half that an earlier try has left is gone on with, and what it takes counts.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

from p2pmirror.oci import Digest
from p2pmirror.store.cache.directory import CacheDirectory
from p2pmirror.store.cache.halves import Half, Halves
from p2pmirror.store.cache.incoming import CacheIncoming
from p2pmirror.store.cache.learning import Learning, entry_of
from p2pmirror.store.cache.metrics import CacheMetrics
from p2pmirror.store.cache.records import Facts, bounded
from p2pmirror.store.cache.room import Room
from p2pmirror.store.cache.shelf import Shelf
from p2pmirror.store.files import Writer

T = TypeVar("T")

log = logging.getLogger("p2pmirror.store")


class Writing(Protocol):
    """Does what may meet a full or closed disk, and says so once."""

    async def __call__(self, work: Awaitable[T]) -> T:
        """Do it. Raises `StoreFull`."""
        ...


class Receiving:
    """Receives blobs into one cache. `own` are the names of the files that are being written here."""

    def __init__(
        self,
        shelf: Shelf,
        directory: CacheDirectory,
        *,
        room: Room,
        learning: Learning,
        metrics: CacheMetrics,
        halves: Halves,
        writing: Writing,
        wall_s: Callable[[], float],
    ) -> None:
        """Nothing is being received."""
        self.own: set[str] = set()
        self._shelf = shelf
        self._directory = directory
        self._room = room
        self._learning = learning
        self._metrics = metrics
        self._halves = halves
        self._writing = writing
        self._wall_s = wall_s

    async def begin(self, digest: Digest, facts: Facts, piece_bytes: int = 0) -> CacheIncoming:
        """Reserve room and begin the file, or go on with one that was left; see `protocol.Receives.receive`.

        Raises `StoreFull`; cancellation leaves nothing behind.
        """
        return await self._writing(self._begin(digest, facts, piece_bytes))

    async def _begin(self, digest: Digest, facts: Facts, piece_bytes: int) -> CacheIncoming:
        is_noted = 0 < piece_bytes < facts.size  # one piece is whole or nothing
        async with self._room.making:
            half = await self._halves.take_over(digest, facts.size, piece_bytes) if is_noted else None
            notes = None if half is None else half.notes
            writer = await (self._begun(digest, facts.size) if half is None else self._went_on(half))
            if is_noted and notes is None:
                notes = self._halves.notes(writer, facts.size, piece_bytes)
        return CacheIncoming(
            digest,
            facts.size,
            writer,
            keep=partial(self._keep, facts),
            release=partial(self._released, writer.path.name),
            judged=self._metrics.judged,
            notes=notes,
            resumed=self._metrics.resumed.inc,
        )

    async def _begun(self, digest: Digest, size: int) -> Writer:
        await self._room.make(size)
        with self._room.reserved(size):
            writer = await self._directory.begin(digest)
            name = writer.path.name
            self.own.add(name)
            try:
                await writer.preallocate(size)
            except BaseException:
                self.own.discard(name)
                await writer.discard()
                raise
        return writer

    async def _went_on(self, half: Half) -> Writer:
        """Reserve what a half takes already. Raises `StoreFull`, and leaves it then."""
        name, size = half.writer.path.name, half.writer.size
        self._room.others.pop(name, None)
        try:
            await self._room.make(size, on_disk=size)
        except BaseException:
            self._room.others[name] = size
            await half.leave()
            raise
        self._room.reserved_bytes += size
        self.own.add(name)
        log.info("a blob of %d bytes goes on where it was left: %s", size, name)
        return half.writer

    async def _keep(self, facts: Facts, incoming: CacheIncoming) -> None:
        await self._writing(self._put(facts, incoming))

    async def _put(self, facts: Facts, incoming: CacheIncoming) -> None:
        digest, now = incoming.digest, self._wall_s()
        held = self._shelf.get(digest)
        names = bounded([*facts.names, *(held.names if held is not None else ())])
        known = held.media_type if held is not None else None
        media_type = facts.media_type or known or self._learning.type_of(digest)
        complete = Facts(facts.size, now, media_type, tuple(sorted(names)), facts.referrer)
        await self._directory.write_facts(digest, complete)
        await self._directory.commit(incoming.writer, digest)
        incoming.released()
        self._shelf.put([entry_of(digest, complete, None, now)])

    def _released(self, name: str, incoming: CacheIncoming) -> None:
        self.own.discard(name)
        self._room.release(incoming.size)
        if incoming.is_left:
            self._room.others[name] = incoming.size

"""How a blob comes into a cache: room, a file, its bytes, its record, its name.

Laws: room is reserved before the first byte and given back once; the record is on the disk before the blob has its
name, so that what has a name is known.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

from p2pmirror.oci import Digest
from p2pmirror.store.cache.directory import CacheDirectory
from p2pmirror.store.cache.incoming import CacheIncoming
from p2pmirror.store.cache.learning import Learning, entry_of
from p2pmirror.store.cache.metrics import CacheMetrics
from p2pmirror.store.cache.records import Facts, bounded
from p2pmirror.store.cache.room import Room
from p2pmirror.store.cache.shelf import Shelf

T = TypeVar("T")


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
        self._writing = writing
        self._wall_s = wall_s

    async def begin(self, digest: Digest, facts: Facts) -> CacheIncoming:
        """Reserve room and begin the file. Raises `StoreFull`; cancellation leaves nothing behind."""
        return await self._writing(self._begin(digest, facts))

    async def _begin(self, digest: Digest, facts: Facts) -> CacheIncoming:
        size = facts.size
        async with self._room.making:
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
        return CacheIncoming(
            digest,
            size,
            writer,
            keep=partial(self._keep, facts),
            release=partial(self._released, name),
            judged=self._metrics.judged,
        )

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

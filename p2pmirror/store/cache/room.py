"""Room for what is about to come: reserved before the first byte, made by letting go of what is least used.

Laws: two blobs that arrive at once never have the same room; what cannot have room changes nothing; the node's other
programs keep `free_bytes_min` of the disk.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import trio

from p2pmirror.errors import StoreFull
from p2pmirror.oci import Digest
from p2pmirror.store.cache.directory import CacheDirectory
from p2pmirror.store.cache.eviction import Rules, expired, surplus, victims
from p2pmirror.store.cache.metrics import CacheMetrics, Reason
from p2pmirror.store.cache.options import CacheOptions
from p2pmirror.store.cache.shelf import Shelf

log = logging.getLogger("p2pmirror.store")


class Room:
    """The room of one cache.

    `others` is what other processes are writing there, as of the last walk, and what was left half there, by name.
    """

    def __init__(
        self,
        shelf: Shelf,
        directory: CacheDirectory,
        *,
        rules: Rules,
        options: CacheOptions,
        metrics: CacheMetrics,
        wall_s: Callable[[], float],
    ) -> None:
        """Nothing is reserved yet."""
        self.others: dict[str, int] = {}
        self.reserved_bytes = 0
        self.free_bytes = 0  # on the disk, as of the last look
        self._shelf = shelf
        self._directory = directory
        self._rules = rules
        self._options = options
        self._metrics = metrics
        self._wall_s = wall_s
        self._making = trio.Lock()

    @property
    def making(self) -> trio.Lock:
        """Held while room is made and taken on the disk."""
        return self._making

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Reserve what `make` has made; an error gives it back, else whoever wrote calls `release`."""
        self.reserved_bytes += size
        try:
            yield
        except BaseException:
            self.release(size)
            raise

    def release(self, size: int) -> None:
        """Give reserved room back, because it is used now or no more wanted."""
        self.reserved_bytes -= size

    async def make(self, size: int, on_disk: int = 0) -> None:
        """Make room for `size` more bytes, `on_disk` of which are there already, with `making` held.

        What was left half there goes first. Raises `StoreFull`, and has changed nothing else then.
        """
        bytes_max = self._options.bytes_max
        if size > bytes_max:
            raise StoreFull(f"{size} bytes are more than the cache may have, {bytes_max}")
        must, should, short = await self._lacking(size, on_disk)
        if should and await self._remove_halves():
            must, should, short = await self._lacking(size, on_disk)
        if should:
            chosen = victims(self._shelf, self._rules, self._wall_s(), must=must, should=should)
            if chosen is None:
                raise StoreFull(f"no room for {size} bytes: what is in the cache is in use, pinned or came just now")
            await self.evict(chosen, "room")
            if short and await self._short_bytes(size - on_disk):
                raise StoreFull(f"no room for {size} bytes: the disk is full")

    async def trim(self) -> None:
        """Go down to the low mark where the high one is passed, and keep the disk's reserve; as far as may be."""
        async with self._making:
            _, should, _ = await self._lacking(0)
            if should and await self._remove_halves():
                _, should, _ = await self._lacking(0)
            if should:
                await self.evict(victims(self._shelf, self._rules, self._wall_s(), must=0, should=should) or (), "room")

    async def expire(self) -> None:
        """Let go of what nobody has asked for too long."""
        await self.evict(expired(self._shelf, self._rules, self._wall_s()), "expired")

    async def evict(self, digests: Iterable[Digest], reason: Reason) -> None:
        """Take blobs away, those that are open by now not. Raises `StoreFull` when that cannot be done."""
        chosen = [entry for digest in digests if (entry := self._shelf.get(digest)) is not None]
        if chosen:
            async with self._directory.locked():
                for entry in chosen:
                    if not entry.is_open:
                        await self._remove(entry.digest, reason)
            log.info("%d blobs left the cache: %s", len(chosen), reason)

    async def remove(self, digests: Iterable[Digest], reason: Reason) -> None:
        """Take blobs away, whoever has them open: who does reads on. Raises `StoreFull` when that cannot be done."""
        async with self._directory.locked():
            for digest in digests:
                await self._remove(digest, reason)

    async def _remove(self, digest: Digest, reason: Reason) -> None:
        self._shelf.drop([digest])
        await self._directory.remove(digest)
        self._metrics.evicted(reason)

    async def _lacking(self, size: int, on_disk: int = 0) -> tuple[int, int, int]:
        """Return how many bytes must go, how many should, and how many of those the disk lacks."""
        must, should = surplus(self._taken_bytes, size, self._options.bytes_max)
        short = await self._short_bytes(size - on_disk)
        return max(must, short), max(should, short), short

    async def _remove_halves(self) -> bool:
        """Remove what nobody is writing any more; return whether there was anything. Raises `StoreFull`."""
        gone = await self._directory.remove_abandoned() if self.others else []
        for name in gone:
            self.others.pop(name, None)
        return bool(gone)

    @property
    def _taken_bytes(self) -> int:
        return self._shelf.held_bytes + self.reserved_bytes + sum(self.others.values())

    async def _short_bytes(self, size: int) -> int:
        """Say how many bytes are missing on the disk for `size` more and the reserve."""
        free = await self._directory.free_bytes()
        if free is None:
            return 0
        self.free_bytes = free
        return max(0, size + self._options.free_bytes_min - free)

"""Keeps what is known of a cache's directory equal to what is in it, whoever changed it.

Laws: a whole record beside a blob of its size is believed, since blobs get their names after they were hashed and on
the disk; a blob of another size is removed; one without a record is hashed before it is listed, beside everything else.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

from p2pmirror.errors import NotHere, StoreFull, Unreachable
from p2pmirror.oci import Digest
from p2pmirror.store.cache.directory import CacheDirectory
from p2pmirror.store.cache.learning import Learning, entry_of, facts_of
from p2pmirror.store.cache.progress import BESIDE
from p2pmirror.store.cache.records import Facts
from p2pmirror.store.cache.room import Room
from p2pmirror.store.cache.shelf import Entry, Shelf
from p2pmirror.store.cache.tags import CacheTags
from p2pmirror.store.cache.walk import BATCH, Snapshot, Walker
from p2pmirror.store.files import Files

log = logging.getLogger("p2pmirror.store")


class Looking:
    """Looks at the directory of one cache."""

    def __init__(
        self,
        shelf: Shelf,
        directory: CacheDirectory,
        files: Files,
        *,
        room: Room,
        tags: CacheTags,
        learning: Learning,
        own: set[str],
        pinned: Callable[[frozenset[str]], Awaitable[None]],
        orphan_s: float,
        wall_s: Callable[[], float],
    ) -> None:
        """Nothing has been looked at; `own` are the names of the files that this process is writing.

        `pinned` is told the pins that are there, before the first walk counts.
        """
        self.damaged: frozenset[Digest] = frozenset()  # found by the last look to have lost their size
        self.strange: set[Digest] = set()  # blobs without a record, not hashed yet
        self._shelf = shelf
        self._directory = directory
        self._walker = Walker(directory.places, files)
        self._room = room
        self._tags = tags
        self._learning = learning
        self._own = own
        self._pinned = pinned
        self._orphan_s = orphan_s
        self._wall_s = wall_s
        self._one = trio.Lock()

    async def look(self) -> None:
        """Walk the directory and take over what is there. Raises `Unreachable`; what cannot be mended is logged."""
        async with self._one:
            begun = self._shelf.change
            found = await self._walker.walk({entry.digest: entry.record for entry in self._shelf})
            damaged = await self._take_in(found, begun)
            self.damaged = frozenset(damaged)
            known = [each for each in self._shelf if each.change <= begun]
            self._shelf.drop([each.digest for each in known if found.blobs.get(each.digest) != each.size])
            self._tags.take_in(found.tags, begun)
            self._room.others = {
                name: size for name, size in found.incoming.items() if name.removesuffix(BESIDE) not in self._own
            }
            await self._pinned(found.pins)
            self.strange = {digest for digest in found.strange if self._shelf.get(digest) is None}
            self._shelf.walked()
            self._shelf.forget_what_went(begun)
            await self._mend(found, damaged)

    async def adopt(self) -> int:
        """Hash the blobs without a record; list what is right, remove what is wrong. Returns how many were wrong.

        Raises `StoreFull`.
        """
        wrong = 0
        while self.strange:
            digest = self.strange.pop()
            if self._shelf.get(digest) is None:
                wrong += not await self._adopt(digest)
        await self._learning.recover_types()
        return wrong

    async def _take_in(self, found: Snapshot, begun: int) -> list[Digest]:
        """Show what is new or changed; return what has not the size that it must have."""
        now, damaged, fresh = self._wall_s(), [], list[Entry]()
        for number, (digest, recorded) in enumerate(found.recorded.items()):
            if number % BATCH == 0:
                self._shelf.put(fresh)
                fresh.clear()
                await trio.lowlevel.checkpoint()
            entry, facts = self._shelf.get(digest), recorded.facts
            if self._shelf.went_since(digest, begun) or (entry is not None and entry.change > begun):
                continue
            size = facts.size if facts is not None else entry.size if entry is not None else None
            if size is not None and size != found.blobs[digest]:
                damaged.append(digest)
            elif facts is not None:
                fresh.append(entry_of(digest, facts, recorded.stat, now))
        self._shelf.put(fresh)
        return damaged

    async def _mend(self, found: Snapshot, damaged: list[Digest]) -> None:
        """Remove what is damaged and records whose blob never came; write records again that somebody removed."""
        now = self._wall_s()
        try:
            if damaged:
                log.warning("%d blobs of the cache have lost their size; removed", len(damaged))
                await self._room.remove(damaged, "damaged")
            for digest, orphan in found.orphans.items():
                facts = orphan.facts or await self._directory.facts(digest)
                if facts is not None and abs(now - facts.kept_s) > self._orphan_s and self._shelf.get(digest) is None:
                    await self._directory.remove_facts(digest)
            for digest in found.strange:
                entry = self._shelf.get(digest)
                if entry is not None:
                    await self._directory.write_facts(digest, facts_of(entry))
        except StoreFull as error:
            log.warning("the cache cannot be mended: %s", error)

    async def _adopt(self, digest: Digest) -> bool:
        try:
            file = await self._directory.open(digest)
        except (NotHere, Unreachable):
            return True
        try:
            facts = await self._directory.facts(digest)
            if facts is None or facts.size != file.size:
                if await file.hash(digest.algorithm) != digest:
                    log.warning("a file in the cache is not %s, which its name says; removed", digest)
                    await self._room.remove([digest], "damaged")
                    return False
                facts = Facts(file.size, self._wall_s())
                await self._directory.write_facts(digest, facts)
            self._shelf.put([entry_of(digest, facts, None, self._wall_s())])
        except Unreachable as error:
            log.warning("%s in the cache cannot be read: %s", digest, error)
        finally:
            file.close()
        return True

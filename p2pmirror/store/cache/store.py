"""A store that can be written to: what was fetched is kept in a directory, as long as there is room.

Laws: those of `protocol` and of `store.protocol`; the directory may be wiped at any time, and others may write to it,
other agents and the `cache` commands; what cannot be written is not kept, and everything else goes on.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from math import inf
from pathlib import Path
from typing import TypeVar

import trio
from prometheus_client import CollectorRegistry

from p2pmirror.errors import MirrorError, NotHere, StoreFull, Unreachable
from p2pmirror.oci import Descriptor, Digest, TagName
from p2pmirror.store.cache.directory import CacheDirectory
from p2pmirror.store.cache.documents import Documents
from p2pmirror.store.cache.eviction import Rules
from p2pmirror.store.cache.halves import Halves
from p2pmirror.store.cache.incoming import CacheIncoming
from p2pmirror.store.cache.learning import Learning, entry_of, referrer_in
from p2pmirror.store.cache.look import Looking
from p2pmirror.store.cache.metrics import CacheMetrics, Reason
from p2pmirror.store.cache.options import CacheHooks, CacheOptions
from p2pmirror.store.cache.pinning import Pinning
from p2pmirror.store.cache.reading import ReadFile
from p2pmirror.store.cache.receiving import Receiving
from p2pmirror.store.cache.records import Facts
from p2pmirror.store.cache.removal import Removal
from p2pmirror.store.cache.room import Room
from p2pmirror.store.cache.shelf import Entry, Shelf
from p2pmirror.store.cache.tags import CacheTags
from p2pmirror.store.cache.trouble import Trouble
from p2pmirror.store.cache.upkeep import Upkeep
from p2pmirror.store.files import Files, OpenFile
from p2pmirror.store.protocol import Blob, Inventory, TagInfo

T = TypeVar("T")

PROBE = Digest.of(b"")  # the name of a file that is begun to see whether one can be, and never kept

log = logging.getLogger("p2pmirror.store")


class CacheStore:
    """The cache in one directory; see `protocol.Cache`. Works without `run` too, once `look` has been called."""

    def __init__(
        self,
        root: Path,
        files: Files,
        options: CacheOptions | None = None,
        hooks: CacheHooks | None = None,
        metrics: CacheMetrics | None = None,
    ) -> None:
        """Keep content below `root`, which is made when something is kept."""
        self._options = options or CacheOptions()
        self._hooks = hooks or CacheHooks()
        self._metrics = metrics or CacheMetrics(CollectorRegistry())
        self._wall_s = self._hooks.wall_s
        self._shelf = Shelf()
        self._directory = CacheDirectory(root, files)
        self._halves = Halves(root, files, self._options.half_s)
        self._documents = Documents(self._directory)
        self._pinning = Pinning(self._shelf, self._directory, self._documents)
        self._room = Room(
            self._shelf,
            self._directory,
            rules=self._rules(),
            options=self._options,
            metrics=self._metrics,
            wall_s=self._wall_s,
        )
        self._learning = Learning(self._shelf, self._directory, self._documents, self._wall_s)
        self._tags = CacheTags(self._shelf, self._directory, self._wall_s)
        self._receiving = Receiving(
            self._shelf,
            self._directory,
            room=self._room,
            learning=self._learning,
            metrics=self._metrics,
            halves=self._halves,
            writing=self._writing,
            wall_s=self._wall_s,
        )
        self._looking = Looking(
            self._shelf,
            self._directory,
            files,
            room=self._room,
            tags=self._tags,
            learning=self._learning,
            own=self._receiving.own,
            pinned=self._pinning.take_in,
            orphan_s=self._options.orphan_s,
            wall_s=self._wall_s,
        )
        self._removal = Removal(self._shelf, self._documents, learning=self._learning, tags=self._tags, room=self._room)
        self._trouble = Trouble()
        self._metrics.show(self._shelf, self._room, self._options.bytes_max)
        self._metrics.show_trouble(lambda: bool(self._trouble))

    # --- what is there ---

    @property
    def inventory(self) -> Inventory:
        """What is held."""
        return self._shelf.inventory

    @property
    def waiting_for(self) -> str | None:
        """That the directory has not been walked yet; a cache that cannot be written serves what it has."""
        root = self._directory.places.root
        return None if self._shelf.inventory.walked else f"the cache in {root} has not been walked yet"

    @property
    def trouble(self) -> str | None:
        """What is wrong with the directory, in plain words; None when all is well. Serving goes on meanwhile."""
        return str(self._trouble) or None

    @property
    def held_bytes(self) -> int:
        """The content that is held, in bytes."""
        return self._shelf.held_bytes

    @property
    def bytes_max(self) -> int:
        """How much content may be held."""
        return self._options.bytes_max

    @property
    def free_bytes(self) -> int:
        """Room on the file system, as of the last look."""
        return self._room.free_bytes

    @property
    def entries(self) -> list[Entry]:
        """What is known of every blob; to be read, not to be changed."""
        return list(self._shelf)

    @property
    def pins(self) -> frozenset[str]:
        """The pins that there are."""
        return self._pinning.texts

    def is_pinned(self, entry: Entry) -> bool:
        """Say whether a blob never goes by itself."""
        return self._pinning.has(entry)

    async def open(self, digest: Digest) -> Blob:
        """Open a blob, and count it as used now. Raises `NotHere`, `Unreachable`."""
        try:
            file = await self._directory.open(digest)
        except NotHere:
            self._shelf.drop([digest])  # somebody removed it
            raise
        try:
            entry = self._shelf.get(digest) or await self._unlisted(digest, file)
            if entry.size != file.size:
                await self._damaged(digest, f"{file.size} bytes instead of {entry.size}")
        except BaseException:
            file.close()
            raise
        entry.used_s = self._wall_s()
        return Blob(entry.info, ReadFile(file, entry), "cache")

    async def _unlisted(self, digest: Digest, file: OpenFile) -> Entry:
        """Take in a blob that came after the last walk; one without a record has not been hashed."""
        facts = await self._directory.facts(digest)
        if facts is None:
            raise NotHere(f"{digest} is in the cache, but has not been verified")
        if facts.size == file.size:
            self._shelf.put([entry_of(digest, facts, None, self._wall_s())])
        return self._shelf.get(digest) or entry_of(digest, facts, None, self._wall_s())

    async def _damaged(self, digest: Digest, how: str) -> None:
        log.warning("%s in the cache is damaged, it has %s; removed", digest, how)
        self._shelf.drop([digest])
        try:
            await self._room.remove([digest], "damaged")
        except StoreFull as error:
            self.complain(error)
        raise NotHere(f"{digest} in the cache is damaged")

    # --- receiving ---

    async def receive(
        self, digest: Digest, size: int, media_type: str | None, name: str, *, piece_bytes: int = 0
    ) -> CacheIncoming:
        """Reserve room for a blob and begin its file, or go on with one; see `protocol.Receives`.

        Raises `StoreFull`; cancellation leaves nothing behind.
        """
        facts = Facts(size, 0.0, media_type, (name,) if name else ())
        incoming = await self._receiving.begin(digest, facts, piece_bytes)
        self._trouble.could_write()  # a file, and it has its room
        return incoming

    async def resumes_at(self, digest: Digest, piece_bytes_of: Callable[[int], int]) -> int:
        """Return the first byte that an earlier try has not left; see `protocol.Receives`."""
        return await self._halves.resumes_at(digest, piece_bytes_of)

    async def keep_document(self, digest: Digest, media_type: str, data: bytes, name: str) -> None:
        """Keep a manifest or an index, and give its name to all that it leads to and that is here."""
        root = Descriptor(media_type, digest, len(data))
        facts = Facts(len(data), 0.0, media_type, (name,) if name else (), referrer_in(data, root))
        if not await self._has_document(root, data, name):
            async with await self._receiving.begin(digest, facts) as incoming:
                await incoming.write(data)
                await incoming.keep()
        await self._writing(self._learning.spread(root, frozenset(facts.names)))
        await self._pinning.refresh()

    async def _has_document(self, root: Descriptor, data: bytes, name: str) -> bool:
        """Whether just this is kept for this name, so that a manifest that is pulled often is written once."""
        entry = self._shelf.get(root.digest)
        if entry is None or entry.media_type != root.media_type or name not in entry.names:
            return False
        if Digest.of(data, root.digest.algorithm) != root.digest:
            raise ValueError(f"{root.digest} is not what is to be kept")
        try:
            (await self.open(root.digest)).file.close()
        except (NotHere, Unreachable):
            return False
        return True

    # --- tags ---

    async def remember_tag(self, tag: TagInfo) -> None:
        """Remember what a tag names. Raises `StoreFull`, and remembers it until a restart then."""
        await self._writing(self._tags.remember(tag))
        await self._pinning.refresh()

    async def forget_tag(self, name: TagName) -> None:
        """Forget a tag. Raises `StoreFull` when the directory cannot be changed."""
        await self._writing(self._tags.forget(name))

    def remembered(self, name: TagName) -> TagInfo | None:
        """Return what a tag was said to name, whether that is held here or not."""
        tag = self._shelf.tag(name)
        return tag.info if tag is not None else None

    # --- keeping it true ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the directory, let go of what is old or too much, until cancelled."""
        upkeep = Upkeep(
            self._shelf,
            self._directory,
            self._halves,
            room=self._room,
            tags=self._tags,
            options=self._options,
            wall_s=self._wall_s,
        )
        await upkeep.run(self, task_status=task_status)

    async def look(self) -> None:
        """Walk the directory now. What is wrong with it is `trouble`."""
        try:
            await self._looking.look()
        except Unreachable as error:
            self.complain(error)
            self._shelf.walked()
        else:
            self._trouble.could_read()

    async def probe(self) -> None:
        """Try whether the directory can be written, unless it was not so just now for want of room.

        Raises `StoreFull`. Cancellation leaves nothing behind.
        """
        if self._trouble.may_be_over:
            await (await self._directory.begin(PROBE)).discard()
            self._trouble.could_write()

    @property
    def strange(self) -> frozenset[Digest]:
        """The blobs that have no record and are still to be hashed."""
        return frozenset(self._looking.strange)

    @property
    def damaged(self) -> frozenset[Digest]:
        """What the last look found to have lost its size, and removed."""
        return self._looking.damaged

    @property
    def tags(self) -> list[TagInfo]:
        """Every tag that is remembered, whether what it stands for is here or not."""
        return [tag.info for tag in self._shelf.tags]

    async def reach(self, tag: TagInfo) -> list[Entry]:
        """Return what is here of what a tag stands for."""
        survey = await self._documents.survey([(Descriptor(tag.media_type, tag.digest, tag.size), ())])
        return [entry for digest in survey.found() if (entry := self._shelf.get(digest)) is not None]

    async def adopt(self) -> int:
        """Hash the blobs that have no record; list the right ones, remove the wrong ones; say how many were wrong."""
        return await self._writing(self._looking.adopt())

    def complain(self, error: MirrorError) -> None:
        """Say what is wrong with the directory, once until it is well again or wrong in another way."""
        self._trouble.complain(error)

    # --- by hand ---

    async def verify(self, digest: Digest) -> bool:
        """Hash a blob and say whether it is right. Raises `NotHere`, `Unreachable`."""
        file = await self._directory.open(digest)
        try:
            return await file.hash(digest.algorithm) == digest
        finally:
            file.close()

    async def remove(self, digests: Iterable[Digest], reason: Reason = "removed") -> None:
        """Remove blobs, pinned or open or not. Raises `StoreFull` when the directory cannot be changed."""
        await self._writing(self._room.remove(digests, reason))

    async def remove_image(self, name: TagName) -> list[Digest]:
        """Remove a tag and what it alone leads to; return what went. Raises `NotHere`, `StoreFull`."""
        return await self._writing(self._removal.remove_image(name))

    async def pin(self, pin: str) -> None:
        """Never let go of an image or a blob by itself; `pin` is as `canonical_pin` spells it. Raises `StoreFull`."""
        await self._writing(self._pinning.pin(pin))

    async def unpin(self, pin: str) -> None:
        """Take a pin away; what is absent is no error. Raises `StoreFull`."""
        await self._writing(self._pinning.unpin(pin))

    def _rules(self) -> Rules:
        options, hooks = self._options, self._hooks
        return Rules(
            ttl_of=hooks.ttl_of or (lambda names: options.ttl_s or inf),  # noqa: ARG005
            is_reachable=hooks.is_reachable,
            is_pinned=lambda kept: not self._shelf.inventory.walked or self._pinning.has(kept),
            age_s_min=options.age_s_min,
        )

    async def _writing(self, work: Awaitable[T]) -> T:
        """Do what may meet a full or closed disk, and say so once."""
        try:
            return await work
        except StoreFull as error:
            self._metrics.refused.inc()
            self.complain(error)
            raise

"""What tags stand for, remembered through restarts with the time at which that was said last.

Laws: in memory the time is trio's, on the disk that of the day: a clock that is set while the agent runs changes no
age; what the directory says counts when it is newer, since others write there too.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import trio

from p2pmirror.oci import Digest, TagName
from p2pmirror.store.cache.directory import CacheDirectory
from p2pmirror.store.cache.records import TagRecord
from p2pmirror.store.cache.shelf import Shelf
from p2pmirror.store.protocol import TagInfo

SAVED_S = 60.0  # how old a time of confirmation on the disk may be: with each pull a tag is confirmed


class CacheTags:
    """The tags of one cache."""

    def __init__(self, shelf: Shelf, directory: CacheDirectory, wall_s: Callable[[], float]) -> None:
        """Remember what `shelf` remembers."""
        self._shelf = shelf
        self._directory = directory
        self._wall_s = wall_s

    async def remember(self, tag: TagInfo) -> None:
        """Remember a tag; the same one again is written once in `SAVED_S`. Raises `StoreFull`."""
        confirmed_s = self._wall_s() - max(0.0, trio.current_time() - tag.since)
        old = self._shelf.tag(tag.name)
        if old is not None and _same(old.info, tag) and 0 <= confirmed_s - old.saved_s < SAVED_S:
            self._shelf.put_tag(tag, old.saved_s)
            await trio.lowlevel.checkpoint()
            return
        self._shelf.put_tag(tag, confirmed_s)
        record = TagRecord(str(tag.name), str(tag.digest), tag.media_type, tag.size, tag.confirmed, confirmed_s)
        await self._directory.write_tag(tag.name, record)

    async def forget(self, name: TagName) -> None:
        """Forget a tag. Raises `StoreFull`."""
        self._shelf.drop_tag(name)
        await self._directory.remove_tag(name)

    async def expire(self, ttl_s: float) -> None:
        """Forget tags of nothing that is held, which nobody confirmed for `ttl_s`. Raises `StoreFull`."""
        for tag in self._shelf.tags:
            if self._shelf.get(tag.info.digest) is None and trio.current_time() - tag.info.since > ttl_s:
                await self.forget(tag.info.name)

    def take_in(self, found: Mapping[TagName, tuple[Digest, TagRecord]], begun: int) -> None:
        """Take over what a walk found that began at that change of the shelf."""
        for tag in self._shelf.tags:
            if tag.info.name not in found and tag.change <= begun:
                self._shelf.drop_tag(tag.info.name)
        for name, (digest, record) in found.items():
            known = self._shelf.tag(name)
            if self._shelf.went_since(name, begun) or (known is not None and known.change > begun):
                continue
            if known is None or known.info.digest != digest or known.saved_s < record.confirmed_s:
                age_s = max(0.0, self._wall_s() - record.confirmed_s)
                since = trio.current_time() - age_s
                info = TagInfo(name, digest, record.media_type, record.size, since, confirmed=record.confirmed)
                self._shelf.put_tag(info, record.confirmed_s)


def _same(old: TagInfo, new: TagInfo) -> bool:
    return replace(old, since=new.since) == new

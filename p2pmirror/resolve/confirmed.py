"""What registries said that tags name: in the cache where there is one, else in memory."""

from collections import OrderedDict
from contextlib import suppress

import trio

from p2pmirror.errors import StoreFull
from p2pmirror.oci import Descriptor, TagName
from p2pmirror.store.cache.protocol import Cache
from p2pmirror.store.protocol import TagInfo

KEPT_MAX = 4096  # tags remembered without a cache, some 300 bytes each


class Confirmed:
    """Tags that a registry confirmed, and when."""

    def __init__(self, cache: Cache | None) -> None:
        """Remember in `cache`."""
        self._cache = cache
        self._kept: OrderedDict[TagName, TagInfo] = OrderedDict()

    def get(self, name: TagName) -> TagInfo | None:
        """Return what was confirmed last."""
        kept = self._kept.get(name)
        if kept is not None or self._cache is None:
            return kept
        found = self._cache.inventory.tag(name)
        return found if found is not None and found.confirmed else None

    async def remember(self, name: TagName, said: Descriptor) -> None:
        """Take in what a registry says a tag names now."""
        info = TagInfo(name, said.digest, said.media_type, said.size, trio.current_time(), confirmed=True)
        if self._cache is not None:
            try:
                await self._cache.remember_tag(info)
            except StoreFull:
                pass
            else:
                self._kept.pop(name, None)
                return
        self._kept[name] = info
        self._kept.move_to_end(name)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    async def forget(self, name: TagName) -> None:
        """Take in that a registry says that a tag is gone."""
        self._kept.pop(name, None)
        if self._cache is not None:
            with suppress(StoreFull):
                await self._cache.forget_tag(name)

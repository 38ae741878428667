"""The list of what a store holds, with a version that readers compare instead of listening to events.

Only the store that owns an inventory changes it, in one step each time, so that a reader who compares versions sees
every state that lasted and misses none that is current.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import trio

from p2pmirror.oci import Descriptor, Digest, TagName
from p2pmirror.store.protocol import BlobInfo, Inventory, TagInfo


class HeldInventory:
    """The inventory that one store writes; see `protocol.Inventory` for reading it."""

    def __init__(self) -> None:
        """Start empty, at version 0, not walked."""
        self._blobs: dict[Digest, BlobInfo] = {}
        self._tags: dict[TagName, TagInfo] = {}
        self._referrers: dict[Digest, dict[Digest, Descriptor]] = {}
        self._walked = False
        self._version = 0
        self._changed = trio.Event()

    @property
    def version(self) -> int:
        """Grows with every change."""
        return self._version

    @property
    def walked(self) -> bool:
        """Whether the store has been walked once."""
        return self._walked

    def blob(self, digest: Digest) -> BlobInfo | None:
        """Return what is known of a held blob."""
        return self._blobs.get(digest)

    def tag(self, name: TagName) -> TagInfo | None:
        """Return what a tag names here."""
        return self._tags.get(name)

    def blobs(self) -> Iterable[BlobInfo]:
        """Every held blob."""
        return self._blobs.values()

    def tags(self) -> Iterable[TagInfo]:
        """Every held tag."""
        return self._tags.values()

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """Held manifests that name `subject`, sorted by digest."""
        found = self._referrers.get(subject, {})
        return tuple(found[digest] for digest in sorted(found) if digest in self._blobs)

    async def changed(self, since: int) -> int:
        """Wait until the version differs from `since`; return it."""
        while self._version == since:
            await self._changed.wait()
        return self._version

    def replace(
        self,
        blobs: Iterable[BlobInfo],
        tags: Iterable[TagInfo],
        referrers: Iterable[tuple[Digest, Descriptor]] = (),
    ) -> None:
        """Make the result of a whole walk the inventory; a tag that still names the same keeps its `since`."""
        new_blobs = {info.digest: info for info in blobs}
        new_tags = {info.name: self._same_or(info) for info in tags}
        new_referrers: dict[Digest, dict[Digest, Descriptor]] = {}
        for subject, descriptor in referrers:
            new_referrers.setdefault(subject, {})[descriptor.digest] = descriptor
        if (new_blobs, new_tags, new_referrers) != (self._blobs, self._tags, self._referrers) or not self._walked:
            self._blobs, self._tags, self._referrers = new_blobs, new_tags, new_referrers
            self._walked = True
            self._bump()

    def update(
        self,
        *,
        blobs: Iterable[BlobInfo] = (),
        tags: Iterable[TagInfo] = (),
        gone_blobs: Iterable[Digest] = (),
        gone_tags: Iterable[TagName] = (),
        referrers: Iterable[tuple[Digest, Descriptor]] = (),
    ) -> None:
        """Add and drop in one step; dropping what is not listed does no harm."""
        before = self._version
        for info in blobs:
            if self._blobs.get(info.digest) != info:
                self._blobs[info.digest] = info
                self._version += 1
        for tag in tags:
            kept = self._same_or(tag)
            if self._tags.get(tag.name) != kept:
                self._tags[tag.name] = kept
                self._version += 1
        for digest in gone_blobs:
            self._version += self._blobs.pop(digest, None) is not None
        for name in gone_tags:
            self._version += self._tags.pop(name, None) is not None
        for subject, descriptor in referrers:
            listed = self._referrers.setdefault(subject, {})
            if listed.get(descriptor.digest) != descriptor:
                listed[descriptor.digest] = descriptor
                self._version += 1
        if self._version != before:
            self._wake()

    def confirm(self, info: TagInfo) -> None:
        """Give a listed tag that still names the same a later `since`; nobody is woken, since nothing else differs."""
        listed = self._tags.get(info.name)
        if listed is not None and replace(listed, since=info.since) == info:
            self._tags[info.name] = info

    def _same_or(self, info: TagInfo) -> TagInfo:
        """Return the tag as it is listed when only the moment of learning differs."""
        old = self._tags.get(info.name)
        if old is not None and (old.digest, old.media_type, old.size, old.confirmed) == (
            info.digest,
            info.media_type,
            info.size,
            info.confirmed,
        ):
            return old
        return info

    def _bump(self) -> None:
        self._version += 1
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class UnionInventory:
    """Several inventories read as one: names are those of all parts, the rest is from the first part that knows."""

    def __init__(self, parts: Sequence[Inventory]) -> None:
        """Read `parts` in this order."""
        self._parts = tuple(parts)

    @property
    def version(self) -> int:
        """Grows with every change of any part."""
        return sum(part.version for part in self._parts)

    @property
    def walked(self) -> bool:
        """Whether every part has been walked."""
        return all(part.walked for part in self._parts)

    def blob(self, digest: Digest) -> BlobInfo | None:
        """Return what the parts know of a held blob, put together."""
        found = [info for part in self._parts if (info := part.blob(digest)) is not None]
        return _together(found) if found else None

    def tag(self, name: TagName) -> TagInfo | None:
        """Return what a registry confirmed, as the first part has it that knows; else what the first part says."""
        known = [info for part in self._parts if (info := part.tag(name)) is not None]
        return min(known, key=_is_local, default=None)

    def blobs(self) -> Iterable[BlobInfo]:
        """Every blob held in any part, once."""
        found: dict[Digest, list[BlobInfo]] = {}
        for part in self._parts:
            for info in part.blobs():
                found.setdefault(info.digest, []).append(info)
        return [_together(infos) for infos in found.values()]

    def tags(self) -> Iterable[TagInfo]:
        """Every tag held in any part, once."""
        known = [info for part in reversed(self._parts) for info in part.tags()]
        return {info.name: info for info in sorted(known, key=_is_local, reverse=True)}.values()

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """Held manifests that name `subject`, of all parts, sorted by digest."""
        found = {each.digest: each for part in reversed(self._parts) for each in part.referrers(subject)}
        return tuple(found[digest] for digest in sorted(found))

    async def changed(self, since: int) -> int:
        """Wait until any part has changed since the sum of versions was `since`; return the sum."""
        while self.version == since:
            async with trio.open_nursery() as nursery:
                if not self._parts:
                    await trio.sleep_forever()

                async def watch(part: Inventory, seen: int) -> None:
                    await part.changed(seen)
                    nursery.cancel_scope.cancel()

                for part in self._parts:
                    nursery.start_soon(watch, part, part.version)
        return self.version


def _is_local(info: TagInfo) -> bool:
    return not info.confirmed


def _together(infos: Sequence[BlobInfo]) -> BlobInfo:
    """Put together what several parts know of one blob."""
    if len(infos) == 1:
        return infos[0]
    media_type = next((info.media_type for info in infos if info.media_type is not None), None)
    return BlobInfo(infos[0].digest, infos[0].size, media_type, frozenset().union(*(info.names for info in infos)))

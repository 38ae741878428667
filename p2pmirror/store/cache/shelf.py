"""What a cache has, in memory, and the inventory that is computed from it.

Laws: one place changes both, in one step; a tag is listed while what it stands for is; every change has a number, so
that a walk that began before it does not undo it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from p2pmirror.oci import Descriptor, Digest, TagName
from p2pmirror.store.files import Stat
from p2pmirror.store.inventory import HeldInventory
from p2pmirror.store.protocol import BlobInfo, TagInfo


@dataclass(slots=True, eq=False)
class Entry:
    """One blob that is held. Times are those of the day, in seconds."""

    digest: Digest
    size: int
    media_type: str | None
    names: frozenset[str]
    kept_s: float
    used_s: float
    referrer: tuple[Digest, Descriptor] | None = None
    record: Stat | None = None  # the state of its record when it was read; None: to be read again
    saved_s: float = 0.0  # the last use that is on the disk
    change: int = 0
    readers: int = 0
    counted: int = 0  # of its bytes in the shelf's sum

    @property
    def is_open(self) -> bool:
        """Whether somebody reads it now."""
        return self.readers > 0

    @property
    def info(self) -> BlobInfo:
        """What the inventory says of it."""
        return BlobInfo(self.digest, self.size, self.media_type, self.names)

    def take_over(self, new: "Entry") -> None:
        """Become what `new` says; readers stay, for they hold this one."""
        self.size, self.media_type, self.names, self.kept_s = new.size, new.media_type, new.names, new.kept_s
        self.used_s = max(self.used_s, new.used_s)
        self.referrer, self.record, self.saved_s = new.referrer, new.record, new.saved_s


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag that is remembered; `saved_s` is the time of confirmation on the disk, seconds since 1970."""

    info: TagInfo
    saved_s: float
    change: int

    @property
    def descriptor(self) -> Descriptor:
        """What the tag stands for."""
        return Descriptor(self.info.media_type, self.info.digest, self.info.size)


@dataclass(slots=True)
class Shelf:
    """The content and the tags; `held_bytes` is the sum of the sizes."""

    inventory: HeldInventory = field(default_factory=HeldInventory)
    held_bytes: int = 0
    change: int = 0
    _entries: dict[Digest, Entry] = field(default_factory=dict)
    _tags: dict[TagName, Tag] = field(default_factory=dict)
    _named: dict[Digest, set[TagName]] = field(default_factory=dict)
    _gone: dict[Digest | TagName, int] = field(default_factory=dict)

    def get(self, digest: Digest) -> Entry | None:
        """Return what is known of a held blob."""
        return self._entries.get(digest)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def tag(self, name: TagName) -> Tag | None:
        """Return a remembered tag, whether what it stands for is held or not."""
        return self._tags.get(name)

    @property
    def tags(self) -> list[Tag]:
        """Every remembered tag."""
        return list(self._tags.values())

    def put(self, entries: Iterable[Entry]) -> None:
        """Add blobs, or show what has changed of them."""
        shown = []
        for new in entries:
            entry = self._entries.setdefault(new.digest, new)
            if entry is not new:
                entry.take_over(new)
            self.change += 1
            entry.change = self.change
            self.held_bytes += entry.size - entry.counted
            entry.counted = entry.size
            shown.append(entry)
        self.inventory.update(
            blobs=[entry.info for entry in shown],
            tags=[self._tags[name].info for entry in shown for name in self._named.get(entry.digest, ())],
            referrers=[entry.referrer for entry in shown if entry.referrer is not None],
        )

    def drop(self, digests: Iterable[Digest]) -> None:
        """Take blobs away; what is absent is no error."""
        gone: list[Digest] = []
        tags: list[TagName] = []
        for digest in digests:
            entry = self._entries.pop(digest, None)
            if entry is not None:
                self.change += 1
                self._gone[digest] = self.change
                self.held_bytes -= entry.size
                gone.append(digest)
                tags += self._named.get(digest, ())
        self.inventory.update(gone_blobs=gone, gone_tags=tags)

    def put_tag(self, info: TagInfo, saved_s: float) -> None:
        """Remember a tag."""
        self._unname(info.name)
        self.change += 1
        self._tags[info.name] = Tag(info, saved_s, self.change)
        self._named.setdefault(info.digest, set()).add(info.name)
        if info.digest in self._entries:
            self.inventory.update(tags=[info])
            self.inventory.confirm(info)
        else:
            self.inventory.update(gone_tags=[info.name])

    def drop_tag(self, name: TagName) -> None:
        """Forget a tag; what is absent is no error."""
        self._unname(name)
        if self._tags.pop(name, None) is not None:
            self.change += 1
            self._gone[name] = self.change
            self.inventory.update(gone_tags=[name])

    def went_since(self, subject: Digest | TagName, change: int) -> bool:
        """Say whether a blob or a tag was taken away after that change."""
        return self._gone.get(subject, 0) > change

    def forget_what_went(self, change: int) -> None:
        """Drop what was noted of removals up to that change: no walk is left that began before."""
        self._gone = {subject: number for subject, number in self._gone.items() if number > change}

    def walked(self) -> None:
        """Say that the inventory is whole."""
        inventory = self.inventory
        if not inventory.walked:
            referrers = [entry.referrer for entry in self if entry.referrer is not None]
            inventory.replace(list(inventory.blobs()), list(inventory.tags()), referrers)

    def _unname(self, name: TagName) -> None:
        old = self._tags.get(name)
        if old is not None:
            named = self._named[old.info.digest]
            named.discard(name)
            if not named:
                del self._named[old.info.digest]

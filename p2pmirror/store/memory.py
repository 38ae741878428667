"""A store whose content is in memory: the twin of the real ones, for tests and simulations."""

from collections.abc import Iterable, Mapping

import trio

from p2pmirror.errors import NotHere
from p2pmirror.oci import Descriptor, Digest, TagName
from p2pmirror.oci.mediatype import OCTET_STREAM
from p2pmirror.store.inventory import HeldInventory
from p2pmirror.store.protocol import Blob, BlobInfo, Inventory, TagInfo
from p2pmirror.store.survey import Survey


class MemoryFile:
    """Bytes with the manners of a file; see `wire.network.File`."""

    def __init__(self, data: bytes) -> None:
        """Serve `data`."""
        self._data = data
        self.closed = False

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self._data)

    def fileno(self) -> int | None:
        """Return None: there is no descriptor."""
        return None

    async def read_at(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`, fewer at the end."""
        await trio.lowlevel.checkpoint()
        return self._data[offset : offset + max(0, count)]

    def close(self) -> None:
        """Let go of it."""
        self.closed = True


class MemoryStore:
    """Content and tags that the owner puts in and drops; the inventory follows at once.

    `walked` from the start unless `walked=False`; then from the first `put` or `drop` on. `waiting_for` may be set.
    """

    def __init__(self, *, walked: bool = True) -> None:
        """Start empty."""
        self.waiting_for: str | None = None
        self._content: dict[Digest, tuple[bytes, str | None]] = {}
        self._tags: dict[TagName, TagInfo] = {}
        self._inventory = HeldInventory()
        if walked:
            self._settle()

    @property
    def inventory(self) -> Inventory:
        """What is held."""
        return self._inventory

    async def open(self, digest: Digest) -> Blob:
        """Open content. Raises `NotHere`."""
        await trio.lowlevel.checkpoint()
        held = self._content.get(digest)
        if held is None:
            raise NotHere(f"{digest} is not in memory")
        info = self._inventory.blob(digest) or BlobInfo(digest, len(held[0]), held[1])
        return Blob(info, MemoryFile(held[0]))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have nothing to do until cancelled."""
        task_status.started()
        await trio.sleep_forever()

    def put(
        self,
        content: Mapping[Digest, tuple[bytes, str | None]],
        tags: Mapping[TagName, Digest] | None = None,
        *,
        since: float = 0.0,
        confirmed: bool = False,
    ) -> None:
        """Add content (bytes and media type) and tags of content that is held or added; nothing is verified here."""
        self._content.update(content)
        for name, digest in (tags or {}).items():
            data, media_type = self._content[digest]
            self._tags[name] = TagInfo(name, digest, media_type or OCTET_STREAM, len(data), since, confirmed)
        self._settle()

    def put_blob(self, data: bytes, media_type: str | None = None) -> Digest:
        """Add one blob; return its digest."""
        digest = Digest.of(data)
        self.put({digest: (data, media_type)})
        return digest

    def drop(self, digests: Iterable[Digest] = (), tags: Iterable[TagName] = ()) -> None:
        """Remove content, with the tags that name it, and tags; what is absent is no error."""
        for digest in digests:
            self._content.pop(digest, None)
        for name in tags:
            self._tags.pop(name, None)
        self._tags = {name: info for name, info in self._tags.items() if info.digest in self._content}
        self._settle()

    def _settle(self) -> None:
        survey = self._survey()
        found = survey.found()
        blobs = [
            BlobInfo(digest, len(data), media_type, frozenset(found[digest].names) if digest in found else frozenset())
            for digest, (data, media_type) in self._content.items()
        ]
        self._inventory.replace(blobs, self._tags.values(), survey.referrers)

    def _survey(self) -> Survey:
        """Survey all content: every manifest is a root, the tagged ones have names."""
        tags: dict[Digest, list[TagName]] = {}
        for name, info in self._tags.items():
            tags.setdefault(info.digest, []).append(name)
        survey = Survey(
            (Descriptor(media_type, digest, len(data)), tags.get(digest, ()))
            for digest, (data, media_type) in self._content.items()
            if media_type is not None
        )
        while reads := survey.next_reads():
            for descriptor in reads:
                survey.answered(descriptor, self._content.get(descriptor.digest, (None, None))[0])
        return survey

"""A cache's directory: each change to it as a whole.

Laws: a blob's record is on the disk before the blob has its name, and goes after it; everything here may be removed by
anybody at any time: directories that are missing are made again.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.oci import Digest, TagName
from p2pmirror.store.cache.records import RECORD_BYTES_MAX, Facts, PinRecord, Places, TagRecord, encode, read_facts
from p2pmirror.store.files import Files, NotWritable, OpenFile, Writer
from p2pmirror.store.newfile import INCOMING, begin, replace


class CacheDirectory:
    """One cache's directory on the disk."""

    def __init__(self, root: Path, files: Files) -> None:
        """Nothing is made before something is written."""
        self.places = Places(root)
        self._files = files

    # --- reading ---

    async def marks(self) -> list[int | None]:
        """Return numbers that change when anything comes or goes."""
        return await self._files.marks(self.places.watched)

    async def free_bytes(self) -> int | None:
        """Return how much more may be written there; None when nobody can tell."""
        for directory in (self.places.root, *self.places.root.parents):
            try:
                return await self._files.free_bytes(directory)
            except NotHere:
                continue
            except Unreachable:
                return None
        return None

    async def facts(self, digest: Digest) -> Facts | None:
        """Read one blob's record."""
        (data,) = await self._files.read_many([self.places.facts(digest)], RECORD_BYTES_MAX)
        return read_facts(data)

    async def open(self, digest: Digest) -> OpenFile:
        """Open content. Raises `NotHere`, `Unreachable`."""
        return await self._files.open(self.places.blob(digest))

    # --- writing ---

    async def prepare(self) -> None:
        """Make the directories that are missing. Raises `StoreFull`."""
        for directory in (self.places.root, *self.places.watched):
            await self._files.make_directory(directory)

    async def begin(self, digest: Digest) -> Writer:
        """Begin a file for content. Raises `StoreFull`."""
        try:
            return await begin(self._files, self.places.root, digest.hex)
        except NotWritable:
            await self.prepare()
            return await begin(self._files, self.places.root, digest.hex)

    async def commit(self, writer: Writer, digest: Digest) -> None:
        """Put content on the disk and give it its name. Raises `StoreFull`."""
        path = self.places.blob(digest)
        try:
            await writer.commit(path)
        except (NotWritable, NotHere):
            await self.prepare()
            with _missing_is_not_writable(path):
                await writer.commit(path)

    async def write_facts(self, digest: Digest, facts: Facts) -> None:
        """Put a blob's record on the disk. Raises `StoreFull`."""
        await self._replace(self.places.facts(digest), encode(facts))

    async def write_tag(self, name: TagName, record: TagRecord) -> None:
        """Put a tag on the disk. Raises `StoreFull`."""
        await self._replace(self.places.tag(name), encode(record))

    async def write_pin(self, pin: str) -> None:
        """Put a pin on the disk. Raises `StoreFull`."""
        await self._replace(self.places.pin(pin), encode(PinRecord(pin)))

    async def remove(self, digest: Digest) -> None:
        """Remove a blob and its record. Raises `NotWritable`."""
        await self._files.unlink(self.places.blob(digest))
        await self._files.unlink(self.places.facts(digest))

    async def remove_facts(self, digest: Digest) -> None:
        """Remove a record whose blob never came. Raises `NotWritable`."""
        await self._files.unlink(self.places.facts(digest))

    async def remove_tag(self, name: TagName) -> None:
        """Remove a tag. Raises `NotWritable`."""
        await self._files.unlink(self.places.tag(name))

    async def remove_pin(self, pin: str) -> None:
        """Remove a pin. Raises `NotWritable`."""
        await self._files.unlink(self.places.pin(pin))

    async def touch(self, used_s: Mapping[Digest, float]) -> None:
        """Note when blobs were used last, by the time of day."""
        await self._files.touch({self.places.facts(digest): when_s for digest, when_s in used_s.items()})

    async def remove_abandoned(self) -> list[str]:
        """Remove what writers that died have left. Raises `StoreFull`."""
        return await self._files.remove_abandoned(self.places.root, INCOMING)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Hold the lock against other processes, for a change of what they change too. Raises `StoreFull`."""
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._files.locked(self.places.lock))
            except NotWritable:
                await self.prepare()
                await stack.enter_async_context(self._files.locked(self.places.lock))
            yield

    async def _replace(self, path: Path, data: bytes) -> None:
        try:
            await replace(self._files, path, data, beside=self.places.root)
        except (NotWritable, NotHere):
            await self.prepare()
            with _missing_is_not_writable(path):
                await replace(self._files, path, data, beside=self.places.root)


@contextmanager
def _missing_is_not_writable(path: Path) -> Iterator[None]:
    try:
        yield
    except NotHere as error:
        raise NotWritable(f"{path} cannot be written, something removed it meanwhile: {error}") from error

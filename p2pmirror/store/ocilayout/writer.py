"""Writing a directory in OCI image layout, while others read and write it too.

Laws: a blob has its name only after its size and digest were verified and it is on the disk; `index.json` is replaced
whole, by one writer at a time (a lock file); a crash at any point leaves the old index or the new one, and at most
files that nobody reads, which the next writer removes.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from p2pmirror.errors import BadRequest, MirrorError, NotHere
from p2pmirror.oci import Descriptor, Digest, Invalid, TagName
from p2pmirror.oci.manifest import DOCUMENT_BYTES_MAX
from p2pmirror.store.files import Files, NotWritable, Writer
from p2pmirror.store.newfile import INCOMING, begin, replace
from p2pmirror.store.ocilayout.index import (
    EMPTY_INDEX,
    INDEX_NAME,
    MARKER,
    MARKER_BYTES_MAX,
    MARKER_NAME,
    blob_path,
    can_be_tagged,
    check_marker,
    with_tag,
    without_tag,
)

LOCK_NAME: Final = "index.json.lock"


class WrongContent(MirrorError):
    """What was written is not what its digest and size say."""


class Sink:
    """Takes the bytes of one blob, in order."""

    def __init__(self, writer: Writer, digest: Digest, size: int) -> None:
        """Write to `writer`; at most `size` bytes."""
        self._writer = writer
        self._digest = digest
        self._size = size

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append bytes. Raises `WrongContent` when they are more than was said, `StoreFull`."""
        if self._writer.size + memoryview(chunk).nbytes > self._size:
            raise WrongContent(f"{self._digest} has more than its {self._size} bytes")
        await self._writer.append(chunk)

    async def verify(self) -> None:
        """Raise `WrongContent` unless everything that was written is the blob."""
        if self._writer.size != self._size:
            raise WrongContent(f"{self._digest} has {self._writer.size} of its {self._size} bytes")
        if await self._writer.hash(self._digest.algorithm) != self._digest:
            raise WrongContent(f"{self._digest} does not have the content that its name says")


class LayoutWriter:
    """Writes into a layout, which is created by the first write when it is absent; several may write at once."""

    def __init__(self, directory: Path, files: Files) -> None:
        """Write below `directory`."""
        self._directory = directory
        self._files = files
        self._ready = False
        self._preparing = trio.Lock()

    async def prepare(self) -> None:
        """Make an empty layout where there is none, and clean up after writers that died; once. Raises `StoreFull`."""
        async with self._preparing:
            if not self._ready:
                await self._files.make_directory(self._directory)
                await self._files.remove_abandoned(self._directory, INCOMING)
                async with self._files.locked(self._directory / LOCK_NAME):
                    await self._make_if_absent(INDEX_NAME, EMPTY_INDEX)
                    await self._make_if_absent(MARKER_NAME, MARKER)
                await self._check()
                self._ready = True

    @asynccontextmanager
    async def blob(self, digest: Digest, size: int) -> AsyncIterator[Sink]:
        """Write one blob of `size` bytes; leaving the block verifies it, puts it on the disk and gives it its name.

        Raises `WrongContent`, `StoreFull`. An error, cancellation too, leaves nothing behind.
        """
        await self.prepare()
        async with await begin(self._files, self._directory, digest.hex) as writer:
            sink = Sink(writer, digest, size)
            yield sink
            await sink.verify()
            path = blob_path(self._directory, digest)
            await self._files.make_directory(path.parent)
            await writer.commit(path)

    async def tag(self, name: TagName, descriptor: Descriptor) -> None:
        """Make the tag stand for a blob that the layout has.

        Raises `NotHere`, `StoreFull`, `Unreachable`; `BadRequest` for a registry that no reader would take for one.
        """
        if not can_be_tagged(name):
            raise BadRequest(f"{name} has no registry that can be told from a repository: a dot, a port or localhost")
        await self.prepare()
        (held,) = await self._files.stat([blob_path(self._directory, descriptor.digest)])
        if held is None:
            raise NotHere(f"{descriptor.digest} is not in {self._directory}, so {name} cannot stand for it")
        await self._edit(lambda data: with_tag(data, name, descriptor))

    async def untag(self, name: TagName) -> None:
        """Take the tag away; its content stays on the disk. Raises `StoreFull`, `Unreachable`."""
        await self.prepare()
        await self._edit(lambda data: without_tag(data, name))

    async def _edit(self, change: Callable[[bytes], bytes]) -> None:
        path = self._directory / INDEX_NAME
        async with self._files.locked(self._directory / LOCK_NAME):
            old = await self._files.read_whole(path, DOCUMENT_BYTES_MAX)
            try:
                new = change(old)
            except Invalid as error:
                raise NotWritable(f"{path} stays as it is, since it is or would be broken: {error}") from error
            await replace(self._files, path, data=new, beside=self._directory)

    async def _make_if_absent(self, name: str, data: bytes) -> None:
        (held,) = await self._files.stat([self._directory / name])
        if held is None:
            await replace(self._files, self._directory / name, data=data, beside=self._directory)

    async def _check(self) -> None:
        path = self._directory / MARKER_NAME
        try:
            check_marker(await self._files.read_whole(path, MARKER_BYTES_MAX))
        except Invalid as error:
            raise NotWritable(f"{self._directory} is not a layout that can be written: {error}") from error

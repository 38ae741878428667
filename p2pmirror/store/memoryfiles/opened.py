"""Open files in memory, read or being written."""

from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.oci import Digest, Hasher
from p2pmirror.store.files import NotWritable, Stat
from p2pmirror.store.memoryfiles.disk import Content, Disk


class MemoryOpenFile:
    """A file in memory opened for reading; see `files.OpenFile`."""

    def __init__(self, disk: Disk, path: Path, content: Content) -> None:
        """Read `content`, at most what it has now."""
        self._disk = disk
        self._path = path
        self._content = content
        self._size = len(content.now)

    @property
    def size(self) -> int:
        """Length in bytes when it was opened."""
        return self._size

    def fileno(self) -> int | None:
        """Return None: there is no descriptor."""
        return None

    def stat(self) -> Stat:
        """Return the file's present state."""
        return self._content.stat()

    async def read_at(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`; `Unreachable` when the file has become shorter or unreadable."""
        await self._disk.step()
        self._disk.check_readable(self._path)
        count = max(0, min(count, self._size - offset))
        data = bytes(self._content.now[offset : offset + count])
        if len(data) < count:
            raise Unreachable(f"{self._path} ends before its {self._size} bytes")
        return data

    async def hash(self, algorithm: str = "sha256") -> Digest:
        """Return the digest of the whole file."""
        return Digest.of(await self.read_at(0, self._size), algorithm)

    async def feed(self, hasher: Hasher, offset: int, count: int) -> None:
        """Feed a part to `hasher`."""
        data = await self.read_at(offset, count)
        if len(data) < count:
            raise Unreachable(f"{self._path} ends before byte {offset + count}")
        hasher.update(data)

    def close(self) -> None:
        """Let go of it."""


class MemoryWriter:
    """A file being written in memory; see `files.Writer`."""

    def __init__(self, disk: Disk, path: Path, content: Content) -> None:
        """Lock and write `content`, which has the name `path`."""
        content.holder = self
        self._disk = disk
        self._content = content
        self._path = path
        self._committed = False

    @property
    def path(self) -> Path:
        """The name it has now."""
        return self._path

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self._content.now)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.discard()

    async def preallocate(self, size: int) -> None:
        """Make sure of room for `size` bytes."""
        await self._changing()
        await trio.sleep(self._disk.room_s())
        self._grow(size)

    async def write_at(self, offset: int, data: bytes | bytearray | memoryview, hasher: Hasher | None = None) -> None:
        """Write all of `data` at `offset`, and hash it."""
        raw = bytes(data)
        await self._changing()
        self._grow(offset + len(raw))
        self._content.now[offset : offset + len(raw)] = raw
        self._content.mtime_ns = self._disk.stamp()
        if hasher is not None:
            hasher.update(raw)

    async def append(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` at the end."""
        await self.write_at(self.size, data)

    async def hash(self, algorithm: str = "sha256") -> Digest:
        """Return the digest of everything written."""
        await self._disk.step()
        return Digest.of(bytes(self._content.now), algorithm)

    async def feed(self, hasher: Hasher, offset: int, count: int) -> None:
        """Feed a part of what was written to `hasher`."""
        with closing(await self.reader()) as reader:
            await reader.feed(hasher, offset, count)

    async def reader(self) -> MemoryOpenFile:
        """Open it for reading."""
        await self._disk.step()
        if not self._is_open:
            raise Unreachable(f"{self._path} has been closed")
        return MemoryOpenFile(self._disk, self._path, self._content)

    async def fsync(self) -> None:
        """Put the content on the disk."""
        await self._changing()
        self._content.durable = bytes(self._content.now)

    async def commit(self, path: Path) -> None:
        """Content to the disk, the new name, the name to the disk."""
        await self.fsync()
        if self._disk.entries.get(self._path) is not self._content:
            raise NotWritable(f"cannot write {path}: something else took the name {self._path} meanwhile")
        await self._disk.take_name(self._path, path)
        self._path, self._committed = path, True
        await self._disk.sync_names(path)

    async def leave(self) -> None:
        """Close it and leave it where it is."""
        if self._is_open:
            self._content.holder = None
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def discard(self) -> None:
        """Close it and remove it unless it was committed."""
        if self._is_open:
            self._content.holder = None
            with trio.CancelScope(shield=True):
                if not self._committed and self._disk.is_on:
                    await self._disk.forget(self._path, self._content)
        await trio.lowlevel.cancel_shielded_checkpoint()

    @property
    def _is_open(self) -> bool:
        return self._content.holder is self

    async def _changing(self) -> None:
        await self._disk.step_of_writing(self._path)
        if not self._is_open:
            raise NotWritable(f"{self._path} has been closed")

    def _grow(self, size: int) -> None:
        more = size - self.size
        if more > 0:
            self._disk.take_room(more, self._path)
            self._content.now.extend(bytes(more))

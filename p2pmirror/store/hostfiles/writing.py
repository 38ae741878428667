"""A file being written: by threads, committed by fsync and rename."""

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

from p2pmirror.oci import Digest, Hasher
from p2pmirror.store.hostfiles.descriptor import Descriptor, Limiters, errors_of_writing, raise_unreadable
from p2pmirror.store.hostfiles.reading import HostFile, hash_part, hash_whole

DISCARD_TIMEOUT_S = 5.0  # freeing a large file's blocks takes the disk some 0.1 s; a broken disk must not hold us


class HostWriter:
    """A file being written on this host; see `files.Writer`."""

    def __init__(self, descriptor: Descriptor, path: Path, limiters: Limiters, size: int = 0) -> None:
        """Write to `descriptor`, open, locked and `size` bytes long, which has the name `path`."""
        self._descriptor = descriptor
        self._path = path
        self._limiters = limiters
        self._size = size
        self._committed = False

    @property
    def path(self) -> Path:
        """The name it has now."""
        return self._path

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._size

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.discard()

    async def preallocate(self, size: int) -> None:
        """Make sure of room for `size` bytes. Raises `StoreFull`."""
        if size > self._size:
            await self._writing(os.posix_fallocate, 0, size)
            self._size = size

    async def write_at(self, offset: int, data: bytes | bytearray | memoryview, hasher: Hasher | None = None) -> None:
        """Write all of `data` at `offset` and hash it, by one thread call. Raises `StoreFull`."""
        await self._writing(_write_full, data, offset, hasher)
        self._size = max(self._size, offset + memoryview(data).nbytes)

    async def append(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` at the end. Raises `StoreFull`."""
        await self.write_at(self._size, data)

    async def hash(self, algorithm: str = "sha256") -> Digest:
        """Read everything back and return its digest. Raises `Unreachable`."""
        return await hash_whole(self._descriptor, self._size, algorithm, self._path, self._limiters)

    async def feed(self, hasher: Hasher, offset: int, count: int) -> None:
        """Read a part back and feed it to `hasher`. Raises `Unreachable`."""
        await hash_part(self._descriptor, hasher, offset, offset + count, path=self._path, limiters=self._limiters)

    async def reader(self) -> HostFile:
        """Open it for reading: the same open file, whose descriptor is the reader's own. Raises `Unreachable`."""
        await trio.lowlevel.checkpoint()
        try:
            with self._descriptor.used() as number:
                return HostFile(Descriptor(os.dup(number)), self._size, self._path, self._limiters)
        except OSError as error:
            raise_unreadable(error, self._path)

    async def fsync(self) -> None:
        """Put the content on the disk; cancelled, a thread finishes it unseen. Raises `StoreFull`."""
        with errors_of_writing(self._path):
            await trio.to_thread.run_sync(
                _with, self._descriptor, os.fsync, limiter=self._limiters.writing, abandon_on_cancel=True
            )

    async def commit(self, path: Path) -> None:
        """Content to the disk, the new name, the name to the disk. Raises `StoreFull`."""
        await self.fsync()
        with errors_of_writing(path):
            await trio.to_thread.run_sync(self._take_name, path, limiter=self._limiters.writing)

    async def discard(self) -> None:
        """Close it and remove it unless it was committed; a cancelled task waits for that, but not long."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + DISCARD_TIMEOUT_S):
            await trio.to_thread.run_sync(self._let_go, limiter=self._limiters.writing, abandon_on_cancel=True)
        self._descriptor.close()

    async def leave(self) -> None:
        """Unlock and close it, and leave it where it is; its readers, who share the lock, read on."""
        with suppress(OSError), self._descriptor.used() as number:
            fcntl.flock(number, fcntl.LOCK_UN)
        self._descriptor.close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _let_go(self) -> None:
        with suppress(OSError), self._descriptor.used():
            if not self._committed and self._has_its_name():
                self._path.unlink()
        self._descriptor.close()

    def _take_name(self, path: Path) -> None:
        if not self._has_its_name():
            raise FileNotFoundError(errno.ENOENT, "something else took its name meanwhile", str(self._path))
        self._path.rename(path)
        self._path, self._committed = path, True
        sync_directory(path.parent)

    def _has_its_name(self) -> bool:
        """Whether the name still stands for this file: somebody may have removed it, and another writer taken it."""
        try:
            found = self._path.lstat()
        except OSError:
            return False
        with self._descriptor.used() as number:
            return os.path.samestat(found, os.fstat(number))

    async def _writing(self, function: Callable[..., object], *arguments: object) -> None:
        with errors_of_writing(self._path):
            await trio.to_thread.run_sync(_with, self._descriptor, function, *arguments, limiter=self._limiters.writing)


def sync_directory(directory: Path) -> None:
    """Put the names of a directory on the disk."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _with(descriptor: Descriptor, function: Callable[..., object], *arguments: object) -> None:
    with descriptor.used() as number:
        function(number, *arguments)


def _write_full(number: int, data: bytes | bytearray | memoryview, offset: int, hasher: Hasher | None) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        wrote = os.pwrite(number, rest, offset)
        rest, offset = rest[wrote:], offset + wrote
    if hasher is not None:
        hasher.update(data)

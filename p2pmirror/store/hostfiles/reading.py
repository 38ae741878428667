"""A file opened for reading: from the page cache at once, from the disk by a thread."""

import errno
import mmap
import os
from pathlib import Path
from typing import Final

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.oci import Digest, Hasher
from p2pmirror.store.files import HASH_STEP_BYTES, Stat
from p2pmirror.store.hostfiles.descriptor import Descriptor, Limiters, raise_unreadable, stat_of

INLINE_READ_BYTES_MAX = 1024 * 1024  # copying more than this from the page cache holds the loop for over 0.1 ms
READ_BLOCK_BYTES = 1024 * 1024  # what a hashing thread reads at a time: stays within a core's cache

_NOT_CACHED: Final = frozenset({errno.EAGAIN, errno.EOPNOTSUPP})  # the second: a file system that cannot say


class HostFile:
    """A regular file opened for reading; see `wire.network.File` and `files.OpenFile`."""

    def __init__(self, descriptor: Descriptor, size: int, path: Path, limiters: Limiters) -> None:
        """Read from `descriptor`, at most the `size` bytes that the file had when it was opened."""
        self._descriptor = descriptor
        self._size = size
        self._path = path
        self._limiters = limiters

    @property
    def size(self) -> int:
        """Length in bytes when it was opened."""
        return self._size

    def fileno(self) -> int | None:
        """Return the descriptor, None after `close`."""
        try:
            return self._descriptor.number
        except OSError:
            return None

    def stat(self) -> Stat:
        """Return the file's present state: fstat of an open file asks no disk. Raises `Unreachable`."""
        try:
            return stat_of(os.fstat(self._descriptor.number))
        except OSError as error:
            raise_unreadable(error, self._path)

    async def read_at(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`, at once when they are in the page cache, else by a thread.

        Raises `Unreachable` also when the file has become shorter than it was. Cancellation leaves nothing behind.
        """
        count = max(0, min(count, self._size - offset))
        await trio.lowlevel.checkpoint()
        try:
            data = self._read_cached(offset, count)
            if len(data) < count:
                data += await trio.to_thread.run_sync(
                    self._read_cold,
                    offset + len(data),
                    count - len(data),
                    limiter=self._limiters.reading,
                    abandon_on_cancel=True,
                )
        except OSError as error:
            raise_unreadable(error, self._path)
        if len(data) < count:
            raise Unreachable(f"{self._path} ends at byte {offset + len(data)}, before its {self._size} bytes")
        return data

    async def hash(self, algorithm: str = "sha256") -> Digest:
        """Hash the whole file."""
        return await hash_whole(self._descriptor, self._size, algorithm, self._path, self._limiters)

    async def feed(self, hasher: Hasher, offset: int, count: int) -> None:
        """Feed a part to `hasher`."""
        await hash_part(self._descriptor, hasher, offset, offset + count, path=self._path, limiters=self._limiters)

    def close(self) -> None:
        """Let go of it; a read in a thread goes on to its end."""
        self._descriptor.close()

    def _read_cached(self, offset: int, count: int) -> bytes:
        if not 0 < count <= INLINE_READ_BYTES_MAX:
            return b""
        buffer = bytearray(count)
        try:
            got = os.preadv(self._descriptor.number, [buffer], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in _NOT_CACHED:
                return b""
            raise
        return bytes(memoryview(buffer)[:got])

    def _read_cold(self, offset: int, count: int) -> bytes:
        with self._descriptor.used() as number:
            buffer = bytearray(count)
            return bytes(memoryview(buffer)[: _read_full(number, memoryview(buffer), offset)])


async def hash_whole(descriptor: Descriptor, size: int, algorithm: str, path: Path, limiters: Limiters) -> Digest:
    """Hash a file in a thread, in steps, so that cancellation and other hashes get their turn. Raises `Unreachable`."""
    running = Digest.of(b"", algorithm).hasher()
    await hash_part(descriptor, running, 0, size, path=path, limiters=limiters)
    return Digest(algorithm, running.hexdigest())


async def hash_part(
    descriptor: Descriptor, running: Hasher, offset: int, end: int, *, path: Path, limiters: Limiters
) -> None:
    """Feed bytes `offset` to `end` of a file to a hasher, as `hash_whole` does. Raises `Unreachable`."""
    try:
        while offset < end:
            offset += await trio.to_thread.run_sync(
                _hash_step, descriptor, running, offset, end, limiter=limiters.hashing, abandon_on_cancel=True
            )
    except OSError as error:
        raise_unreadable(error, path)
    await trio.lowlevel.checkpoint()


def _hash_step(descriptor: Descriptor, running: Hasher, offset: int, size: int) -> int:
    end = min(size, offset + HASH_STEP_BYTES)
    block = memoryview(mmap.mmap(-1, min(READ_BLOCK_BYTES, end - offset)))  # which the kernel gets back at once
    done = 0
    with descriptor.used() as number:
        while offset + done < end:
            got = os.preadv(number, [block[: min(len(block), end - offset - done)]], offset + done)
            if got == 0:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            running.update(block[:got])
            done += got
    return done


def _read_full(number: int, buffer: memoryview, offset: int) -> int:
    done = 0
    while done < len(buffer):
        got = os.preadv(number, [buffer[done:]], offset + done)
        if got == 0:
            break
        done += got
    return done

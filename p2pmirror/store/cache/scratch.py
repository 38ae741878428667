"""Room for blobs that arrive and are kept by nobody: where there is no cache, or no room in it.

Laws:
- a file loses its name as soon as it has one: whatever becomes of this process, nothing of it stays on the disk;
- room is counted before the first byte; what has none is passed on without being shared, and everything else goes on;
- nothing is ever kept: whoever has a blob open reads on, and with the last reader it is gone.

Settings `scratch_dir` and `scratch_max_bytes`.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import trio

from p2pmirror.errors import NotHere, StoreFull, Unreachable
from p2pmirror.oci import Digest
from p2pmirror.store.cache.incoming import CacheIncoming
from p2pmirror.store.cache.protocol import Incoming, Receives
from p2pmirror.store.files import Files, NotWritable, Writer
from p2pmirror.store.newfile import INCOMING, begin

FREE_BYTES_MIN: Final = 1024**3  # 1 GiB, as a cache leaves: the node's other programs write to this disk too

log = logging.getLogger("p2pmirror.store")


class Scratch:
    """The room of one node."""

    def __init__(self, root: Path, files: Files, bytes_max: int, *, free_bytes_min: int = FREE_BYTES_MIN) -> None:
        """Use `bytes_max` in the directory `root`, which is made when it is missing."""
        self.taken_bytes = 0
        self._root = root
        self._files = files
        self._bytes_max = bytes_max
        self._free_bytes_min = free_bytes_min
        self._is_swept = False
        self._was_refused = False

    async def receive(
        self,
        digest: Digest,
        size: int,
        media_type: str | None,  # noqa: ARG002
        name: str,  # noqa: ARG002
        *,
        piece_bytes: int = 0,  # noqa: ARG002
    ) -> CacheIncoming:
        """Make room for a blob; see `protocol.Receives`. What has no name is left to nobody."""
        if self.taken_bytes + size > self._bytes_max:
            raise StoreFull(f"{size} bytes have no room beside {self.taken_bytes}: scratch_max_bytes {self._bytes_max}")
        self.taken_bytes += size
        try:
            writer = await self._write(digest, size)
        except BaseException as error:
            self.taken_bytes -= size
            if isinstance(error, NotWritable) and not self._was_refused:
                self._was_refused = True
                log.warning("blobs are passed on without being shared: %s", error)
            raise
        return CacheIncoming(digest, size, writer, keep=_keep, release=self._release, judged=_judged)

    async def resumes_at(self, digest: Digest, piece_bytes_of: Callable[[int], int]) -> int:  # noqa: ARG002
        """Return 0: nothing is left here."""
        await trio.lowlevel.checkpoint()
        return 0

    async def _write(self, digest: Digest, size: int) -> Writer:
        writer = await self._begin(digest)
        try:
            await self._files.unlink(writer.path)
            await self._check_disk(size)
            await writer.preallocate(size)
        except BaseException:
            await writer.discard()
            raise
        return writer

    async def _begin(self, digest: Digest) -> Writer:
        try:
            if not self._is_swept:  # somebody died between the two lines that give a file its name and take it
                await self._files.remove_abandoned(self._root, INCOMING)
                self._is_swept = True
            return await begin(self._files, self._root, digest.hex)
        except (NotHere, NotWritable):
            await self._files.make_directory(self._root)
            return await begin(self._files, self._root, digest.hex)

    async def _check_disk(self, size: int) -> None:
        try:
            free = await self._files.free_bytes(self._root)
        except (NotHere, Unreachable):
            return  # nobody can tell
        if free < size + self._free_bytes_min:
            raise StoreFull(f"no room for {size} bytes in {self._root}: the disk is full")

    def _release(self, incoming: CacheIncoming) -> None:
        self.taken_bytes -= incoming.size


class FirstWithRoom:
    """A cache, and scratch room for what has none there."""

    def __init__(self, first: Receives, second: Receives) -> None:
        """Ask `first`, and `second` when it has no room."""
        self._first = first
        self._second = second

    async def receive(
        self, digest: Digest, size: int, media_type: str | None, name: str, *, piece_bytes: int = 0
    ) -> Incoming:
        """Make room for a blob; see `protocol.Receives`."""
        try:
            return await self._first.receive(digest, size, media_type, name, piece_bytes=piece_bytes)
        except StoreFull:
            return await self._second.receive(digest, size, media_type, name)

    async def resumes_at(self, digest: Digest, piece_bytes_of: Callable[[int], int]) -> int:
        """Return the first byte that an earlier try has not left in the first."""
        return await self._first.resumes_at(digest, piece_bytes_of)


async def _keep(incoming: CacheIncoming) -> NoReturn:
    raise StoreFull(f"{incoming.digest} is in scratch room, where nothing is kept")


def _judged(_is_right: bool) -> None:  # noqa: FBT001  # the cache's metric counts what would have been kept
    """Count nothing."""

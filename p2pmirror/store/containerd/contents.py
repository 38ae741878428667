"""Where containerd's content is read: from its directory when that is in reach, else over gRPC.

Laws:
- the directory is believed only as far as it holds what containerd lists; a directory that holds none of it is not it;
- a blob counts as there when its file has the size that containerd says;
- a blob that is open stays readable: an open file by the kernel, a small blob over gRPC by having been read when it
  was opened; a large one over gRPC only as long as containerd keeps it, then it raises `Unreachable`.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import trio

from p2pmirror.errors import MirrorError, NotHere, Unreachable
from p2pmirror.oci import DOCUMENT_BYTES_MAX, Digest
from p2pmirror.store.containerd.client import ContainerdClient
from p2pmirror.store.containerd.grpc import Code, RpcError
from p2pmirror.store.files import Files
from p2pmirror.wire.network import File

RPC_LIMIT_S = 10.0  # containerd answers in milliseconds; on a node whose disk is drowning, in seconds
PORTION_BYTES = 1024 * 1024  # what is read of a blob by one call over gRPC: the window of a call
WHOLE_BYTES_MAX = 1024 * 1024  # a blob up to this size is read over gRPC when it is opened: manifests, configs

# Errors that concern containerd as a whole and pass; any other concerns the one blob that was asked for.
PASSING = frozenset({Code.UNAVAILABLE, Code.CANCELLED, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED, Code.ABORTED})

_log = logging.getLogger(__name__)


class Contents:
    """The content of one containerd. `use_directory` says where its directory should be."""

    def __init__(self, client: ContainerdClient, files: Files) -> None:
        self._client = client
        self._files = files
        self._root: Path | None = None  # where the directory should be
        self._directory: Path | None = None
        self._said: str | None = None  # what was last said about the directory, to say it once

    @property
    def directory(self) -> Path | None:
        """The content directory, None when blobs are read over gRPC."""
        return self._directory

    async def use_directory(self, root: Path | None) -> None:
        """Read from the directory `root` from now on if it can be opened, else over gRPC.

        Until that is known what was used before goes on being used: a containerd that restarts changes no content.
        """
        self._root = root
        if root is None:
            self._say("content is read over gRPC: containerd does not tell where its directory is")
        self._directory = await self._opened()

    async def _look_for_directory(self) -> None:
        """Try again to open a directory that is not in use: containerd makes it with its first content."""
        self._directory = await self._opened()

    async def _opened(self) -> Path | None:
        """Return the directory when it can be opened."""
        root = self._root
        if root is None:
            return None
        try:
            await self._files.names(root / "blobs")
        except NotHere as error:
            _log.debug("content is read over gRPC: %s", error)
        except MirrorError as error:
            self._say(f"content is read over gRPC: {error}")
        else:
            return root
        return None

    async def confirmed(self, sizes: Mapping[Digest, int]) -> dict[Digest, int]:
        """Return of `sizes` what is really there."""
        if sizes and self._directory is None:
            await self._look_for_directory()
        if self._directory is None or not sizes:
            if sizes and self._root is not None:
                self._say(f"content is read over gRPC: {self._root} cannot be opened or holds none of it")
            return dict(sizes)
        found = await self._files.stat([self._path(self._directory, digest) for digest in sizes])
        kept = {
            digest: size
            for (digest, size), stat in zip(sizes.items(), found, strict=True)
            if stat is not None and stat.size == size
        }
        if kept:
            self._say(f"content is read from {self._directory}", logging.INFO)
        if len(kept) < len(sizes):
            lacking = len(sizes) - len(kept)
            _log.debug("%d of %d blobs have no file of their size in %s", lacking, len(sizes), self._directory)
        return kept

    def give_up_directory(self) -> None:
        """Read over gRPC, until a later walk finds the directory again: it holds nothing of what containerd lists."""
        self._say(f"content is read over gRPC: {self._directory} cannot be opened or holds none of it")
        self._directory = None

    async def can_be_read(self, sizes: Mapping[Digest, int]) -> bool:
        """Whether containerd itself can read what it lists: a try with one blob. Raises `Unreachable`."""
        digest, size = min(sizes.items(), key=lambda item: item[1])
        try:
            await read_content(self._client, digest, 0, min(1, size))
        except NotHere:
            return False
        return True

    async def size(self, digest: Digest) -> int | None:
        """Return the size of a blob that containerd has in this namespace, None when it has not.

        Raises `Unreachable`.
        """
        try:
            with trio.fail_after(RPC_LIMIT_S):
                return (await self._client.content_info(str(digest))).size
        except RpcError as error:
            if error.code in PASSING:
                raise Unreachable(f"containerd does not tell of {digest}: {error}") from error
            return None
        except trio.TooSlowError:
            raise Unreachable(f"containerd has not answered within {RPC_LIMIT_S:g} s") from None

    async def keeps(self, digest: Digest) -> bool:
        """Whether containerd goes on holding a blob, and does not discard it once unpacked. Raises `Unreachable`."""
        try:
            with trio.fail_after(RPC_LIMIT_S):
                return str(digest) in await self._client.referenced()
        except RpcError as error:
            raise Unreachable(f"containerd does not tell what it keeps: {error}") from error
        except trio.TooSlowError:
            raise Unreachable(f"containerd has not answered within {RPC_LIMIT_S:g} s") from None

    async def document(self, digest: Digest, size: int) -> bytes | None:
        """Return a manifest's bytes, None when they cannot be had. Raises `Unreachable` when containerd is gone."""
        if size > DOCUMENT_BYTES_MAX:
            return None
        if self._directory is not None:
            try:
                return await self._files.read_whole(self._path(self._directory, digest), DOCUMENT_BYTES_MAX)
            except MirrorError as error:
                _log.debug("the manifest %s cannot be read: %s", digest, error)
                return None
        try:
            return await read_content(self._client, digest, 0, size)
        except NotHere:
            return None

    async def open(self, digest: Digest, size: int) -> File:
        """Open a blob. Raises `NotHere`, `Unreachable`."""
        if self._directory is None:
            return await _open_remote(self._client, digest, size)
        file = await self._files.open(self._path(self._directory, digest))
        if file.size != size:
            file.close()
            raise NotHere(f"{digest} has {file.size} bytes on the disk, not the {size} that containerd says")
        return file

    def _path(self, directory: Path, digest: Digest) -> Path:
        return directory / "blobs" / digest.algorithm / digest.hex

    def _say(self, what: str, level: int = logging.WARNING) -> None:
        """Log where content is read from, when that changes."""
        if what != self._said:
            self._said = what
            _log.log(level, what)


class RemoteFile:
    """A blob behind containerd's Read call; see `wire.network.File`."""

    def __init__(self, client: ContainerdClient, digest: Digest, size: int, whole: bytes | None) -> None:
        self._client = client
        self._digest = digest
        self._size = size
        self._whole = whole

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._size

    def fileno(self) -> int | None:
        """Return None: there is no descriptor."""
        return None

    async def read_at(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`, fewer only at the end. Raises `Unreachable`; the caller's deadline."""
        count = max(0, min(count, self._size - offset))
        if self._whole is not None or count == 0:
            await trio.lowlevel.checkpoint()
            return (self._whole or b"")[offset : offset + count]
        found = bytearray()
        while len(found) < count:
            at = offset + len(found)
            try:
                found += await read_content(self._client, self._digest, at, min(PORTION_BYTES, count - len(found)))
            except NotHere as error:
                raise Unreachable(f"{self._digest} can be read no more: {error}") from error
        return bytes(found)

    def close(self) -> None:
        """Have nothing to let go of but memory."""
        self._whole = b"" if self._whole is not None else None


async def _open_remote(client: ContainerdClient, digest: Digest, size: int) -> RemoteFile:
    whole = await read_content(client, digest, 0, size) if size <= WHOLE_BYTES_MAX else None
    return RemoteFile(client, digest, size, whole)


async def read_content(client: ContainerdClient, digest: Digest, offset: int, count: int) -> bytes:
    """Return exactly `count` bytes. Raises `NotHere`, `Unreachable`."""
    if count == 0:
        await trio.lowlevel.checkpoint()
        return b""
    try:
        with trio.fail_after(RPC_LIMIT_S):
            data = await client.read(str(digest), offset, count)
    except RpcError as error:
        if error.code in PASSING:
            raise Unreachable(f"containerd does not give {digest} now: {error}") from error
        raise NotHere(f"containerd does not give {digest}: {error}") from error
    except trio.TooSlowError:
        raise Unreachable(f"containerd has not given {digest} within {RPC_LIMIT_S:g} s") from None
    if len(data) < count:
        raise NotHere(f"containerd gave {len(data)} bytes of {digest} instead of {count}")
    return data

"""The seam to the disk: what a store does with files, and the errors that a disk gives it.

Laws, which the conformance suite in `tests/store` holds the real files and their twin to:
- a file that was opened stays readable until it is closed, also when it is unlinked or replaced meanwhile;
- a name holds its old content or its new content, whole, whatever happens in between: new content comes by `create`,
  `fsync` and `commit`;
- what `fsync` and `commit` have done survives a crash; anything else may be lost, torn or doubled;
- no await stops the event loop: what may wait for a disk waits in a thread, and reading, writing and hashing have
  threads of their own, so that a slow `fsync` does not hold up a read;
- reading raises `NotHere` or `Unreachable`, writing raises `StoreFull` or `NotWritable`; no OSError leaves the seam.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from p2pmirror.errors import StoreFull
from p2pmirror.oci import Digest, Hasher
from p2pmirror.wire.network import File

HASH_STEP_BYTES = 8 * 1024 * 1024  # some 10 ms of sha256: a thread call costs 1 % of it, and other hashes get a turn


class NotWritable(StoreFull):
    """The files cannot be changed (read-only, not ours, a broken disk): as when full, stream through uncached."""


class AlreadyThere(NotWritable):
    """The name that was to be created exists."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What tells one state of a regular file from another: the same three, the same bytes."""

    size: int
    mtime_ns: int
    inode: int


class OpenFile(File, Protocol):
    """A regular file opened for reading."""

    def stat(self) -> Stat:
        """Return the file's present state, without waiting. Raises `Unreachable`."""
        ...

    async def hash(self, algorithm: str = "sha256") -> Digest:
        """Read the whole file and return its digest. Raises `Unreachable`. Cancellation stops it within a step."""
        ...

    async def feed(self, hasher: Hasher, offset: int, count: int) -> None:
        """Read a part and feed it to `hasher`. Raises `Unreachable`. Cancelled, the hasher is of no more use."""
        ...


class Writer(Protocol):
    """A file being written, under a name that nobody reads; a lock keeps others from taking it for abandoned.

    Used as `async with`: leaving it removes the file unless it was committed.
    """

    @property
    def path(self) -> Path:
        """The name it has now."""
        ...

    @property
    def size(self) -> int:
        """Length in bytes: the end of the last byte written or preallocated."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def preallocate(self, size: int) -> None:
        """Make sure of room for `size` bytes, which read as zeros until they are written. Raises `StoreFull`."""
        ...

    async def write_at(self, offset: int, data: bytes | bytearray | memoryview, hasher: Hasher | None = None) -> None:
        """Write all of `data` at `offset`, and feed it to `hasher` in the same thread once it is written.

        Raises `StoreFull`. Cancelled before it began or not at all. `data` must not change meanwhile.
        """
        ...

    async def append(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` at the end. Raises `StoreFull`. Cancelled before it began or not at all."""
        ...

    async def hash(self, algorithm: str = "sha256") -> Digest:
        """Read everything back and return its digest. Raises `Unreachable`. Cancellation stops it within a step."""
        ...

    async def feed(self, hasher: Hasher, offset: int, count: int) -> None:
        """Read a part back and feed it to `hasher`. Raises `Unreachable`. Cancelled, the hasher is of no more use."""
        ...

    async def reader(self) -> OpenFile:
        """Open it for reading while it is written, whatever has become of its name: as long as it is now.

        Raises `Unreachable` when it has been closed.
        """
        ...

    async def fsync(self) -> None:
        """Put the content on the disk. Raises `StoreFull`. Cancelled, it may or may not have happened."""
        ...

    async def commit(self, path: Path) -> None:
        """Put the content on the disk, take the name `path` in place of what had it, and put the name on the disk too.

        Raises `StoreFull`, also when the file was removed meanwhile, whoever has its name by then. Cancelled, it may or
        may not have happened; nothing between.
        """
        ...

    async def discard(self) -> None:
        """Close it, and remove it unless it was committed. Never raises because of the disk; twice does no harm."""
        ...

    async def leave(self) -> None:
        """Close it and leave it under its name, abandoned, for whoever takes it over. Twice does no harm."""
        ...


class Files(Protocol):
    """One host's files. Paths are absolute."""

    async def open(self, path: Path) -> OpenFile:
        """Open a regular file for reading. Raises `NotHere`, or `Unreachable` when it is closed to us."""
        ...

    async def read_whole(self, path: Path, bytes_max: int) -> bytes:
        """Return a small file's content. Raises `NotHere`; `Unreachable` also when it is longer than `bytes_max`."""
        ...

    async def read_many(self, paths: Sequence[Path], bytes_max: int) -> list[bytes | None]:
        """Return many small files at once; None for what cannot be read or is longer than `bytes_max`."""
        ...

    async def stat(self, paths: Sequence[Path]) -> list[Stat | None]:
        """Return the states of many files at once; None for what is no regular file or is out of our reach."""
        ...

    async def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, sorted. Raises `NotHere`, `Unreachable`."""
        ...

    async def contents(self, directory: Path) -> dict[str, Stat]:
        """Return the regular files in a directory, by name, with their states. Raises `NotHere`, `Unreachable`."""
        ...

    async def marks(self, directories: Sequence[Path]) -> list[int | None]:
        """Return for each directory a number that changes when names in it come, go or are replaced; None: absent.

        Two changes within one tick of the kernel's clock (10 ms) may leave the same number.
        """
        ...

    async def free_bytes(self, directory: Path) -> int:
        """Return how much more we may write to this directory's file system. Raises `NotHere`, `Unreachable`."""
        ...

    async def make_directory(self, directory: Path) -> None:
        """Make sure that it exists, its parents too, also after a crash. Raises `StoreFull`."""
        ...

    async def create(self, path: Path) -> Writer:
        """Begin a new file. Raises `AlreadyThere` when the name is taken, `StoreFull`."""
        ...

    async def take_over(self, path: Path) -> Writer:
        """Go on writing a file that no live `Writer` holds. Raises `NotHere`; `NotWritable` also while it is held."""
        ...

    async def rename(self, old: Path, new: Path) -> None:
        """Give a file the name `new` in place of what had it, also after a crash. Raises `NotHere`, `StoreFull`."""
        ...

    async def touch(self, when_s: Mapping[Path, float]) -> None:
        """Set times of change of files (seconds since 1970), not put on the disk at once; never raises for a file."""
        ...

    async def unlink(self, path: Path) -> None:
        """Remove a file; what is absent is no error. Raises `NotWritable`."""
        ...

    async def remove_abandoned(self, directory: Path, prefix: str, spared: Collection[str] = ()) -> list[str]:
        """Remove files whose names begin with `prefix` and that no live `Writer` holds; return their names.

        Names that are `spared` stay.
        """
        ...

    def locked(self, path: Path) -> AbstractAsyncContextManager[None]:
        """Hold a lock file against everybody else on this host; a crash lets go of it. Raises `StoreFull`."""
        ...

"""Names and directories of this host: open, list, stat, create, rename, clean up, lock."""

import errno
import fcntl
import os
import stat as modes
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import trio

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.store.files import Stat
from p2pmirror.store.hostfiles.descriptor import Descriptor, Limiters, errors_of_writing, raise_unreadable, stat_of
from p2pmirror.store.hostfiles.reading import HostFile
from p2pmirror.store.hostfiles.writing import HostWriter, sync_directory

T = TypeVar("T")

LOCK_POLL_S = 0.02  # a lock file is held for an fsync or two; flock() in a thread could not be cancelled

# O_NONBLOCK: a named pipe in place of a file must not hold us; regular files do not heed it.
_READ_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class HostFiles:
    """This host's files; see `files.Files`."""

    def __init__(self, limiters: Limiters | None = None) -> None:
        """Share `limiters` with whoever else reads this host's disks."""
        self._limiters = limiters or Limiters()

    async def open(self, path: Path) -> HostFile:
        """Open a regular file, inline, without a thread.

        A store has looked at its files within the last seconds, so their names and inodes are in the kernel's caches
        and opening takes some 5 us; a thread would take 100.
        """
        await trio.lowlevel.checkpoint()
        try:
            return self._open(path)
        except OSError as error:
            raise_unreadable(error, path)

    async def read_whole(self, path: Path, bytes_max: int) -> bytes:
        """Return a small file's content."""
        file = await self.open(path)
        try:
            if file.size > bytes_max:
                raise Unreachable(f"{path} has {file.size} bytes, more than the {bytes_max} that are read")
            return await file.read_at(0, file.size)
        finally:
            file.close()

    async def read_many(self, paths: Sequence[Path], bytes_max: int) -> list[bytes | None]:
        """Return many small files, by one thread call."""
        return await self._reading(lambda: [_read_or_none(path, bytes_max) for path in paths])

    async def stat(self, paths: Sequence[Path]) -> list[Stat | None]:
        """Return the states of many files, by one thread call."""
        return await self._reading(lambda: [_stat_or_none(path) for path in paths])

    async def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, sorted."""
        try:
            return await self._reading(lambda: _names(directory))
        except OSError as error:
            raise_unreadable(error, directory)

    async def contents(self, directory: Path) -> dict[str, Stat]:
        """Return the regular files in a directory, by one thread call: some 10 us for each."""
        try:
            return await self._reading(lambda: _contents(directory))
        except OSError as error:
            raise_unreadable(error, directory)

    async def marks(self, directories: Sequence[Path]) -> list[int | None]:
        """Return when each directory was changed last."""
        return await self._reading(lambda: [_mark_or_none(directory) for directory in directories])

    async def free_bytes(self, directory: Path) -> int:
        """Return how much more a user without privileges may write there."""
        try:
            found = await self._reading(lambda: os.statvfs(directory))
        except OSError as error:
            raise_unreadable(error, directory)
        return found.f_bavail * found.f_frsize

    async def make_directory(self, directory: Path) -> None:
        """Make sure that a directory exists, its parents too, and is on the disk."""
        with errors_of_writing(directory):
            await self._writing(_make_directories, directory)

    async def create(self, path: Path) -> HostWriter:
        """Begin a new file."""
        with errors_of_writing(path):
            descriptor = await self._writing(_create, path)
        return HostWriter(descriptor, path, self._limiters)

    async def take_over(self, path: Path) -> HostWriter:
        """Go on writing a file that no live writer holds."""
        with errors_of_writing(path, absent=NotHere):
            descriptor, size = await self._writing(_take_over, path)
        return HostWriter(descriptor, path, self._limiters, size)

    async def rename(self, old: Path, new: Path) -> None:
        """Give a file a new name, also after a crash."""
        with errors_of_writing(old, absent=NotHere):
            await self._writing(_rename, old, new)

    async def touch(self, when_s: Mapping[Path, float]) -> None:
        """Set times of change of files, by one thread call."""
        await self._writing(_touch, when_s)

    async def unlink(self, path: Path) -> None:
        """Remove a file; what is absent is no error."""
        with errors_of_writing(path):
            await self._writing(lambda: path.unlink(missing_ok=True))

    async def remove_abandoned(self, directory: Path, prefix: str, spared: Collection[str] = ()) -> list[str]:
        """Remove files of dead writers."""
        with errors_of_writing(directory):
            return await self._writing(_remove_abandoned, directory, prefix, frozenset(spared))

    @asynccontextmanager
    async def locked(self, path: Path) -> AsyncIterator[None]:
        """Hold a lock file; it stays where it is afterwards, since removing it would let two hold it."""
        with errors_of_writing(path):
            number = await self._writing(os.open, path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            while not _try_lock(number):  # noqa: ASYNC110 (another process gives no Event)
                await trio.sleep(LOCK_POLL_S)
            yield
        finally:
            os.close(number)

    def _open(self, path: Path) -> HostFile:
        number = os.open(path, _READ_FLAGS)
        try:
            found = os.fstat(number)
        except BaseException:
            os.close(number)
            raise
        if not modes.S_ISREG(found.st_mode):
            os.close(number)
            raise NotHere(f"{path} is not a regular file")
        return HostFile(Descriptor(number), found.st_size, path, self._limiters)

    async def _reading(self, function: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(function, limiter=self._limiters.reading, abandon_on_cancel=True)

    async def _writing(self, function: Callable[..., T], *arguments: object) -> T:
        return await trio.to_thread.run_sync(function, *arguments, limiter=self._limiters.writing)


def _create(path: Path) -> Descriptor:
    """Create and lock. One who cleans up between the two takes the name away; then it is made once more."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            if _try_lock(number) and os.fstat(number).st_nlink > 0:
                return Descriptor(number)
        except BaseException:
            os.close(number)
            raise
        os.close(number)


def _take_over(path: Path) -> tuple[Descriptor, int]:
    """Open and lock a file of one name, which it still has; return its length too."""
    number = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW)
    try:
        _check_free(number, path)
        return Descriptor(number), os.fstat(number).st_size
    except BaseException:
        os.close(number)
        raise


def _check_free(number: int, path: Path) -> None:
    if not _try_lock(number):
        raise OSError(errno.EWOULDBLOCK, "somebody is writing it")
    found = os.fstat(number)
    if not os.path.samestat(found, path.lstat()):
        raise FileNotFoundError(errno.ENOENT, "it was removed or committed just now")
    if not modes.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise OSError(errno.EPERM, "it is no regular file of one name")


def _remove_abandoned(directory: Path, prefix: str, spared: frozenset[str]) -> list[str]:
    found = [name for name in _names(directory) if name.startswith(prefix) and name not in spared]
    return [name for name in found if _remove_if_abandoned(directory / name)]


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _contents(directory: Path) -> dict[str, Stat]:
    found = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(OSError):
                state = entry.stat()
                if modes.S_ISREG(state.st_mode):
                    found[entry.name] = stat_of(state)
    return found


def _remove_if_abandoned(path: Path) -> bool:
    try:
        number = os.open(path, _READ_FLAGS | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if not modes.S_ISREG(os.fstat(number).st_mode) or not _try_lock(number):
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(number)


def _try_lock(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_directories(directory: Path) -> None:
    missing = [each for each in (directory, *directory.parents) if not each.is_dir()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_directory(each.parent)


def _rename(old: Path, new: Path) -> None:
    old.rename(new)
    sync_directory(new.parent)
    if old.parent != new.parent:
        sync_directory(old.parent)


def _read_or_none(path: Path, bytes_max: int) -> bytes | None:
    try:
        number = os.open(path, _READ_FLAGS)
    except (OSError, ValueError):
        return None
    try:
        found = os.fstat(number)
        if not modes.S_ISREG(found.st_mode) or found.st_size > bytes_max:
            return None
        return os.read(number, found.st_size)
    except OSError:
        return None
    finally:
        os.close(number)


def _mark_or_none(directory: Path) -> int | None:
    try:
        found = directory.stat()
    except OSError:
        return None
    return hash((found.st_mtime_ns, found.st_ino)) if modes.S_ISDIR(found.st_mode) else None


def _touch(when_s: Mapping[Path, float]) -> None:
    for path, seconds in when_s.items():
        with suppress(OSError):
            os.utime(path, ns=(int(seconds * 1e9),) * 2)


def _stat_or_none(path: Path) -> Stat | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return stat_of(found) if modes.S_ISREG(found.st_mode) else None

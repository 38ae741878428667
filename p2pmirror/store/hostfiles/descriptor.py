"""Descriptors that threads share with the loop, how many threads there are, and what the kernel's errors mean."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import trio

from p2pmirror.errors import MirrorError, NotHere, StoreFull, Unreachable
from p2pmirror.store.files import AlreadyThere, NotWritable, Stat

READING_THREADS = 8  # reads of cold pages at once: an SSD's queue is used, 8 stacks are small
WRITING_THREADS = 4  # writes go to the page cache; more threads only wait for the same disk
HASHING_THREADS = 2  # hashing takes a core each, and the agent is a guest on its node

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


class Limiters:
    """How many threads may read, write and hash at once; one set a process."""

    def __init__(
        self, *, reading: int = READING_THREADS, writing: int = WRITING_THREADS, hashing: int = HASHING_THREADS
    ) -> None:
        """Each is a number of threads."""
        self.reading = trio.CapacityLimiter(reading)
        self.writing = trio.CapacityLimiter(writing)
        self.hashing = trio.CapacityLimiter(hashing)


class Descriptor:
    """A file descriptor shared between the loop and threads; closed when the last of them has let go."""

    def __init__(self, number: int) -> None:
        """Take over an open descriptor."""
        self._number = number
        self._users = 0
        self._closing = False
        self._lock = threading.Lock()

    @property
    def number(self) -> int:
        """The open descriptor; after `close` OSError (EBADF), never another file's."""
        if self._closing:
            raise OSError(errno.EBADF, "the file has been closed")
        return self._number

    @contextmanager
    def used(self) -> Iterator[int]:
        """Keep it open for the length of the block, from any thread; OSError (EBADF) when it has been closed."""
        with self._lock:
            if self._closing:
                raise OSError(errno.EBADF, "the file has been closed")
            self._users += 1
        try:
            yield self._number
        finally:
            with self._lock:
                self._users -= 1
                last = self._users == 0 and self._is_closing()
            if last:
                os.close(self._number)

    def _is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Close it as soon as nobody uses it; twice does no harm."""
        with self._lock:
            last = not self._closing and self._users == 0
            self._closing = True
        if last:
            os.close(self._number)


def stat_of(found: os.stat_result) -> Stat:
    """Keep of a stat result what tells states apart."""
    return Stat(found.st_size, found.st_mtime_ns, found.st_ino)


def raise_unreadable(error: OSError, path: Path) -> NoReturn:
    """Translate what the kernel said to a reader: `NotHere` or `Unreachable`."""
    if error.errno in _ABSENT:
        raise NotHere(f"there is no {path}") from error
    raise Unreachable(f"cannot read {path}: {error.strerror}") from error


@contextmanager
def errors_of_writing(path: Path, absent: type[MirrorError] = NotWritable) -> Iterator[None]:
    """Translate what the kernel says to a writer; `absent` is raised when the name is not there."""
    try:
        yield
    except FileExistsError as error:
        raise AlreadyThere(f"{path} exists already") from error
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull(f"no room left to write {path}: {error.strerror}") from error
        raise (absent if error.errno in _ABSENT else NotWritable)(f"cannot write {path}: {error.strerror}") from error

"""Tar archives, plain or gzipped, read where they lie.

Laws: those of `archive`; a gzipped one that unpacks to more than a hundred times its size is a bomb.
"""

import gzip
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from posixpath import dirname, normpath
from typing import BinaryIO, Final

from p2pmirror.oci import Digest
from p2pmirror.operations.archive import (
    BLOCK_BYTES,
    MEMBERS_MAX,
    BadArchive,
    Member,
    Progress,
    algorithm_of,
    plain_name,
)

RATIO_MAX: Final = 100  # times: layers of text make five, zeros a thousand
SLACK_BYTES: Final = 64 * 1024 * 1024  # what a small archive of zeros may unpack to all the same

_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_BROKEN: Final = (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError, RecursionError)


class _Bounded:
    """The unpacked bytes of a tar, with limits on what is asked of them; what `tarfile` needs of a file."""

    def __init__(self, stream: BinaryIO, bytes_max: int | None) -> None:
        self._stream = stream
        self._bytes_max = bytes_max

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= BLOCK_BYTES:
            raise BadArchive("a header of the archive says an impossible size")
        data = self._stream.read(count)
        if self._bytes_max is not None and self._stream.tell() > self._bytes_max:
            raise BadArchive(f"the archive unpacks to more than {RATIO_MAX} times its size")
        return data

    def seek(self, offset: int) -> int:
        if offset < 0:
            raise BadArchive("a header of the archive says an impossible size")
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()


class TarArchive:
    """One tar file; see `archive.Archive`."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises `BadArchive`."""
        self._path = path
        self._places: dict[str, int] = {}
        with _errors(path):
            number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            self._file = os.fdopen(number, "rb")
        try:
            self._stream = self._unpacked(os.fstat(number))
        except BaseException:
            self._file.close()
            raise

    def scan(self, progress: Progress) -> Mapping[str, Member]:
        """Read everything once."""
        members: dict[str, Member] = {}
        links: dict[str, str] = {}
        with _errors(self._path):
            self._stream.seek(0)
            with tarfile.open(fileobj=self._stream, mode="r:") as tar:  # type: ignore[call-overload]
                for info in tar:
                    self._take(info, members, links, progress)
                    tar.members = []  # it would keep them all
        for name, target in links.items():
            if target in members and name not in members:
                members[name] = members[target]
        return members

    def read(self, member: Member) -> Iterator[bytes]:
        """Yield a member's bytes."""
        offset, left = self._places[member.name], member.size
        while left:
            with _errors(self._path):
                self._stream.seek(offset)
                data = self._stream.read(min(left, BLOCK_BYTES))
            if not data:
                raise BadArchive(f"{self._path} ends within {member.name!r}")
            yield data
            offset, left = offset + len(data), left - len(data)

    def close(self) -> None:
        """Let go of it."""
        self._file.close()

    def _unpacked(self, found: os.stat_result) -> _Bounded:
        if not stat.S_ISREG(found.st_mode):
            raise BadArchive(f"{self._path} is neither a file nor a directory")
        magic = self._file.read(4)
        self._file.seek(0)
        if magic == _ZSTD:
            raise BadArchive(f"{self._path} is compressed with zstd, which this command does not read: unpack it first")
        if magic.startswith(b"\x1f\x8b"):
            return _Bounded(gzip.GzipFile(fileobj=self._file), RATIO_MAX * found.st_size + SLACK_BYTES)  # type: ignore[arg-type]
        return _Bounded(self._file, None)

    def _take(
        self, info: tarfile.TarInfo, members: dict[str, Member], links: dict[str, str], progress: Progress
    ) -> None:
        """Take in one header, and the bytes behind it."""
        name = plain_name(info.name)
        if len(members) + len(links) >= MEMBERS_MAX:
            raise BadArchive(f"{self._path} has more than {MEMBERS_MAX} members")
        if info.isdir():
            return
        if name in members or name in links:
            raise BadArchive(f"{self._path} has {name!r} twice")
        if info.issym() or info.islnk():
            links[name] = _target(name, info)
        elif not info.isreg() or info.issparse() or info.size < 0:
            raise BadArchive(f"{self._path} has {name!r}, which is no plain file")
        else:
            self._places[name] = info.offset_data
            members[name] = Member(name, info.size, self._hash(name, info, progress))

    def _hash(self, name: str, info: tarfile.TarInfo, progress: Progress) -> Digest:
        algorithm = algorithm_of(name)
        hasher = Digest.of(b"", algorithm).hasher()
        for data in self.read(Member(name, info.size, Digest.of(b"", algorithm))):
            hasher.update(data)
            progress(len(data))
        return Digest(algorithm, hasher.hexdigest())


def _target(name: str, info: tarfile.TarInfo) -> str:
    """Return what a link names within the archive: skopeo and older Dockers write some for shared layers."""
    if info.linkname.startswith("/") or len(info.linkname) > len(name) + BLOCK_BYTES:
        raise BadArchive(f"{name!r} is a link that leads out of the archive")
    target = normpath(f"{dirname(name)}/{info.linkname}" if info.issym() else info.linkname).lstrip("/")
    if target.startswith(".."):
        raise BadArchive(f"{name!r} is a link that leads out of the archive")
    return plain_name(target)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        detail = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BadArchive(f"{path} cannot be read as a tar archive: {detail}") from error

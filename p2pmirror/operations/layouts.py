"""A directory in OCI image layout as an archive.

Laws: those of `archive`; only plain files count, a link in place of one is refused.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from p2pmirror.oci import Digest, Invalid
from p2pmirror.operations.archive import BLOCK_BYTES, MEMBERS_MAX, BadArchive, Member, Progress, algorithm_of
from p2pmirror.store.ocilayout.index import INDEX_NAME, MARKER_NAME


class LayoutDirectory:
    """One directory; see `archive.Archive`."""

    def __init__(self, root: Path) -> None:
        """Take a directory. Raises `BadArchive` when it is no layout."""
        self._root = root
        if not (root / MARKER_NAME).exists():
            raise BadArchive(f"{root} is not a directory in OCI image layout: it has no {MARKER_NAME}")

    def scan(self, progress: Progress) -> Mapping[str, Member]:
        """Read everything once."""
        names = [MARKER_NAME, INDEX_NAME, *self._blobs()]
        if len(names) > MEMBERS_MAX:
            raise BadArchive(f"{self._root} has more than {MEMBERS_MAX} blobs")
        return {name: self._member(name, progress) for name in names}

    def read(self, member: Member) -> Iterator[bytes]:
        """Yield a member's bytes."""
        yield from self._bytes(member.name)

    def close(self) -> None:
        """Have nothing to let go of."""

    def _blobs(self) -> list[str]:
        found = []
        for algorithm in ("sha256", "sha512"):
            try:
                names = sorted(os.listdir(self._root / "blobs" / algorithm))  # noqa: PTH208 (names alone)
            except OSError:
                continue
            for name in names:
                with suppress(Invalid):
                    Digest(algorithm, name)
                    found.append(f"blobs/{algorithm}/{name}")
        return found

    def _member(self, name: str, progress: Progress) -> Member:
        algorithm, size = algorithm_of(name), 0
        hasher = Digest.of(b"", algorithm).hasher()
        for data in self._bytes(name):
            hasher.update(data)
            size += len(data)
            progress(len(data))
        return Member(name, size, Digest(algorithm, hasher.hexdigest()))

    def _bytes(self, name: str) -> Iterator[bytes]:
        path = self._root / name
        try:
            number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            raise BadArchive(f"{path} cannot be read, or is a link: {error.strerror}") from error
        with os.fdopen(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise BadArchive(f"{path} is no plain file")
            while data := file.read(BLOCK_BYTES):
                yield data

"""Blobs of a layout, each believed only after its bytes have been hashed.

Laws: a file that `open` returns has had the content that its digest names since it last changed (size, time of change
and inode are those that it had before and after it was hashed); each state of a file is hashed once, also when several
ask at once; what was found wrong is logged once, and not hashed again until the file changes.
"""

import logging
from collections.abc import Container
from pathlib import Path

import trio

from p2pmirror.errors import NotHere
from p2pmirror.oci import Digest
from p2pmirror.store.files import Files, OpenFile, Stat
from p2pmirror.store.ocilayout.index import blob_path

log = logging.getLogger("p2pmirror.store")


class VerifiedBlobs:
    """The blobs below one layout's directory."""

    def __init__(self, directory: Path, files: Files) -> None:
        """Know nothing yet."""
        self._directory = directory
        self._files = files
        self._verdicts: dict[Digest, tuple[Stat, bool]] = {}
        self._hashing: dict[Digest, trio.Lock] = {}

    async def open(self, digest: Digest) -> OpenFile:
        """Open a blob, hashing it first if this state of it has not been hashed.

        Raises `NotHere` when it is absent or is not what its name says, `Unreachable` when it cannot be read.
        Cancellation closes it and forgets the hash that was under way.
        """
        file = await self._files.open(blob_path(self._directory, digest))
        try:
            good = await self._is_good(digest, file)
        except BaseException:
            file.close()
            raise
        if not good:
            file.close()
            raise NotHere(f"{digest} in {self._directory} does not have the content that its name says")
        return file

    def verdict(self, digest: Digest, stat: Stat) -> bool | None:
        """Say whether this state of a blob was found right or wrong; None when it has not been hashed."""
        known = self._verdicts.get(digest)
        return known[1] if known is not None and known[0] == stat else None

    def forget_all_but(self, digests: Container[Digest]) -> None:
        """Drop what is known of other blobs, so that memory does not grow with what has been removed."""
        self._verdicts = {digest: known for digest, known in self._verdicts.items() if digest in digests}

    async def _is_good(self, digest: Digest, file: OpenFile) -> bool:
        known = self.verdict(digest, file.stat())
        if known is not None:
            return known
        lock = self._hashing.setdefault(digest, trio.Lock())
        try:
            async with lock:
                known = self.verdict(digest, file.stat())
                return known if known is not None else await self._hash(digest, file)
        finally:
            if not lock.locked():
                self._hashing.pop(digest, None)

    async def _hash(self, digest: Digest, file: OpenFile) -> bool:
        before = file.stat()
        good = await file.hash(digest.algorithm) == digest
        if file.stat() != before:
            raise NotHere(f"{digest} in {self._directory} changed while it was read")
        self._verdicts[digest] = (before, good)
        if not good:
            log.warning("%s in %s does not have the content that its name says; not served", digest, self._directory)
        return good

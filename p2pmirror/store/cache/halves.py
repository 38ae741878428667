"""Blobs that are half there because whoever received them ended, or gave up: found, taken over, cleared away.

Laws: what a live agent writes is never touched, its lock says so; what cannot be gone on with is removed, and nobody is
told; a name alone is believed in nothing, for all of it is hashed before it counts.
"""

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from p2pmirror.errors import MirrorError, NotHere, StoreFull, Unreachable
from p2pmirror.oci import Digest
from p2pmirror.store.cache.noting import Notes
from p2pmirror.store.cache.progress import BESIDE, NOTES_BYTES_MAX, Progress, halves, spared
from p2pmirror.store.files import Files, Writer
from p2pmirror.store.newfile import INCOMING

log = logging.getLogger("p2pmirror.store")


@dataclass(frozen=True, slots=True)
class Half:
    """A file that may be gone on with, locked, and its notes."""

    writer: Writer
    notes: Notes

    async def leave(self) -> None:
        """Leave both where they are."""
        await self.notes.leave()
        await self.writer.leave()


class Halves:
    """The halves in one cache's directory."""

    def __init__(self, root: Path, files: Files, age_s_max: float) -> None:
        """Keep them for `age_s_max` after their last byte."""
        self._root = root
        self._files = files
        self._age_s_max = age_s_max

    def notes(self, writer: Writer, size: int, piece_bytes: int) -> Notes:
        """Return the notes of a file that is begun."""
        return Notes(self._files, writer, Progress(size, piece_bytes))

    async def resumes_at(self, digest: Digest, piece_bytes_of: Callable[[int], int]) -> int:
        """Return the first byte that a half has not, if it is right, or the last byte; 0 where there is none."""
        try:
            names = await self._files.contents(self._root)
        except (NotHere, Unreachable):
            return 0
        for name in halves(names, digest.hex):
            (data,) = await self._files.read_many([self._root / (name + BESIDE)], NOTES_BYTES_MAX)
            progress = Progress.read(data)
            if progress is None or progress.size != names[name].size:
                continue
            if progress.piece_bytes == piece_bytes_of(progress.size):
                return min(progress.reach, progress.size - 1)
        return 0

    async def take_over(self, digest: Digest, size: int, piece_bytes: int) -> Half | None:
        """Take the half of a digest over, the latest where there are several. Cancellation: it stays as it was."""
        try:
            names = await self._files.contents(self._root)
        except (NotHere, Unreachable):
            return None
        for name in halves(names, digest.hex):
            half = await self._taken(self._root / name, size, piece_bytes)
            if half is not None:
                return half
        return None

    async def remove_old(self, now_s: float) -> list[str]:
        """Remove what writers that died have left, except halves that are young; return the names.

        Raises `StoreFull`.
        """
        try:
            names = await self._files.contents(self._root)
        except (NotHere, Unreachable):
            names = {}
        return await self._files.remove_abandoned(self._root, INCOMING, spared(names, now_s, self._age_s_max))

    async def _taken(self, path: Path, size: int, piece_bytes: int) -> Half | None:
        """Lock a file and its notes; what is of another size, or has none that can be read, is removed."""
        try:
            writer = await self._files.take_over(path)
        except (NotHere, StoreFull):
            return None
        notes = None
        try:
            notes = await self._files.take_over(path.with_name(path.name + BESIDE))
            progress = await _read(notes)
            if progress is not None and (writer.size, progress.size, progress.piece_bytes) == (size, size, piece_bytes):
                return Half(writer, Notes(self._files, writer, progress, notes))
        except MirrorError as error:
            log.debug("%s cannot be gone on with: %s", path, error)
        except BaseException:
            await writer.leave()
            if notes is not None:
                await notes.leave()
            raise
        await writer.discard()
        if notes is not None:
            await notes.discard()
        return None


async def _read(notes: Writer) -> Progress | None:
    if notes.size > NOTES_BYTES_MAX:
        return None
    with closing(await notes.reader()) as file:
        return Progress.read(await file.read_at(0, notes.size))

"""Writes down how far a blob has come, beside the file that it arrives in.

Laws: it costs no hash and no fsync; what the disk refuses is not noted, and nobody hears of it; a line is written after
the bytes that it tells of, and the file made with the first line.
"""

import trio

from p2pmirror.errors import MirrorError
from p2pmirror.store.cache.progress import BESIDE, Progress, piece_note, prefix_note
from p2pmirror.store.files import AlreadyThere, Files, Writer

LEAVE_S = 5.0  # for the last lines, when a task that was cancelled leaves; a broken disk must not hold it


class Notes:
    """The notes of one file. `progress` is what was noted before it was taken over."""

    def __init__(self, files: Files, blob: Writer, progress: Progress, writer: Writer | None = None) -> None:
        """Go on with `writer`, or begin with the first line."""
        self.progress = progress
        self._files = files
        self._blob = blob
        self._writer = writer
        self._start = progress.header if writer is None else b"\n"  # the last line may be torn
        self._lines = b""
        self._is_writing = False
        self._is_broken = False

    @property
    def are_none(self) -> bool:
        """Whether nothing has been noted."""
        return self._writer is None and (not self._lines or self._is_broken)

    def prefix(self, end: int, found: str) -> None:
        """Note the hash of all bytes before the end of a piece, with the next `write`."""
        self._lines += prefix_note(end, found)

    def piece(self, offset: int, found: str) -> None:
        """Note the hash of a piece, with the next `write`."""
        self._lines += piece_note(offset, found)

    async def write(self) -> None:
        """Write what was noted. Cancelled before it began or not at all."""
        if self._is_writing or self._is_broken or not self._lines:
            return
        self._is_writing, lines = True, self._lines
        try:
            if self._writer is None:
                self._writer = await self._create()
            await self._writer.append(self._start + lines)
            self._start, self._lines = b"", self._lines[len(lines) :]
        except MirrorError:
            self._is_broken = True
        finally:
            self._is_writing = False

    async def leave(self) -> None:
        """Write the rest and leave the file to whoever takes it over; a cancelled task waits for that, but not long."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S):
            await self.write()
        if self._writer is not None:
            await self._writer.leave()

    async def discard(self) -> None:
        """Remove the file."""
        self._is_broken = True
        if self._writer is not None:
            await self._writer.discard()

    async def _create(self) -> Writer:
        path = self._blob.path.with_name(self._blob.path.name + BESIDE)
        try:
            return await self._files.create(path)
        except AlreadyThere:  # of another file that had the name
            await self._files.unlink(path)
            return await self._files.create(path)

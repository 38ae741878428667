"""An open blob of a cache: while it is open it is not evicted."""

from p2pmirror.store.cache.shelf import Entry
from p2pmirror.store.files import OpenFile


class ReadFile:
    """A file that counts as one of its entry's readers until it is closed; see `wire.network.File`."""

    def __init__(self, file: OpenFile, entry: Entry) -> None:
        """Count from now on."""
        self._file = file
        self._entry: Entry | None = entry
        entry.readers += 1

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._file.size

    def fileno(self) -> int | None:
        """Return the descriptor, where there is one."""
        return self._file.fileno()

    async def read_at(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`."""
        return await self._file.read_at(offset, count)

    def close(self) -> None:
        """Let go of it; twice does no harm."""
        self._file.close()
        if self._entry is not None:
            self._entry.readers -= 1
            self._entry = None

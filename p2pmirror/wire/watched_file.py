"""An open file that says when it is closed."""

from collections.abc import Callable

from p2pmirror.wire.network import File


class WatchedFile:
    """A file whose closing is told once; see `network.File`."""

    def __init__(self, file: File, closed: Callable[[], None]) -> None:
        """Own `file`."""
        self._file = file
        self._closed: Callable[[], None] | None = closed

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
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()

"""What is wrong with a cache's directory: it cannot be read, or not be written; what is there is served meanwhile.

Law: it is said once in the log, until it is well again or wrong in another way.
"""

import logging

from p2pmirror.errors import MirrorError, StoreFull
from p2pmirror.store.files import NotWritable

log = logging.getLogger("p2pmirror.store")


class Trouble:
    """What the last look and the last write met."""

    def __init__(self) -> None:
        """Begin with nothing wrong."""
        self._unreadable: MirrorError | None = None
        self._unwritable: MirrorError | None = None

    def __bool__(self) -> bool:
        return self._met is not None

    def __str__(self) -> str:
        return str(self._met or "")

    @property
    def may_be_over(self) -> bool:
        """Whether it is worth trying if the directory can be written: not where there just was no room."""
        return self._unwritable is None or isinstance(self._unwritable, NotWritable)

    def complain(self, error: MirrorError) -> None:
        """Take note of what went wrong, `StoreFull` while writing, and say it."""
        is_writing = isinstance(error, StoreFull)
        before = self._unwritable if is_writing else self._unreadable
        if type(before) is not type(error):  # not its words: each blob for which there is no room has other ones
            log.warning("%s", error)
        if is_writing:
            self._unwritable = error
        else:
            self._unreadable = error

    def could_read(self) -> None:
        """Take note that the directory could be read."""
        self._unreadable = None

    def could_write(self) -> None:
        """Take note that a file was made."""
        self._unwritable = None

    @property
    def _met(self) -> MirrorError | None:
        return self._unreadable or self._unwritable

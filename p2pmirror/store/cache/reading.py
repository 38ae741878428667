"""An open blob of a cache: while it is open it is not evicted."""

from p2pmirror.store.cache.shelf import Entry
from p2pmirror.store.files import OpenFile
from p2pmirror.wire.watched_file import WatchedFile


class ReadFile(WatchedFile):
    """A file that counts as one of its entry's readers until it is closed."""

    def __init__(self, file: OpenFile, entry: Entry) -> None:
        """Count from now on."""
        entry.readers += 1

        def closed() -> None:
            entry.readers -= 1

        super().__init__(file, closed)

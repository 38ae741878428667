"""The real files of this host, in threads of their own.

Laws: a descriptor is closed only when no thread uses it any more, so that no read ends up in another file; reads and
hashes can be cancelled at once (an abandoned thread finishes by itself); writes and renames finish once they began.
"""

from p2pmirror.store.hostfiles.descriptor import Limiters
from p2pmirror.store.hostfiles.directory import HostFiles
from p2pmirror.store.hostfiles.reading import HostFile
from p2pmirror.store.hostfiles.writing import HostWriter

__all__ = ["HostFile", "HostFiles", "HostWriter", "Limiters"]

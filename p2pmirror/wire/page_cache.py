"""Says whether a part of a file can be read without waiting for a disk.

Laws:
- no call here waits for a disk;
- "yes" is said when every page was there (Linux 6.5's cachestat), else when one page in each stride was;
- a page that is still on its way from the disk is not there: cachestat counts it, so that some pages are read as well.

Reading one page in each stride costs 35 us for 4 MiB, a twentieth of the time of sending them; cachestat and five pages
cost 9 us. What cachestat does not tell (an older kernel, somebody else's file, overlayfs, which keeps the pages
elsewhere) is asked in strides.
"""

import ctypes
import errno
import mmap
import os
from typing import Final

STRIDE_BYTES: Final = 128 << 10  # what Linux reads ahead by default: the cache fills and empties in such runs
SPARSE_STRIDE_BYTES: Final = 1 << 20  # where every page is known to be there or on its way: for the latter
CACHESTAT: Final = 451  # its number on every architecture that the kernel still adds calls to alike

_UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})  # this file system cannot say


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("count", ctypes.c_uint64))


class _Counts(ctypes.Structure):  # of pages
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("cached", "dirty", "written", "evicted", "lately_evicted"))


# Held on to: the interpreter's lock. Giving it up costs more than the call, and other threads would keep it for long.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.POINTER(_Range), ctypes.POINTER(_Counts), ctypes.c_uint)
_syscall.restype = ctypes.c_long


def is_cached(descriptor: int, start: int, end: int) -> bool:
    """Say whether bytes `start` to `end` (exclusive, more than `start`) can be read at once.

    A page beyond the file's end counts as there; a file system that cannot say has nothing there. Raises OSError.
    """
    stride = SPARSE_STRIDE_BYTES if _has_every_page(descriptor, start, end) else STRIDE_BYTES
    buffers = [bytearray(1)]
    try:
        for position in range(start, end, stride):
            os.preadv(descriptor, buffers, position, os.RWF_NOWAIT)
        os.preadv(descriptor, buffers, end - 1, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def _has_every_page(descriptor: int, start: int, end: int) -> bool:
    """Say whether every page is there or on its way; no when the kernel does not tell."""
    counts = _Counts()
    if _syscall(CACHESTAT, descriptor, _Range(start, end - start), counts, 0):
        return False
    pages = (end - 1) // mmap.PAGESIZE - start // mmap.PAGESIZE + 1
    return bool(counts.cached >= pages)

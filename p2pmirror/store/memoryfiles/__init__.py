"""Files in memory: the twin of the real ones, with crashes, full disks and closed doors at will.

Laws: it keeps the laws of `files`; a crash keeps what was put on the disk, and of the rest keeps, loses or tears each
content and each name by itself, as the given generator decides: harsher than any real disk. Directories and lock files
need no `fsync`. After `power_off_after` has struck, every operation raises `PowerOff` until `crash`.
"""

from p2pmirror.store.memoryfiles.directory import MemoryFiles
from p2pmirror.store.memoryfiles.disk import PowerOff

__all__ = ["MemoryFiles", "PowerOff"]

"""What the kernel knows of a process: processor time, memory, and the cores that it may use."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

SERVERS = 0  # the core of whatever answers, where servers and client are kept apart
CLIENT = 1

_CPUCLOCK_SCHED = 2  # with the inverted pid: what clock_getcpuclockid(3) returns, which Python does not have


def cpu_s(pid: int) -> float:
    """Return the processor time of a process and of its ended threads, in seconds; exact to a nanosecond.

    Raises OSError when there is no such process.
    """
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


@contextlib.contextmanager
def undisturbed() -> Iterator[bool]:
    """Let this process go before all others while the block runs; tells whether that was allowed."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, policy, parameters)


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def pin(pids: Iterable[int], core: int | None) -> None:
    """Keep processes on one core, or (None) let them use all; threads that they start later do as they do."""
    every = set(range(os.cpu_count() or 1))
    cores = every if core is None or core not in every else {core}
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), cores)

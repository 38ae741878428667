"""What the kernel knows of a process: processor time, memory, and the cores that it may use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
SERVERS = 0  # the core of whatever answers, where servers and client are kept apart
CLIENT = 1


def cpu_s(pid: int) -> float:
    """Return the processor time of a process and of its ended threads, in seconds; exact to a tick, 10 ms."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * TICK_S


def running_s(pid: int) -> float:
    """Return the time that the threads which it has now have run, in seconds; exact to a nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


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


def _stat(pid: int) -> list[str]:
    # The command name, in brackets, may hold anything: read on after the last bracket (proc(5), field 3 onwards).
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

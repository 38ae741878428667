"""Removes what a run of the lab leaves behind: processes, mounts, namespaces, directories.

Laws:
- Whatever the lab makes carries the mark of its run in its name: `p2pm-<pid>-<start time of that pid>`. The mark alone
  tells whether the run still lives, so nothing has to be written down and no list can be out of date.
- What belongs to a live run is never touched.
- Each run has a keeper (this module, run as a program) that waits for the run's end, however it comes, and then
  removes what is left. `sweep` does the same for runs whose keeper was killed too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMESPACES = Path("/run/netns")
ROOT = Path(__file__).parents[2]
KILL_S = 5.0  # a killed process is gone as soon as the kernel has freed it

_MARK = re.compile(r"p2pm-(\d+)-(\d+)(?=-|$)")


def mark_of(pid: int) -> str:
    """Return the mark of the run whose test process is `pid`."""
    return f"p2pm-{pid}-{_start_ticks(pid)}"


def directory_of(mark: str) -> Path:
    """Return where the run keeps its files."""
    return Path(tempfile.gettempdir()) / mark


def marks() -> set[str]:
    """Return the marks of all runs of which something is there."""
    names = [path.name for place in (NAMESPACES, Path(tempfile.gettempdir())) for path in _entries(place)]
    return {found[0] for name in names if (found := _MARK.match(name))}


def alive(mark: str) -> bool:
    """Tell whether the test process of that run still runs (not: another process that got its pid)."""
    pid = int(mark.split("-")[1])
    with contextlib.suppress(OSError):
        return mark_of(pid) == mark
    return False


def sweep() -> list[str]:
    """Remove the leftovers of dead runs; returns their marks."""
    dead = sorted(mark for mark in marks() if not alive(mark))
    for mark in dead:
        remove(mark, directory_of(mark))
    return dead


def remove(prefix: str, directory: Path) -> None:
    """Remove the processes and namespaces whose names start with `prefix`, and `directory` with the mounts below it."""
    namespaces = [path.name for path in _entries(NAMESPACES) if path.name.startswith(f"{prefix}-")]
    _end_processes(namespaces)
    for point in _mounts_below(directory):
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)
    for name in namespaces:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
    shutil.rmtree(directory, ignore_errors=True)


class Keeper:
    """The process that cleans up when this one is gone."""

    def __init__(self, mark: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.sweep", mark], stdin=subprocess.PIPE, start_new_session=True, cwd=ROOT
        )

    def close(self) -> None:
        """Let it remove what is left and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _end_processes(namespaces: list[str]) -> None:
    deadline = time.monotonic() + KILL_S
    while pids := [pid for name in namespaces for pid in _pids_in(name)]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def _pids_in(namespace: str) -> list[int]:
    found = subprocess.run(["ip", "netns", "pids", namespace], check=False, capture_output=True, text=True)
    return [pid for pid in map(int, found.stdout.split()) if pid != os.getpid() and not _zombie(pid)]


def _zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return _stat(pid)[0] == "Z"
    return True


def _mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [line.split()[1].replace("\\040", " ") for line in lines]
    return [point for point in reversed(points) if Path(point).is_relative_to(directory)]


def _start_ticks(pid: int) -> int:
    return int(_stat(pid)[19])


def _stat(pid: int) -> list[str]:
    # The command name, in brackets, may hold anything: read on after the last bracket (proc(5), field 3 onwards).
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _entries(place: Path) -> list[Path]:
    try:
        return list(place.iterdir())
    except FileNotFoundError:
        return []


def main() -> None:
    """Wait until the run that started this keeper ends, then remove what is left of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests; their end is what counts here
    sys.stdin.buffer.read()
    remove(sys.argv[1], directory_of(sys.argv[1]))


if __name__ == "__main__":
    main()

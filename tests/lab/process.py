"""Starts, watches and ends the processes of the lab.

Laws:
- A process dies with the test run that started it, also when that is killed (PR_SET_PDEATHSIG).
- Each has its own session, so that a signal to it reaches its children and never the tests.
- What it prints goes to a file, which is shown when a test fails.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

STOP_S = 25.0  # longer than the agent's shutdown_grace of 20 s
READY_S = 60
COMMAND_S = 120.0  # a pull of the largest image through the slowest link takes 30 s
TAIL_BYTES = 6_000  # what a reader of a failed test still reads

# PR_SET_PDEATHSIG acts when the *thread* that forked ends, so all forks are made by one thread that lives as long as
# this process. Worker threads of trio end when idle and would take their children with them.
_forker = ThreadPoolExecutor(1, thread_name_prefix="lab-forker")


class CommandFailed(Exception):
    """A command of the lab ended with a code other than 0, or did not end; its output is the message."""

    def __init__(self, argv: Sequence[str], code: int | None, output: str) -> None:
        ended = "did not end in time" if code is None else f"ended with {code}"
        super().__init__(f"{' '.join(argv)} {ended}:\n{output.strip()}")
        self.code = code
        self.output = output


def run(argv: Sequence[str], *, timeout_s: float = COMMAND_S, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return its standard output; raises CommandFailed with all that it printed."""
    process = _fork(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    try:
        output, errors = process.communicate(timeout=timeout_s)
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        output, errors = process.communicate()
        code = None
    text = output.decode(errors="replace")
    if code != 0:
        raise CommandFailed(argv, code, text + errors.decode(errors="replace"))
    return text


def wait_until(ready: Callable[[], bool], what: str, *, timeout_s: float = READY_S, every_s: float = 0.05) -> None:
    """Ask again and again until `ready` says so; raises TimeoutError that names `what`."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)


class Process:
    """A long-running process whose output goes to `log`."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self._popen = _fork(argv, stdout=out, stderr=subprocess.STDOUT, env=env)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float = READY_S) -> None:
        """Wait until `ready`; raises RuntimeError with the end of the log when the process ends or takes too long."""

        def ready_or_gone() -> bool:
            return not self.running or ready()

        try:
            wait_until(ready_or_gone, f"{self.name} is ready", timeout_s=timeout_s)
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{self.tail()}") from None
        if not self.running:
            raise RuntimeError(f"{self.name} ended with {self._popen.returncode}\n{self.tail()}")

    def stop(self, *, timeout_s: float = STOP_S) -> int:
        """SIGTERM to it, SIGKILL after `timeout_s`; returns the exit code (negative: the signal)."""
        self.resume()
        self._popen.terminate()
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL to it and its children; returns the exit code."""
        _signal(self._popen, signal.SIGKILL)
        return self._popen.wait()

    def pause(self) -> None:
        """SIGSTOP: the process is there and says nothing."""
        _signal(self._popen, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        _signal(self._popen, signal.SIGCONT)

    def tail(self) -> str:
        """Return the end of what it printed, at most TAIL_BYTES."""
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - TAIL_BYTES))
            return log.read().decode(errors="replace")
        return ""


def _fork(
    argv: Sequence[str], *, stdout: int | IO[bytes], stderr: int, env: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            env=None if env is None else {**os.environ, **env},
        )

    return _forker.submit(start).result()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the whole group of a process that has not been waited for yet."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)

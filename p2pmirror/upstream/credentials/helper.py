"""Docker's credential helpers: programs that know passwords, `docker-credential-NAME get`.

Laws:
- a program is found by its checked name in the absolute directories of a search path, and nowhere else;
- it has a deadline, and is killed at it, at a cancellation, and when it prints without end;
- what it prints is shown nowhere.

Follows docker/docker-credential-helpers: the registry's server on stdin, JSON on stdout, an error's text on stdout too.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

import trio

from p2pmirror.upstream.credentials.dockerconfig import read_answer
from p2pmirror.upstream.credentials.login import BadCredentials, Login

HELPER_S_MAX: Final = 10.0  # for its own questions to a cloud's API; containerd waits 30 s for all of a pull's start
ANSWER_BYTES_MAX: Final = 64 << 10  # 64 KiB: the longest tokens have 8

_NOT_FOUND: Final = b"credentials not found"  # how every helper says that it knows nobody

AskHelper = Callable[[str, str], Awaitable[Login | None]]
"""Asks the helper of a name for a server's login; None: it knows none. Raises `BadCredentials`."""


def helpers_in(search_path: str) -> AskHelper:
    """Return what asks helpers that are found in a search path, written as PATH is."""
    directories = [each for each in search_path.split(os.pathsep) if each.startswith("/")]
    return partial(ask, os.pathsep.join(directories))


async def ask(search_path: str, name: str, server: str) -> Login | None:
    """Return the login that a helper knows for `server`, or None. Raises `BadCredentials`. Cancelled, it is killed."""
    program = f"docker-credential-{name}"
    found = shutil.which(program, path=search_path) if search_path else None
    if found is None:
        raise BadCredentials(f"there is no program {program} in PATH")
    code, output = await _run(found, server, program)
    if code == 0:
        try:
            return read_answer(output)
        except BadCredentials as error:
            raise BadCredentials(f"{program}: {error}") from None
    if _NOT_FOUND in output:
        return None
    raise BadCredentials(f"{program} ended with {code}")


async def _run(program: str, server: str, name: str) -> tuple[int, bytes]:
    """Return how a program ended and what it printed. Raises `BadCredentials` when it does not end in time."""
    output = bytearray()
    code: int | None = None
    with trio.move_on_after(HELPER_S_MAX):
        try:
            async with trio.open_nursery() as nursery:
                process: trio.Process = await nursery.start(partial(_process, program, server.encode()))
                with _all_killed(process):
                    await _read(process, output)
                    code = await process.wait()
        except ExceptionGroup:
            raise BadCredentials(f"{name} cannot be run") from None
    if code is None:
        raise BadCredentials(f"{name} did not answer within {HELPER_S_MAX:g} s")
    if len(output) > ANSWER_BYTES_MAX:
        raise BadCredentials(f"{name} answered with more than {ANSWER_BYTES_MAX} bytes")
    return code, bytes(output)


async def _process(program: str, stdin: bytes, task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(
        [program, "get"],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        deliver_cancel=_kill,
        start_new_session=True,  # so that what it starts itself can be killed with it
        task_status=task_status,
    )


async def _read(process: trio.Process, output: bytearray) -> None:
    assert process.stdout is not None, "it was asked for"
    async for part in process.stdout:
        output += part
        if len(output) > ANSWER_BYTES_MAX:
            await _kill(process)
            return


@contextmanager
def _all_killed(process: trio.Process) -> Iterator[None]:
    """Kill also what a helper has started and left behind with our pipe, unless all went well."""
    try:
        yield
    except BaseException:
        _kill_session(process)
        raise


async def _kill(process: trio.Process) -> None:
    _kill_session(process)
    await trio.lowlevel.checkpoint_if_cancelled()


def _kill_session(process: trio.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)

"""How a node is asked: containerd by its socket, hosts and the agent over HTTP, the kernel by its files.

Laws: each question has a limit and one answer, or a reason in one line; nothing on the node is changed by any.
"""

import ctypes
import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.hostconfig.doctor.node import Limits, Space
from p2pmirror.store.containerd.client import NAMESPACE_HEADER, ContainerdClient
from p2pmirror.store.containerd.grpc import Channel, RpcError, unix_dial

ANSWER_S: Final = 5.0  # of a containerd or an agent that is out of breath; containerd itself dials for 200 ms
TIMEX_BYTES: Final = 512  # more than the kernel's struct timex on any machine
TIME_ERROR: Final = 5  # adjtimex(2): nobody keeps the clock right
NO_LIMIT: Final = 1 << 60  # a cgroup of version 1 says no limit by a number near 2**63
_CGROUPS: Final = Path("/sys/fs/cgroup")
_PROC: Final = Path("/proc")
_KEYS: Final = re.compile(r'^p2pmirror_node_peer_keys\{state="(\w+)"\} ([0-9.]+)$', re.MULTILINE)


async def ask_containerd(socket: Path, namespace: str) -> tuple[str | None, Path | None, str]:
    """Return containerd's version, where its content is, and why there is no answer."""
    try:
        with trio.fail_after(ANSWER_S):
            async with trio.open_nursery() as nursery:
                channel = Channel(unix_dial(socket), [(NAMESPACE_HEADER, namespace)])
                await nursery.start(channel.run)
                client = ContainerdClient(channel, namespace)
                try:
                    version, root = await client.version(), await client.content_root()
                except (Unreachable, RpcError) as error:
                    return None, None, str(error)
                finally:
                    nursery.cancel_scope.cancel()
    except trio.TooSlowError:
        return None, None, f"no answer within {ANSWER_S:g} s"
    return version, Path(root) if root else None, ""


def is_readable(directory: Path) -> bool:
    """Tell whether a directory can be read, or will be when containerd makes it: 2.x does so with the first content."""
    there = directory if directory.exists() else directory.parent
    return os.access(there, os.R_OK | os.X_OK)


def ask(url: str) -> tuple[int | None, str, str]:
    """Return status and text of what is at a URL, and why there is nothing."""
    try:
        answer = httpx.get(url, timeout=ANSWER_S, trust_env=False, follow_redirects=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return None, "", str(error) or type(error).__name__
    return answer.status_code, answer.text, ""


def space_at(what: str, path: Path) -> Space | None:
    """Return the room at a path, or at what is there of it."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return Space(what, path, usage.free, usage.total)


def clock_is_synchronised() -> bool | None:
    """Return whether the kernel believes that its clock is kept right; None where it does not say."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR


def agent_limits(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Limits:
    """Return what the cgroup of the agent on this machine allows, or of this process where no agent is seen."""
    agent = next(_agents(proc), None)
    whose = "the agent's cgroup" if agent is not None else "this command's cgroup (no agent's process is seen)"
    try:
        groups = (proc / (agent or "self") / "cgroup").read_text().splitlines()
    except OSError:
        return Limits(whose)
    paths = {kind: cgroups / kind / way.lstrip("/") for _, kind, way in (line.split(":", 2) for line in groups)}
    unified = paths.get("", cgroups)
    return Limits(
        whose,
        memory_bytes=_number(unified / "memory.max", _under(paths, "memory") / "memory.limit_in_bytes"),
        cores=_cores(unified / "cpu.max", _under(paths, "cpu")),
    )


def _agents(proc: Path) -> Iterator[str]:
    """Yield the ids of processes that are agents."""
    for each in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            argv = (each / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(Path(name).name == "p2pmirror" and what == "agent" for name, what in pairwise(argv)):
            yield each.name


def _under(paths: dict[str, Path], controller: str) -> Path:
    return next((path for kind, path in paths.items() if controller in kind.split(",")), Path("/nowhere"))


def _number(*files: Path) -> int | None:
    """Return the number in the first of these files that there is; None for no limit."""
    for file in files:
        said = _words(file)
        if said:
            return int(said[0]) if said[0].isdigit() and int(said[0]) < NO_LIMIT else None
    return None


def _cores(unified: Path, older: Path) -> float | None:
    quota = _words(unified) or [*_words(older / "cpu.cfs_quota_us"), *_words(older / "cpu.cfs_period_us")]
    if len(quota) < 2 or not (quota[0].isdigit() and quota[1].isdigit() and int(quota[1])):
        return None
    return int(quota[0]) / int(quota[1])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def ask_status(agent: str) -> tuple[dict[str, Any] | None, str]:
    """Return what an agent says of itself, and why there is nothing."""
    status, text, reason = ask(f"{agent.rstrip('/')}/api/v1/status")
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if isinstance(said, dict) and status == 200:
        return said, ""
    return None, reason or f"what answers is no agent ({status})"


def keys_of(agent: str) -> tuple[int, bool] | None:
    """Return how many keys an agent accepts, and whether it refuses its key file now; None: it does not say."""
    status, text, _ = ask(f"{agent.rstrip('/')}/metrics")
    found = dict(_KEYS.findall(text)) if status == 200 else {}
    return (int(float(found["accepted"])), float(found.get("refused", 0)) > 0) if "accepted" in found else None

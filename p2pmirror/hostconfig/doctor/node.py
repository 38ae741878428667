"""The agent of this node and what it stands on: reachable, ready, not alone; disk, clock, key, memory and processor.

Law: this module judges what it is told; how it was asked for is not its business.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from p2pmirror.hostconfig.doctor.finding import Finding

EPOCH_S: Final = 1_735_689_600  # 2025: an earlier clock was never set
FREE_BYTES_MIN: Final = 1 << 30  # what the cache leaves to others
FREE_SHARE_MIN: Final = 0.1  # a kubelet begins to remove images at 15 % and evicts pods at 10 %
MEMORY_BYTES_MIN: Final = 128 << 20  # an agent with 1,000 open responses
CORES_MIN: Final = 0.5  # below, transfers are slowed down before links are full


@dataclass(frozen=True, slots=True)
class Space:
    """How much room there is at a path, for what."""

    what: str
    path: Path
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cgroup allows, None: no limit. `whose`: whose cgroup it is."""

    whose: str
    memory_bytes: int | None = None
    cores: float | None = None


def port_finding(address: str, status: int | None, reason: str) -> Finding:
    """Judge the answer to `/v2/` at an address that hosts.toml names; `status` None: there was none, for `reason`."""
    if status == 200:
        return Finding("port", "ok", f"{address} answers")
    if status is None:
        todo = (
            "start the agent (or the shared cache), and compare its registry_addr; pulls go to the registry until then"
        )
        return Finding("port", "bad", f"{address} does not answer: {reason}", todo)
    if status == 403:
        todo = "add this node's address to allowed_clients: the agent takes requests from here for a stranger's"
        return Finding("port", "bad", f"{address} refuses this node (403)", todo)
    return Finding("port", "bad", f"{address} answers /v2/ with {status}", "is it an agent that listens there?")


def agent_findings(status: Mapping[str, Any] | None, url: str, reason: str) -> Iterator[Finding]:
    """Judge what the agent says of itself; None: it did not answer, for `reason`."""
    if status is None:
        todo = "start it, or say where it is: --agent URL"
        yield Finding("agent", "bad", f"does not answer at {url}: {reason}", todo)
        return
    if status.get("ready"):
        yield Finding("agent", "ok", f"p2pmirror {status.get('version')} is ready")
    else:
        reasons = "; ".join(map(str, status.get("reasons") or ["it does not say why"]))
        yield Finding("agent", "bad", f"is not ready: {reasons}", "see its log; it answers 404 until then")
    yield _peers(status.get("members") or [])
    trouble = (status.get("cache") or {}).get("trouble")
    if trouble:
        yield Finding("cache", "bad", f"keeps nothing: {trouble}", "mend the directory; what is held is still served")


def _peers(members: Sequence[Mapping[str, Any]]) -> Finding:
    alive = sum(each.get("state") == "alive" for each in members) - 1
    if alive > 0:
        return Finding("peers", "ok", f"{alive} other node{'s are' if alive > 1 else ' is'} seen")
    todo = "set bootstrap to the name or addresses of others; let UDP 29998 and TCP 29999 through; compare cluster keys"
    return Finding("peers", "warn", "no other node is seen", todo)


def content_finding(path: Path | None, *, is_readable: bool) -> Finding:
    """Judge containerd's content directory; None: containerd did not say where it is."""
    if path is None:
        return Finding("content", "skip", "containerd did not say where its content is")
    if is_readable:
        return Finding("content", "ok", f"{path} can be read")
    todo = "mount it where containerd has it, or say where: containerd_content_path; and let the agent's user read it"
    said = f"{path} cannot be read here: layers are read through containerd's socket, which is slower"
    return Finding("content", "warn", said, todo)


def clock_finding(now_s: float, *, is_synchronised: bool | None) -> Finding:
    """Judge the clock: seconds since 1970, and what the kernel says of it, None where it says nothing."""
    todo = "set it, and run chrony, ntpd or systemd-timesyncd: certificates and logins of registries depend on it"
    if now_s < EPOCH_S:
        return Finding("clock", "bad", "is years behind", todo)
    if is_synchronised is False:
        return Finding("clock", "warn", "nobody keeps it right, says the kernel", todo)
    return Finding("clock", "ok", "is set" if is_synchronised is None else "is kept right")


def key_finding(path: Path | None, reason: str, in_agent: tuple[int, bool] | None) -> Finding:
    """Judge the cluster's key: its file, `reason` being what is wrong with it, and what the agent has.

    `path` is None where no settings name one. `in_agent`: how many keys it accepts, and whether it refuses its file as
    that is now.
    """
    if reason:
        return Finding("key", "bad", f"{path}: {reason}", "write one: openssl rand -hex 32; see docs/security.md")
    if in_agent is not None and in_agent[1]:
        return Finding("key", "bad", "the agent refuses its key file and keeps the keys before it", "see its log")
    if path is None and in_agent is None:
        return Finding("key", "skip", "the agent does not answer, and no settings name a file")
    count = in_agent[0] if in_agent is not None else 1
    if count == 0:
        todo = "make one (openssl rand -hex 32) and name it: peer_key_file; see docs/security.md"
        return Finding("key", "warn", "there is none: whoever reaches the ports is served and believed", todo)
    told = "the agent has one" if count == 1 else f"the agent has {count}, one of them to be taken out"
    return Finding("key", "ok", told if in_agent is not None else f"{path} has one")


def space_finding(space: Space) -> Finding:
    """Judge the room on a disk."""
    free_mib = space.free_bytes >> 20
    said = f"{free_mib} MiB are free for {space.what} at {space.path}"
    if space.free_bytes < FREE_BYTES_MIN:
        return Finding("space", "bad", said, "make room: pulls fail on a full disk, whoever they come from")
    if space.free_bytes < FREE_SHARE_MIN * space.total_bytes:
        return Finding(
            "space", "warn", said, "make room: under a tenth kubelet evicts pods; cache_max_bytes may be less"
        )
    return Finding("space", "ok", said)


def limits_findings(limits: Limits) -> Iterator[Finding]:
    """Judge what the cgroup allows."""
    if limits.memory_bytes is not None and limits.memory_bytes < MEMORY_BYTES_MIN:
        said = f"{limits.whose} may have {limits.memory_bytes >> 20} MiB of memory: many transfers at once kill it"
        yield Finding("limits", "bad", said, "let it have 256 MiB or more")
    elif limits.cores is not None and limits.cores < CORES_MIN:
        said = f"{limits.whose} may use {limits.cores:g} cores: transfers wait for the processor"
        yield Finding("limits", "warn", said, "let it have half a core or more, or no limit")
    else:
        memory = "any" if limits.memory_bytes is None else f"{limits.memory_bytes >> 20} MiB of"
        cores = "any number of" if limits.cores is None else f"{limits.cores:g}"
        yield Finding("limits", "ok", f"{limits.whose} may have {memory} memory and {cores} cores")

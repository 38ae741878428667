"""Large blobs: served from the store to one client and to many, and relayed from a peer; nginx does the same beside us.

Laws: both sides serve the same file from the page cache, to the same client; who serves shares no core with who
receives where blobs are served, and everybody uses all cores where they are relayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load import Job
from benchmarks.peers import FILES_PORT, PROXY_PORT
from benchmarks.processes import CLIENT, SERVERS, cpu_s, pin
from benchmarks.rows import Budget, Row, compared, turns
from benchmarks.stage import Pair, Stage
from tests.lab.agent import REGISTRY_PORT
from tests.lab.network import Host
from tests.lab.process import Process

GIB = 1 << 30
CLIENTS = 64
FOLLOWERS = 16  # of one flight
NO_NGINX = "nginx is not installed"


@dataclass(frozen=True)
class Flow:
    """What came of one turn."""

    gib_per_s: float
    cpu_s_per_gib: float


@dataclass(frozen=True)
class Source:
    """Who serves: a target at a host's port, and the processes whose time it costs."""

    host: Host
    port: int
    target: str
    processes: Sequence[Process]
    client: Host | None = None  # where it is asked from; None: beside the relay


def blob(stage: Stage) -> list[Row]:
    """Serve a blob that is in the store."""
    pair, big = stage.pair, stage.content.big
    one, shared, _ = big.layers
    rows = []
    for clients, digest, name in ((1, one, "one client"), (CLIENTS, shared, f"{CLIENTS} clients")):
        ours = Source(pair.far, REGISTRY_PORT, big.target(digest), [pair.holder_process])
        peer = None
        if pair.nginx is not None:
            peer = Source(pair.far, FILES_PORT, _file(digest), [pair.nginx])
        budget = Budget(">=", 0.9, of="ratio")
        mib = stage.scale.blob_mib if clients == 1 else stage.scale.shared_mib
        note = f"{clients} x {mib} MiB; servers on one core, client on the other; peer: nginx sendfile"
        rows += _rows(stage, f"serve a blob, {name}", note, (ours, peer), budget, clients=clients, apart=True)
    return rows


def relay(stage: Stage) -> list[Row]:
    """Pass a blob on from a peer, hashed on the way."""
    pair, big, scale = stage.pair, stage.content.big, stage.scale
    one, _, relayed = big.layers
    processes = [pair.relay_process, pair.holder_process]
    rows = []
    for clients, digest, name in ((1, one, ""), (CLIENTS, relayed, f", {CLIENTS} clients")):
        ours = Source(pair.near, REGISTRY_PORT, big.target(digest), processes)
        peer = None
        if pair.nginx_proxy is not None and pair.nginx is not None:
            peer = Source(pair.near, PROXY_PORT, _file(digest), [pair.nginx_proxy, pair.nginx])
        size = f"{scale.blob_mib} MiB" if clients == 1 else f"{clients} x {scale.relayed_mib} MiB"
        note = f"{size}; nobody pinned; peer: nginx proxy_pass, proxy_buffering off, before nginx sendfile"
        budget = Budget(">=", 1.7, of="ratio")
        rows += _rows(
            stage, f"relay a blob from a peer{name}", note, (ours, peer), budget, clients=clients, apart=False
        )
    return rows


def flight(stage: Stage) -> list[Row]:
    """Let a blob arrive from a peer in pieces, verified and written to the cache, for one client and for many."""
    pair, layers = stage.pair, iter(stage.content.flown.layers)
    host, process = pair.keeper
    rows = []
    for clients, name in ((1, "one client"), (FOLLOWERS, f"{FOLLOWERS} clients")):

        def ours(clients: int = clients) -> Flow:
            target = stage.content.flown.target(next(layers))
            processes = [process, pair.holder_process]
            return _flow(pair, Source(host, REGISTRY_PORT, target, processes, client=host), clients, apart=False)

        def peer(clients: int = clients) -> Flow:
            assert pair.nginx_proxy is not None
            assert pair.nginx is not None
            target = _file(stage.content.flown.layers[0])
            return _flow(
                pair, Source(pair.near, PROXY_PORT, target, [pair.nginx_proxy, pair.nginx]), clients, apart=False
            )

        both = turns(stage.scale.rounds, ours, peer if pair.nginx_proxy is not None else None)
        size = f"{stage.scale.flown_mib} MiB, another one each time, in the cache at the end; nobody pinned"
        note = f"{size}; peer: nginx proxy_pass, proxy_buffering off, before nginx sendfile"
        rows += _compared(f"a blob from a peer, kept, {name}", note, both, Budget(">=", 1.3, of="ratio"))
    return rows


def _rows(
    stage: Stage,
    name: str,
    note: str,
    sides: tuple[Source, Source | None],
    budget: Budget | None,
    *,
    clients: int,
    apart: bool,
) -> list[Row]:
    ours, peer = sides
    pair = stage.pair
    both = turns(
        stage.scale.rounds,
        lambda: _flow(pair, ours, clients, apart=apart),
        None if peer is None else lambda: _flow(pair, peer, clients, apart=apart),
    )
    return _compared(name, note, both, budget)


def _compared(name: str, note: str, both: tuple[list[Flow], list[Flow]], budget: Budget | None) -> list[Row]:
    flows, peer_flows = both
    note = note if peer_flows else NO_NGINX
    speed = Row(name, "GiB/s", budget=budget, note=note)
    cost = Row(f"CPU: {name}", "s/GiB", note="user and system time of those who serve")
    return [
        compared(speed, [flow.gib_per_s for flow in flows], [flow.gib_per_s for flow in peer_flows]),
        compared(cost, [flow.cpu_s_per_gib for flow in flows], [flow.cpu_s_per_gib for flow in peer_flows]),
    ]


def _flow(pair: Pair, source: Source, clients: int, *, apart: bool) -> Flow:
    pids = [process.pid for process in source.processes]
    pin(pids, SERVERS if apart else None)
    job = Job(
        source.host.address,
        source.port,
        [source.target],
        connections=clients,
        count=clients,
        cores=[CLIENT] if apart else [],
    )
    before = sum(map(cpu_s, pids))
    answer = pair.place.load(source.client or pair.near, job)
    spent = sum(map(cpu_s, pids)) - before
    gib = answer["bytes"] / GIB
    return Flow(gib / answer["seconds"], spent / gib)


def _file(digest: str) -> str:
    return f"/blobs/sha256/{digest.removeprefix('sha256:')}"

"""Small answers: manifests from the store and from a peer, first bytes of blobs, and what a miss costs."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.content import REGISTRY, Image
from benchmarks.load import Job
from benchmarks.peers import REGISTRY_PORT as PEER_PORT
from benchmarks.processes import CLIENT, SERVERS, cpu_s, pin
from benchmarks.rows import Budget, Row, compared, turns
from benchmarks.stage import MANIFEST_BYTES, Pair, Stage
from p2pmirror.resolve.manifests import RECENT_BYTES_MAX
from tests.lab.agent import REGISTRY_PORT
from tests.lab.process import Process

CONNECTIONS = 16
PEER_CONNECTIONS = 4
MANY = 64  # connections, where it is shown what becomes of an agent that many ask at once
WARM_UP = 20  # answers until connections, caches and branch predictors are what they will be


@dataclass(frozen=True)
class Answered:
    """What came of one turn: answers a second, the time of the 99th of 100, and what one cost the server."""

    per_s: float
    p99_ms: float
    cpu_us: float


def manifest(stage: Stage) -> list[Row]:
    """Manifests that are held, by digest, GET and HEAD; docker-registry has the same ones."""
    few = [row for method in ("GET", "HEAD") for row in _manifest(stage, method, CONNECTIONS)]
    return [*few, *_manifest(stage, "GET", MANY)]


def manifest_from_peer(stage: Stage) -> list[Row]:
    """Manifests that only a peer holds: fetched each time, and asked for again. Every body is checked."""
    many = stage.content.many
    fetched, fetched_wrong, total = _from_peer(stage, many, PEER_CONNECTIONS)
    at_once, at_once_wrong, at_once_total = _from_peer(stage, many, MANY)
    kept, kept_wrong, kept_total = _from_peer(stage, many[:1], PEER_CONNECTIONS)
    note = f"{PEER_CONNECTIONS} connections, nobody pinned"
    each = f"{note}; {len(many)} manifests of {MANIFEST_BYTES} bytes in turn"
    each += ", more than are kept, so that each is fetched" if len(many) * MANIFEST_BYTES > RECENT_BYTES_MAX else ""
    rate = Row("manifest from a peer, fetched", "1/s", budget=Budget(">=", 2000), note=each)
    many_at_once = Row(f"manifest from a peer, fetched, {MANY} connections", "1/s", budget=Budget(">=", 2000))
    again = Row("manifest from a peer, asked again", "1/s", note=f"{note}; one manifest, which is kept for a minute")
    wrong = fetched_wrong + at_once_wrong + kept_wrong
    checked = f"of {total + at_once_total + kept_total} answers, each compared with its digest"
    return [
        compared(rate, fetched, []),
        compared(many_at_once, at_once, []),
        compared(again, kept, []),
        Row("wrong answers among these", "", wrong, budget=Budget("<=", 0), note=checked),
    ]


def first_byte(stage: Stage) -> list[Row]:
    """First bytes of blobs that are held, and of blobs that only a peer holds."""
    pair = stage.pair
    return [
        *_first_byte(stage, pair.far.address, "of a local hit", (1, 3)),
        *_first_byte(stage, pair.near.address, "of a peer hit", (5, 10)),
    ]


def miss(stage: Stage) -> list[Row]:
    """Digests and tags that nobody has."""
    pair, count = stage.pair, stage.scale.answers
    pin([pair.holder_process.pid, pair.relay_process.pid], None)
    rows = []
    for what, references in (
        ("blob", [f"blobs/sha256:{secrets.token_hex(32)}" for _ in range(count)]),
        ("tag", [f"manifests/{secrets.token_hex(8)}" for _ in range(count)]),
    ):
        targets = [f"/v2/bench/nobody/{reference}?ns={REGISTRY}" for reference in references]
        answer = pair.place.load(pair.near, Job(pair.near.address, REGISTRY_PORT, targets, status=404, count=count))
        note = f"{count} different ones, one after another, two nodes; {answer['wrong']} were not 404"
        rows += [
            Row(f"a {what} that nobody has, p50", "ms", answer["whole_ms"]["p50"], budget=Budget("<=", 5), note=note),
            Row(f"a {what} that nobody has, longest", "ms", answer["whole_ms"]["max"], budget=Budget("<=", 40)),
        ]
    return rows


def _from_peer(stage: Stage, images: Sequence[Image], connections: int) -> tuple[list[float], int, int]:
    """Return the right answers a second of each turn; and of all turns the wrong answers and all answers."""
    pair = stage.pair
    pin([pair.holder_process.pid, pair.relay_process.pid], None)
    targets = [image.target(image.digest, ns=False) for image in images]
    job = Job(pair.near.address, REGISTRY_PORT, targets, connections=connections, seconds=stage.scale.seconds)
    job.warm_up, job.digests = WARM_UP, True
    answers, _ = turns(stage.scale.rounds, lambda: pair.place.load(pair.near, job), None)
    rates = [_rate(answer) for answer in answers]
    return rates, sum(answer["wrong"] for answer in answers), sum(answer["answers"] for answer in answers)


def _manifest(stage: Stage, method: str, connections: int) -> list[Row]:
    pair = stage.pair
    image = stage.content.plain
    holder = pair.holder_process
    pin([process.pid for process in (holder, pair.registry) if process is not None], SERVERS)

    def ask(port: int, process: Process) -> Answered:
        target = image.target(image.digest, ns=port == REGISTRY_PORT)
        job = Job(pair.far.address, port, [target], method, connections=connections, seconds=stage.scale.seconds)
        job.warm_up, job.cores = WARM_UP, [CLIENT]
        before = cpu_s(process.pid)
        answer = pair.place.load(pair.near, job)
        spent = cpu_s(process.pid) - before
        return Answered(_rate(answer), answer["whole_ms"]["p99"], spent / (answer["answers"] + WARM_UP) * 1e6)

    registry = pair.registry
    peer = None if registry is None else lambda: ask(PEER_PORT, registry)
    ours, theirs = turns(stage.scale.rounds, lambda: ask(REGISTRY_PORT, holder), peer)
    note = f"{connections} connections, server on one core, client on the other; each writes a log line per request"
    note = note if theirs else "docker-registry is not installed"
    name = f"manifest {method}, held" + (f", {connections} connections" if connections == MANY else "")
    rate = Row(name, "1/s", budget=Budget(">=", 4, of="ratio"), note=note)
    budget = Budget("<=", 5) if connections == CONNECTIONS else None
    late = Row(f"{name}, p99", "ms", budget=budget, note="at that load")
    cost = Row(f"CPU: {name}", "us", note="user and system time of the server, an answer")
    return [
        compared(rate, [each.per_s for each in ours], [each.per_s for each in theirs]),
        compared(late, [each.p99_ms for each in ours], [each.p99_ms for each in theirs]),
        compared(cost, [each.cpu_us for each in ours], [each.cpu_us for each in theirs]),
    ]


def _first_byte(stage: Stage, address: str, name: str, budgets: tuple[float, float]) -> list[Row]:
    pair: Pair = stage.pair
    fine = stage.content.fine
    pin([pair.holder_process.pid, pair.relay_process.pid], None)
    targets = [fine.target(digest) for digest in fine.layers]
    job = Job(address, REGISTRY_PORT, targets, count=stage.scale.answers, warm_up=WARM_UP)
    answer = pair.place.load(pair.near, job)["first_byte_ms"]
    note = f"{stage.scale.answers} GETs one after another on one connection, {len(targets)} blobs of 1 MiB in turn"
    return [
        Row(f"first byte {name}, p50", "ms", answer["p50"], budget=Budget("<=", budgets[0]), note=note),
        Row(f"first byte {name}, p99", "ms", answer["p99"], budget=Budget("<=", budgets[1])),
    ]


def _rate(answer: dict[str, Any]) -> float:
    return float((answer["answers"] - answer["wrong"]) / answer["seconds"])

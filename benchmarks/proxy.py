"""Registries fetched through an agent with a cache, and through docker-registry's proxy mode, from the same registry.

Laws:
- one docker-registry is the upstream of both sides, and its access log says what each took of it: docker-registry as a
  proxy asks for a blob once more to keep it, and goes on with that when the client has all, so that a turn begins when
  the one before is really over;
- a blob is cold for a side once: each turn asks for another one, the same for both sides;
- whoever serves what is cached shares no core with who receives; while blobs come from upstream nobody is pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.content import MANIFEST, REGISTRY, Image, write_images
from benchmarks.load import Job
from benchmarks.places import Place
from benchmarks.processes import CLIENT, SERVERS, cpu_s, pin
from benchmarks.rows import Budget, Row, compared, turns
from benchmarks.stage import MIB, PLAIN_LAYERS, Stage, start_agents
from tests.lab.agent import REGISTRY_PORT
from tests.lab.network import Host
from tests.lab.process import Process, wait_until
from tests.lab.registry import Request

CONNECTIONS = 16
CROWDS = (1, 4, 16)  # clients that want the same cold blob at once
WARM_UP = 20
QUIET_S = 0.5  # without a new line in the registry's log, and with next to no time spent by either side
QUIET_CPU_S = 0.05  # an agent at rest takes a tenth of that
OURS = "p2pmirror/"  # how our agent calls itself
GIB = 1 << 30
BETTER = Budget(">=", 1, of="ratio")
SOONER = Budget("<=", 1, of="ratio")


@dataclass(frozen=True)
class Side:
    """Who is asked: a host's port, its process, and whether the registry's name is said, as containerd does."""

    host: Host
    port: int
    process: Process
    ns: bool


class Scene:
    """A registry with images, our agent and a proxying docker-registry before it, and a client."""

    def __init__(self, place: Place, stage: Stage) -> None:
        scale = stage.scale
        self.place = place
        self.scale = scale
        turns_of_all = len(CROWDS) * (scale.cold_rounds + 1)
        self.big, self.plain, self.cold, self.small = write_images(
            place.directory / "content",
            [
                [scale.proxied_mib * MIB],
                [1000] * PLAIN_LAYERS,
                [scale.cold_mib * MIB] * turns_of_all,
                [MIB] * scale.cold_small,
            ],
        )
        self.registry, own, theirs, self.client = map(place.host, ("registry", "agent", "proxy", "client"))
        peers.start_registry(self.registry, self.registry.directory / "storage")
        for image in (self.big, self.plain, self.cold, self.small):
            blobs = {digest: image.path(digest) for digest in (image.config, *image.layers)}
            peers.push(self.registry, image.repository, image.manifest, MANIFEST, blobs, tag="1")
        config = _settings(own.directory / "settings.toml", self.registry)
        agent = place.agent(own, [own], store="none", cache_dir=str(own.directory / "cache"), config=str(config))
        (process,) = start_agents([agent])
        self.ours = Side(own, REGISTRY_PORT, process, ns=True)
        proxy = peers.start_registry(theirs, theirs.directory / "storage", of=self.registry)
        self.theirs = Side(theirs, peers.REGISTRY_PORT, proxy, ns=False)

    def ask(self, side: Side, target: str, **job: Any) -> dict[str, Any]:
        """Have the client ask for one target, and what `job` says besides."""
        return self.place.load(self.client, Job(side.host.address, side.port, [target], **job))

    def apart(self, *, apart: bool) -> None:
        """Keep both sides on one core, or let them use all."""
        pin([self.ours.process.pid, self.theirs.process.pid], SERVERS if apart else None)

    def turns(self, rounds: int, measure: Callable[[Side], Any]) -> tuple[list[Any], list[Any]]:
        """Measure both sides in turns."""
        return turns(rounds, lambda: measure(self.ours), lambda: measure(self.theirs))

    def answered(self, side: Side) -> list[Request]:
        """Return what the upstream registry has answered to one side until now."""
        lines = (self.registry.directory / "registry.log").read_text(errors="replace").splitlines()
        own = [line for line in lines if (OURS in line) == (side is self.ours)]
        return [request for line in own if (request := Request.of(line)) is not None]

    def settle(self) -> None:
        """Wait until nobody does anything any more."""
        pids = [self.ours.process.pid, self.theirs.process.pid]
        seen = [(0, 0.0)]

        def still() -> bool:
            lines = len(self.answered(self.ours)) + len(self.answered(self.theirs))
            seen.append((lines, sum(map(cpu_s, pids))))
            (lines_before, cpu_before), (lines_now, cpu_now) = seen[-2:]
            return lines_now == lines_before and cpu_now - cpu_before < QUIET_CPU_S

        wait_until(still, "both sides are at rest", every_s=QUIET_S)


def proxy(stage: Stage) -> list[Row]:
    """Ask for cached blobs and manifests, and for cold blobs, by one client and by many."""
    if not peers.registry_here():
        raise RuntimeError("docker-registry, which is the upstream too, is not installed")
    with Place() as place:
        scene = Scene(place, stage)
        return [
            *_cached_blob(scene),
            *_answers(scene, "manifest GET", "GET", lambda side: scene.plain.target(scene.plain.digest, ns=side.ns)),
            *_answers(scene, "manifest HEAD", "HEAD", lambda side: scene.plain.target(scene.plain.digest, ns=side.ns)),
            *_answers(
                scene, "blob of 1,000 bytes", "GET", lambda side: scene.plain.target(scene.plain.layers[0], ns=side.ns)
            ),
            *_answers(scene, "manifest by tag", "GET", lambda side: _by_tag(scene.plain, side)),
            *_cold(scene),
            *_first_byte(scene),
        ]


def _cached_blob(scene: Scene) -> list[Row]:
    scene.apart(apart=True)
    digest = scene.big.layers[0]

    def flow(side: Side) -> tuple[float, float]:
        before = cpu_s(side.process.pid)
        answer = scene.ask(side, scene.big.target(digest, ns=side.ns), count=1, cores=[CLIENT])
        spent = cpu_s(side.process.pid) - before
        return answer["bytes"] / GIB / answer["seconds"], spent / (answer["bytes"] / GIB)

    ours, theirs = scene.turns(scene.scale.rounds, flow)
    note = f"{scene.scale.proxied_mib} MiB, one client; servers on one core, client on the other; peer: docker-registry"
    name = "a cached blob"
    return [
        compared(Row(name, "GiB/s", budget=BETTER, note=f"{note} as a proxy"), *_column(0, ours, theirs)),
        compared(Row(f"CPU: {name}", "s/GiB", note="user and system time of the server"), *_column(1, ours, theirs)),
    ]


def _answers(scene: Scene, name: str, method: str, target: Callable[[Side], str]) -> list[Row]:
    """Answers a second of what is cached."""
    scene.apart(apart=True)

    def rate(side: Side) -> tuple[float, float]:
        job = {"connections": CONNECTIONS, "seconds": scene.scale.seconds, "warm_up": WARM_UP, "cores": [CLIENT]}
        answer = scene.ask(side, target(side), method=method, **job)
        return (answer["answers"] - answer["wrong"]) / answer["seconds"], answer["whole_ms"]["p99"]

    ours, theirs = scene.turns(scene.scale.rounds, rate)
    asked = ", for which upstream is asked each time" if "tag" in name else ""
    note = f"{CONNECTIONS} connections, server on one core, client on the other{asked}"
    return [
        compared(Row(f"cached: {name}", "1/s", budget=BETTER, note=note), *_column(0, ours, theirs)),
        compared(Row(f"cached: {name}, p99", "ms", budget=SOONER), *_column(1, ours, theirs)),
    ]


@dataclass(frozen=True)
class _Fetched:
    seconds: float
    copies: float
    requests: int


def _cold(scene: Scene) -> list[Row]:
    """Blobs that only the registry has, for some clients at once."""
    scene.apart(apart=False)
    size = scene.scale.cold_mib * MIB
    left = {side.port: iter(scene.cold.layers) for side in (scene.ours, scene.theirs)}
    rows = []
    for clients in CROWDS:

        def fetch(side: Side, clients: int = clients) -> _Fetched:
            return _fetch(scene, side, left[side.port], clients)

        ours, theirs = scene.turns(scene.scale.cold_rounds, fetch)
        name = f"a cold blob, {clients} client{'s' if clients > 1 else ''}"
        note = f"{clients} x {size // MIB} MiB, nobody pinned, one docker-registry upstream"
        copies = Budget("<=", 1.05)
        rows += [
            compared(
                Row(name, "s", budget=SOONER, note=f"{note}; until the last client has all"),
                [each.seconds for each in ours],
                [each.seconds for each in theirs],
            ),
            compared(
                Row(
                    f"{name}: copies from upstream", "", budget=copies, note="bytes that upstream sent, over the blob's"
                ),
                [each.copies for each in ours],
                [each.copies for each in theirs],
            ),
            compared(
                Row(f"{name}: questions to upstream", "", budget=SOONER),
                [each.requests for each in ours],
                [each.requests for each in theirs],
            ),
        ]
    return rows


def _fetch(scene: Scene, side: Side, left: Iterator[str], clients: int) -> _Fetched:
    target = scene.cold.target(next(left), ns=side.ns)
    before = len(scene.answered(side))
    answer = scene.ask(side, target, connections=clients, count=clients)
    assert not answer["wrong"], answer["first_wrong"]
    scene.settle()
    asked = scene.answered(side)[before:]
    sent = sum(request.size for request in asked if request.method == "GET" and request.status < 300)
    return _Fetched(answer["seconds"], sent / (scene.scale.cold_mib * MIB), len(asked))


def _first_byte(scene: Scene) -> list[Row]:
    """First bytes of cold blobs, one after another."""
    scene.apart(apart=False)
    scene.settle()
    found = {}
    for side in (scene.ours, scene.theirs):
        targets = [scene.small.target(digest, ns=side.ns) for digest in scene.small.layers]
        job = Job(side.host.address, side.port, targets, count=len(targets))
        found[side.port] = scene.place.load(scene.client, job)["first_byte_ms"]
    ours, theirs = found[scene.ours.port], found[scene.theirs.port]
    note = f"{scene.scale.cold_small} blobs of 1 MiB that only the registry has, one after another"
    return [
        Row("first byte of a cold blob, p50", "ms", ours["p50"], theirs["p50"], budget=SOONER, note=note),
        Row("first byte of a cold blob, p99", "ms", ours["p99"], theirs["p99"], budget=SOONER),
    ]


def _by_tag(image: Image, side: Side) -> str:
    return f"/v2/{image.repository}/manifests/1{f'?ns={REGISTRY}' if side.ns else ''}"


def _column(number: int, *sides: Sequence[tuple[float, ...]]) -> list[list[float]]:
    return [[figures[number] for figures in side] for side in sides]


def _settings(path: Path, registry: Host) -> Path:
    url = f"http://{registry.address}:{peers.REGISTRY_PORT}"
    path.write_text(f'[[registries]]\nname = "{REGISTRY}"\nurl = "{url}"\nprivate_addresses = true\n')
    return path

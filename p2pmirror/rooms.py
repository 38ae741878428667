"""Builds the rooms of one agent from its settings; nothing here runs, waits or opens anything.

Law: every room is built once, here, and given what it needs: no room builds another.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import trio
from prometheus_client import CollectorRegistry

from p2pmirror.config import Config
from p2pmirror.config.model import ContainerdStore, LayoutStore
from p2pmirror.config.trust import Trust
from p2pmirror.front.metrics import FrontMetrics
from p2pmirror.front.routes import Front, FrontOptions
from p2pmirror.front.slots import Slots
from p2pmirror.oci import Digest
from p2pmirror.peers.client import HttpPeers
from p2pmirror.peers.metrics import PeersMetrics
from p2pmirror.peers.scores import Scores
from p2pmirror.resolve.confirmed import Confirmed
from p2pmirror.resolve.flight import PieceSizes
from p2pmirror.resolve.flights import Flights
from p2pmirror.resolve.hashing import Hashing
from p2pmirror.resolve.intake import Intake
from p2pmirror.resolve.manifests import Manifests
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.neighbour import FETCHES_MAX, SwarmParts
from p2pmirror.resolve.questions import QuestionOptions
from p2pmirror.resolve.race import RaceOptions, Sources
from p2pmirror.resolve.resolver import MirrorResolver, ResolveOptions
from p2pmirror.resolve.tags import TagOptions
from p2pmirror.resolve.through import Through
from p2pmirror.routing.protocol import Router
from p2pmirror.store import containerd
from p2pmirror.store.cache import CacheHooks, CacheMetrics, CacheOptions, CacheStore
from p2pmirror.store.cache.protocol import Receives
from p2pmirror.store.cache.scratch import FirstWithRoom, Scratch
from p2pmirror.store.files import Files
from p2pmirror.store.layered import LayeredStore
from p2pmirror.store.memory import MemoryStore
from p2pmirror.store.ocilayout import OciLayoutStore
from p2pmirror.store.protocol import Store
from p2pmirror.telemetry.metrics import Room
from p2pmirror.upstream.client import RegistriesUpstream
from p2pmirror.version import VERSION
from p2pmirror.web.facts import Cache as Fullness
from p2pmirror.web.facts import Facts, Identity
from p2pmirror.web.routes import Web
from p2pmirror.wire.address import Address
from p2pmirror.wire.binding import Binding
from p2pmirror.wire.http import Handler
from p2pmirror.wire.http_client import ClientOptions, HttpClient
from p2pmirror.wire.http_server import HttpServer, ServerOptions
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.metrics import WireMetrics
from p2pmirror.wire.network import Network
from p2pmirror.wire.pacing import Pace


def monotonic_ms() -> int:
    """Return trio's clock in milliseconds."""
    return int(trio.current_time() * 1000)


@dataclass(frozen=True, slots=True)
class Seams:
    """What of the world a node touches; a simulation brings its own.

    `clock_ms` is the monotonic clock that others are told, `wall_s` the time of day (seconds since 1970) in answers;
    `piece_sizes` are the same in all of a cluster.
    """

    network: Network
    files: Files
    random: Random
    hashing: Hashing
    registry: CollectorRegistry
    clock_ms: Callable[[], int] = monotonic_ms
    wall_s: Callable[[], float] = time.time
    piece_sizes: PieceSizes = field(default_factory=PieceSizes)


@dataclass(frozen=True, slots=True)
class Running:
    """Where a node can be found once it runs."""

    node_id: NodeId
    registry_address: Address
    router_address: Address
    observability_address: Address


class Content:
    """What this node holds, and the registries from which it may fetch more."""

    def __init__(self, config: Config, seams: Seams) -> None:
        """Open nothing yet."""
        self.upstream = RegistriesUpstream(
            config.registries,
            seams.network,
            seams.files,
            random=seams.random,
            registry=seams.registry,
            wall_s=seams.wall_s,
            helper_path=config.helper_path,
        )
        runtime = self._runtime = _runtime_store(config, seams.files)
        self.cache = self._cache(config, seams)
        self.scratch = self._scratch(config, seams)
        self.store: Store = runtime if self.cache is None else LayeredStore([runtime, self.cache])

    async def keeps(self, digest: Digest) -> bool:
        """Whether this node has a blob for good, without keeping it once more."""
        if self.cache is not None and self.cache.inventory.blob(digest) is not None:
            return True
        if isinstance(self._runtime, containerd.ContainerdStore):
            return await self._runtime.keeps(digest)
        return self.store.inventory.blob(digest) is not None

    @property
    def room(self) -> Receives | None:
        """Where blobs may arrive; None: nowhere."""
        if self.cache is None or self.scratch is None:
            return self.cache or self.scratch
        return FirstWithRoom(self.cache, self.scratch)

    def fullness(self) -> Fullness:
        """Return how full the cache is; zeros where there is none."""
        cache = self.cache
        if cache is None:
            return Fullness()
        return Fullness(cache.held_bytes, cache.bytes_max, cache.free_bytes, cache.trouble)

    @staticmethod
    def _scratch(config: Config, seams: Seams) -> Scratch | None:
        if config.scratch is None:
            return None
        scratch = Scratch(config.scratch.directory, seams.files, config.scratch.bytes_max)
        gauge = Room(seams.registry, "cache").gauge("scratch_bytes", "Room for blobs that arrive without being kept.")
        gauge.child().set_function(lambda: scratch.taken_bytes)
        return scratch

    def _cache(self, config: Config, seams: Seams) -> CacheStore | None:
        choice = config.cache
        if choice is None:
            return None
        hooks = CacheHooks(is_reachable=self.upstream.is_reachable, wall_s=seams.wall_s)
        options = CacheOptions(choice.bytes_max, choice.ttl_s)
        return CacheStore(choice.directory, seams.files, options, hooks, CacheMetrics(seams.registry))


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a node runs, besides its router and its content."""

    through: Through
    flights: Flights | None
    client: HttpClient
    front: HttpServer
    web: HttpServer


@dataclass(frozen=True, slots=True)
class Situation:
    """What the rooms are told of the node that they are in: where it is, whom it trusts, how it says it is ready."""

    running: Running
    router: Router
    trust: Trust
    binding: Callable[[], Binding]
    readiness: Callable[[], Sequence[str]]


def build(config: Config, seams: Seams, content: Content, situation: Situation) -> Rooms:
    """Build what answers requests."""
    running, router, trust = situation.running, situation.router, situation.trust
    metrics = ResolveMetrics(seams.registry)
    intake = Intake(config.download_rate_max)
    client = HttpClient(seams.network, ClientOptions())
    race = RaceOptions(config.mirror_resolve_timeout_s, config.mirror_resolve_retries, config.zone)
    peers_metrics = PeersMetrics(seams.registry)
    peers = HttpPeers(client, running.node_id, peers_metrics, signer=trust.signer(router.binding))
    sources = Sources(router, peers, Scores(seams.random, peers_metrics.banned), race, intake)
    through = Through(
        content.upstream,
        content.cache,
        QuestionOptions(config.first_byte_timeout_s, config.share_tags),
        metrics,
        seams.hashing,
        manifests=Manifests(sources),
        intake=intake,
    )
    flights = _flights(content, sources, seams, metrics)
    resolver = MirrorResolver(
        content.store,
        sources,
        ResolveOptions(race, _tag_options(config), config.seed),
        metrics,
        seams.hashing,
        through=through,
        flights=flights,
        confirmed=Confirmed(content.cache),
    )
    front = _front(config, seams, resolver, situation)
    identity = Identity(running.node_id, VERSION, running.registry_address, running.router_address, config.zone)
    facts = Facts(
        identity=identity,
        store=content.store,
        router=router,
        readiness=situation.readiness,
        transfers=resolver.transfers,
        recent=front.recent,
        registry=seams.registry,
        started=trio.current_time(),
        clock=trio.current_time,
        cache=content.fullness,
        registries=content.upstream.standings,
    )
    web = Web(facts, default_registry=config.default_registry)
    rooms = Rooms(through, flights, client, _server(front.handle, seams), _server(web.handle, seams))
    _count(rooms, seams.registry)
    return rooms


def _count(rooms: Rooms, registry: CollectorRegistry) -> None:
    """Let what is open be seen, so that what stays open by mistake is."""
    WireMetrics(registry).follow(
        kept=lambda: rooms.client.kept, served=lambda: rooms.front.connections + rooms.web.connections
    )
    tasks = Room(registry, "node").gauge("running_tasks", "Tasks of this process that have not ended.")
    tasks.child().set_function(lambda: trio.lowlevel.current_statistics().tasks_living)


def _front(config: Config, seams: Seams, resolver: MirrorResolver, situation: Situation) -> Front:
    metrics = FrontMetrics(seams.registry)
    return Front(
        resolver=resolver,
        filters=config.filters,
        options=FrontOptions(
            default_registry=config.default_registry,
            registries_only=config.registries_only,
            registries=config.registries.configured,
            fallback=config.fallback,
        ),
        metrics=metrics,
        pace=Pace(config.upload_rate_max) if config.upload_rate_max else None,
        slots=Slots(config.upload_slots, config.upload_slots_per_peer),
        admission=situation.trust.admission(situation.binding, seams.network, metrics),
    )


def _flights(content: Content, sources: Sources, seams: Seams, metrics: ResolveMetrics) -> Flights | None:
    """Return what lets blobs arrive; None where there is no room for any."""
    room = content.room
    if room is None:
        return None
    fetches = sources.intake.pieces_at_once(seams.piece_sizes.most_bytes, FETCHES_MAX)
    parts = SwarmParts(
        sources.peers,
        sources.router,
        sources.scores,
        seams.random,
        seams.hashing,
        trio.CapacityLimiter(fetches),
        sources.intake,
        sources.options.zone,
    )
    inventory = content.store.inventory
    return Flights(
        room,
        parts,
        metrics,
        sizes=seams.piece_sizes,
        is_held=lambda digest: inventory.blob(digest) is not None,
        is_kept=content.keeps,
    )


def _server(handler: Handler, seams: Seams) -> HttpServer:
    return HttpServer(handler, ServerOptions(), wall_s=seams.wall_s)


def _tag_options(config: Config) -> TagOptions:
    return TagOptions(
        enabled=config.resolve_tags,
        first_claim_s=config.mirror_resolve_timeout_s,
        ttl_s=config.tag_ttl_s,
        ttls_s={each.name: each.tag_ttl_s for each in config.registries if each.tag_ttl_s},
        stale_max_s=config.tag_stale_max_s,
        keep_on_upstream_404=config.keep_on_upstream_404,
    )


def _runtime_store(config: Config, files: Files) -> Store:
    match config.store:
        case ContainerdStore(sock, namespace, content_path):
            return containerd.ContainerdStore(containerd.Options(sock, namespace, content_path), files)
        case LayoutStore(directory):
            return OciLayoutStore(directory, files)
        case None:
            return MemoryStore()

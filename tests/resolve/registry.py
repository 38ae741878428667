"""One node under test that asks a registry in memory, and peers that say what a test has them say."""

from __future__ import annotations

import json
import sys
from random import Random
from typing import Any, Self

import trio
from prometheus_client import CollectorRegistry

from p2pmirror.oci import Digest, TagName, mediatype
from p2pmirror.peers.protocol import Peers
from p2pmirror.peers.scores import Scores
from p2pmirror.resolve.confirmed import Confirmed
from p2pmirror.resolve.flight import PieceSizes
from p2pmirror.resolve.flights import Flights
from p2pmirror.resolve.hashing import hashing_inline
from p2pmirror.resolve.manifests import Manifests
from p2pmirror.resolve.metrics import ResolveMetrics
from p2pmirror.resolve.neighbour import SwarmParts
from p2pmirror.resolve.questions import QuestionOptions
from p2pmirror.resolve.race import RaceOptions, Sources
from p2pmirror.resolve.resolver import MirrorResolver, ResolveOptions
from p2pmirror.resolve.tags import TagOptions
from p2pmirror.resolve.through import Through
from p2pmirror.resolve.want import Found, Listing, Trail, Want
from p2pmirror.routing.memory import MemoryRouters
from p2pmirror.routing.protocol import Provider, TagClaim, key_of
from p2pmirror.store.cache.protocol import Cache
from p2pmirror.store.layered import LayeredStore
from p2pmirror.store.memory import MemoryStore
from p2pmirror.upstream.memory import MemoryRegistries, MemoryUpstream
from p2pmirror.wire.identity import NodeId
from tests.resolve.fakes import ScriptedPeers, address, node

REGISTRY, REPOSITORY = "registry.example", "team/app"
NAME = TagName(REGISTRY, REPOSITORY, "1")


def manifest_bytes(seed: str) -> bytes:
    """Return a manifest of no layers that differs by its seed."""
    config = {"mediaType": mediatype.OCI_CONFIG, "digest": str(Digest.of(seed.encode())), "size": len(seed)}
    return json.dumps(
        {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "config": config, "layers": []}
    ).encode()


class World:
    """The node; `async with` lets what it fetches be fetched. `trail` is that of the last question."""

    def __init__(
        self,
        *,
        cache: Cache | None = None,
        peers: Peers | None = None,
        sizes: PieceSizes | None = None,
        number: int = 99,
        registries: MemoryRegistries | None = None,
        routers: MemoryRouters | None = None,
        share_tags: bool = True,
        seed: bool = False,
        **tags: Any,
    ) -> None:
        self.registries = registries or MemoryRegistries(REGISTRY)
        self.conduct = self.registries.conduct[REGISTRY]
        self.routers = routers or MemoryRouters()
        self.router = self.routers.router(node(number), address(number), seed=seed)
        self.store = MemoryStore()
        self.trail = Trail()
        self.digest = Digest.of(b"")  # of what is pulled, where a test has one
        self.upstream = MemoryUpstream(self.registries)
        self._metrics_registry = CollectorRegistry()
        metrics = ResolveMetrics(self._metrics_registry)
        self.peers: Peers = peers or ScriptedPeers({})
        self.scores = Scores(Random(1))
        sources = Sources(self.router, self.peers, self.scores, RaceOptions())
        options = QuestionOptions(share_tags=share_tags)
        manifests = Manifests(sources)
        self.through = Through(self.upstream, cache, options, metrics, hashing_inline, manifests=manifests)
        self.parts = parts = SwarmParts(self.peers, self.router, self.scores, Random(2), hashing_inline)
        self.sources, self.metrics = sources, metrics
        self.flights = None if cache is None else Flights(cache, parts, metrics, sizes=sizes)
        held = LayeredStore([self.store] if cache is None else [self.store, cache])
        self.resolver = MirrorResolver(
            held,
            sources,
            ResolveOptions(RaceOptions(), TagOptions(**tags), seed),
            metrics,
            hashing_inline,
            through=self.through,
            flights=self.flights,
            confirmed=Confirmed(cache),
        )

    async def __aenter__(self) -> Self:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        try:
            await self._nursery.start(self.through.questions.run)
            if self.flights is not None:
                await self._nursery.start(self.flights.run)
        except BaseException:
            await self.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(*error)

    def push(self, data: bytes, tag: str) -> Digest:
        """Push a manifest to the registry under a tag."""
        return self.registries.put_document(REGISTRY, REPOSITORY, data, mediatype.OCI_MANIFEST, tag).digest

    def misbehave(self, how: str) -> None:
        """Let the registry be "down", "silent", or answer with a status."""
        self.conduct.is_down, self.conduct.is_silent = how == "down", how == "silent"
        self.conduct.status = int(how) if how.isdigit() else None

    def say_peer(self, tag: str, claim: TagClaim) -> None:
        """Let a peer claim what a tag names."""
        key = key_of(TagName(REGISTRY, REPOSITORY, tag))
        self.routers.say(key, Provider(node(1), address(1), tag=claim))

    async def find_tag(self, tag: str, *, from_peer: NodeId | None = None) -> Found:
        """Ask for a manifest by tag."""
        self.trail = Trail()
        return await self.resolver.find(Want("manifest", REGISTRY, REPOSITORY, tag, from_peer=from_peer), self.trail)

    async def find_blob(self, digest: Digest, byte_range: str | None = None, *, head: bool = False) -> Found:
        """Ask for a blob."""
        self.trail = Trail()
        want = Want("blob", REGISTRY, REPOSITORY, digest, head=head, byte_range=byte_range)
        return await self.resolver.find(want, self.trail)

    async def tags(self, *, from_peer: NodeId | None = None) -> list[str]:
        """Ask for the list of tags."""
        self.trail = Trail()
        return await self.resolver.tags(Listing(REGISTRY, REPOSITORY, from_peer), self.trail)

    def count(self, name: str, **labels: str) -> float:
        """Return a counter of the room."""
        return self._metrics_registry.get_sample_value(f"p2pmirror_resolve_{name}_total", labels) or 0.0

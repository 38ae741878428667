"""A web room over facts that a test has made up."""

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from p2pmirror.oci import Digest, TagName
from p2pmirror.resolve.protocol import Transfer
from p2pmirror.routing.protocol import Key, Member, Provider, TagClaim, Trace
from p2pmirror.store.inventory import HeldInventory
from p2pmirror.store.protocol import BlobInfo, TagInfo
from p2pmirror.telemetry.metrics import Room
from p2pmirror.upstream.protocol import Standing
from p2pmirror.web import Facts, Identity, Web
from p2pmirror.web.facts import Cache
from p2pmirror.wire.address import Address
from p2pmirror.wire.http import Request, Response
from p2pmirror.wire.identity import NodeId

HERE, THERE = NodeId(b"\x01" * 20), NodeId(b"\x02" * 20)
DIGEST = Digest.of(b"blob")
TAG = TagName("docker.io", "library/nginx", "1.27")
CLAIM = TagClaim(DIGEST, "application/vnd.oci.image.index.v1+json", 4, age_s=1.5, confirmed=True)
REGISTRY_THERE, ROUTER_THERE = Address("10.0.0.2", 29999), Address("10.0.0.2", 29998)


OWN = Identity(HERE, "1.2.3", Address("10.0.0.1", 29999), Address("10.0.0.1", 29998), "a")


class FakeRouter:
    """Knows one member, and the providers that a test gives it; `hangs` never ends a look-up."""

    def __init__(self) -> None:
        self.node_id = HERE
        self.providers: list[Provider] = []
        self.known = [Member(THERE, REGISTRY_THERE, ROUTER_THERE, "b", "alive", 0.4)]
        self.hangs = False
        self.way = Trace(Key(bytes(20)), 0.0, (), ())
        self.records_held = 7
        self.running = 0

    @asynccontextmanager
    async def find(self, key: bytes) -> Any:
        self.running += 1
        send, receive = trio.open_memory_channel[Provider](100)
        for provider in self.providers:
            send.send_nowait(provider)
        if not self.hangs:
            send.close()
        try:
            yield receive
        finally:
            send.close()
            receive.close()
            self.running -= 1

    async def trace(self, key: Key) -> Trace:
        self.running += 1
        try:
            await trio.sleep(math.inf if self.hangs else self.way.seconds)
        finally:
            self.running -= 1
        return replace(self.way, key=key)

    def members(self) -> list[Member]:
        return self.known


class FakeStore:
    """Holds one blob under one tag."""

    def __init__(self) -> None:
        self.inventory = HeldInventory()
        self.inventory.replace(
            [BlobInfo(DIGEST, 4)], [TagInfo(TAG, DIGEST, "application/vnd.oci.image.index.v1+json", 4, 0.0)]
        )


@dataclass
class Recorded:
    """A request as the front keeps it."""

    entry: dict[str, Any]
    ended: float = 0.0

    def fields(self) -> dict[str, Any]:
        return self.entry


@dataclass
class Bench:
    """A web room and what it is built from."""

    router: FakeRouter = field(default_factory=FakeRouter)
    store: FakeStore = field(default_factory=FakeStore)
    reasons: list[str] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    recent: list[Recorded] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    now: float = 100.0
    identity: Identity = OWN
    cache: Cache = field(default_factory=Cache)
    registries: list[Standing] = field(default_factory=list)

    def __post_init__(self) -> None:
        labels = {"kind": ("manifest", "blob", "base"), "source": ("store", "cache", "peer", "none"), "outcome": 9}
        self.requests = Room(self.registry, "front").counter("requests_total", "Requests.", labels)

    @cached_property
    def web(self) -> Web:
        facts = Facts(
            identity=self.identity,
            store=self.store,  # type: ignore[arg-type]
            router=self.router,  # type: ignore[arg-type]
            readiness=lambda: self.reasons,
            transfers=lambda: self.transfers,
            recent=lambda: self.recent,
            registry=self.registry,
            started=10.0,
            clock=lambda: self.now,
            cache=lambda: self.cache,
            registries=lambda: self.registries,
        )
        return Web(facts)

    async def ask(self, target: str, method: str = "GET", **headers: str) -> Response:
        path, _, query = target.partition("?")
        return await self.web.handle(
            Request(method, path, query, headers, Address("10.0.0.9", 40000), Address("10.0.0.1", 9090))
        )

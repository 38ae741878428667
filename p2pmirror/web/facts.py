"""What is known of this node and its cluster, as the JSON values that the commands and the page show.

Laws: facts are computed when they are asked for and kept nowhere; shapes are those of DESIGN.md, section "Commands";
node ids are hexadecimal, addresses `host:port`, times seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry

from p2pmirror.resolve.protocol import Origin, Transfer
from p2pmirror.routing.protocol import Member, Router
from p2pmirror.store.protocol import Store
from p2pmirror.upstream.protocol import Standing
from p2pmirror.wire.address import Address
from p2pmirror.wire.identity import NodeId

REQUESTS_METRIC: Final = "p2pmirror_front_requests"  # as the registry calls it; its samples end in `_total`
BYTES_METRIC: Final = "p2pmirror_front_bytes"
SAVED_METRIC: Final = "p2pmirror_front_saved_bytes"
PEERS_METRIC: Final = "p2pmirror_resolve_peer_bytes"
REGISTRIES_MAX: Final = 100  # of those that settings name, and the built-in ones: a page's worth
RESTS_S_MIN: Final = 0.1  # a shorter pause of a registry is over before anybody has read of it
_HERE: Final = frozenset({"store", "cache", "flight", "peer"})  # sources that save an upstream its bytes
_CONTENT: Final = frozenset({"manifest", "blob"})
SOURCES: Final = {
    "store": "this node's images",
    "cache": "this node's cache",
    "flight": "what is arriving here",
    "peer": "another node",
    "upstream": "the registry itself",
    "none": "nobody had it: 404",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is: as the others know it."""

    node_id: NodeId
    version: str
    registry_address: Address
    router_address: Address
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Cache:
    """How full the cache is; all 0 where there is none. `trouble`: what is wrong with its directory, None: nothing."""

    bytes: int = 0
    max_bytes: int = 0
    free_bytes: int = 0
    trouble: str | None = None


class Recorded(Protocol):
    """A request that has ended, as the front keeps it; `ended` is the front's clock."""

    @property
    def ended(self) -> float:
        """When its answer ended."""
        ...

    def fields(self) -> Mapping[str, Any]:
        """Return what its log line says."""
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """Where the facts come from. `readiness` gives reasons for not being ready; `started` is `clock` at the start."""

    identity: Identity
    store: Store
    router: Router
    readiness: Callable[[], Sequence[str]]
    transfers: Callable[[], Sequence[Transfer]]
    recent: Callable[[], Sequence[Recorded]]
    registry: CollectorRegistry
    started: float
    clock: Callable[[], float]
    cache: Callable[[], Cache] = Cache
    registries: Callable[[], Sequence[Standing]] = tuple

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
        reasons = list(self.readiness())
        return {
            "node_id": self.identity.node_id.hex(),
            "version": self.identity.version,
            "ready": not reasons,
            "reasons": reasons,
            "members": self.members(),
            "held": self.held(),
            "records": self.router.records_held,
            "cache": {**asdict(self.cache()), **self.hits()},
            "transfers": self.running(),
            "hit_ratio": self.hit_ratio(),
            "saved_bytes": int(self._sum(SAVED_METRIC)),
            "cross_zone_bytes": self.cross_zone_bytes(),
            "registries": self.standings(),
        }

    def members(self) -> list[dict[str, Any]]:
        """Return the members of the cluster: this node first, the others by address."""
        identity = self.identity
        own = Member(identity.node_id, identity.registry_address, identity.router_address, identity.zone, "alive", 0.0)
        others = sorted(self.router.members(), key=lambda member: (member.address, member.node_id))
        return [
            {
                "node_id": member.node_id.hex(),
                "address": str(member.address),
                "zone": member.zone,
                "state": member.state,
                "last_seen_s": round(member.last_seen_s, 3),
            }
            for member in (own, *others)
        ]

    def peers(self) -> list[str]:
        """Return the router addresses of the live members, this node's own included: a bootstrap list."""
        own = self.identity.router_address
        addresses = {member.router_address for member in self.router.members() if member.state == "alive"}
        if not own.is_unspecified:
            addresses.add(own)
        return [str(address) for address in sorted(addresses)]

    def held(self) -> dict[str, int]:
        """Return how much this node holds."""
        inventory = self.store.inventory
        sizes = [info.size for info in inventory.blobs()]
        return {"blobs": len(sizes), "tags": sum(1 for _ in inventory.tags()), "bytes": sum(sizes)}

    def running(self) -> list[dict[str, Any]]:
        """Return what is arriving, from whom and how quickly, and the responses that are relayed, each oldest first."""
        return [
            {
                "digest": str(transfer.digest),
                "name": transfer.name,
                "size": transfer.size,
                "sent_bytes": transfer.sent_bytes,
                "source": "upstream" if transfer.registry else "peer",
                "peer": None if transfer.peer is None else transfer.peer.hex(),
                "registry": transfer.registry or None,
                "resumes": transfer.resumes,
                "seconds": round(transfer.seconds, 3),
                "rate": round(transfer.sent_bytes / transfer.seconds) if transfer.seconds else None,
                "sources": [_origin(each) for each in transfer.origins],
                "readers": transfer.readers,
                "followers": transfer.followers,
            }
            for transfer in self.transfers()
        ]

    def standings(self) -> list[dict[str, Any]]:
        """Return how this node stands with each registry, the configured ones first, at most `REGISTRIES_MAX`."""
        return [
            {
                "name": each.name,
                "mode": each.mode,
                "asked": each.is_asked,
                "reachable": each.is_reachable,
                "rests_s": round(each.rests_s, 3) if each.rests_s >= RESTS_S_MIN else 0.0,
                "quota_left": each.quota_left,
            }
            for each in self.registries()[:REGISTRIES_MAX]
        ]

    def hits(self) -> dict[str, int]:
        """Return how many requests for content the cache answered, and how many neither it nor the images here did."""
        counts = self._answers()
        found = sum(counts.get(source, 0) for source in ("store", "cache"))
        return {"hits": int(counts.get("cache", 0)), "misses": int(sum(counts.values()) - found)}

    def cross_zone_bytes(self) -> int:
        """Return how much peers of other zones have sent to this node."""
        return int(sum(each.value for each in self._samples(PEERS_METRIC) if each.labels.get("zone") == "other"))

    def requests(self) -> list[dict[str, Any]]:
        """Return the requests that ended last, newest first, with `ago_s`: how long ago."""
        now = self.clock()
        return [{"ago_s": round(now - each.ended, 3), **each.fields()} for each in self.recent()]

    def hit_ratio(self) -> float | None:
        """Return which part of the requests for content was answered without an upstream; None before the first."""
        counts = self._answers()
        total = sum(counts.values())
        hits = sum(count for source, count in counts.items() if source in _HERE)
        return hits / total if total else None

    def sources(self) -> list[dict[str, Any]]:
        """Return for each source that answered: how many requests for content, their share, and the bytes sent."""
        counts = self._answers()
        total = sum(counts.values())
        sent = {sample.labels.get("source"): sample.value for sample in self._samples(BYTES_METRIC)}
        return [
            {
                "source": source,
                "meaning": meaning,
                "requests": int(counts[source]),
                "share": round(counts[source] / total, 6),
                "bytes": 0 if source == "none" else int(sent.get(source, 0)),  # the text of a 404 is no content
            }
            for source, meaning in SOURCES.items()
            if counts.get(source)
        ]

    def uptime_s(self) -> float:
        """Return for how long this agent has been running."""
        return self.clock() - self.started

    def _answers(self) -> dict[str, float]:
        """Count the requests for content that were not refused, by where their bytes came from."""
        counts: dict[str, float] = {}
        for sample in self._samples(REQUESTS_METRIC):
            labels = sample.labels
            if labels.get("kind") in _CONTENT and labels.get("outcome") != "refused":
                source = labels.get("source", "none")
                counts[source] = counts.get(source, 0.0) + sample.value
        return counts

    def _sum(self, name: str) -> float:
        return float(sum(sample.value for sample in self._samples(name)))

    def _samples(self, name: str) -> list[Any]:
        metrics = self.registry.restricted_registry([f"{name}_total"]).collect()
        return [sample for metric in metrics for sample in metric.samples if sample.name == f"{name}_total"]


def _origin(origin: Origin) -> dict[str, Any]:
    peer = None if origin.peer is None else origin.peer.hex()
    return {"peer": peer, "registry": origin.registry or None, "bytes": origin.count}

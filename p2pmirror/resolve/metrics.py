"""What this room counts."""

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class ResolveMetrics:
    """How long finding a source took, and how transfers went."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with `registry`."""
        seconds = Histogram(
            "p2pmirror_resolve_seconds",
            "From a request that this node cannot answer itself to the answer of a peer, or to the knowledge of none.",
            ["outcome"],
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0),
            registry=registry,
        )
        self.found, self.missed = seconds.labels("found"), seconds.labels("none")
        self.resumes = Counter(
            "p2pmirror_resolve_resumes_total",
            "Responses that went on from another peer after a source broke, stalled or lied.",
            registry=registry,
        )
        self._pieces = Counter(
            "p2pmirror_resolve_pieces_total",
            "Pieces that peers gave: whole and right (leader, peer), thrown away for a wrong hash, lost half-way.",
            ["outcome"],
            registry=registry,
        )
        peer_bytes = Counter(
            "p2pmirror_resolve_peer_bytes_total",
            "Bytes of blobs that peers sent to this node: of its zone (same), of another one (other), not known.",
            ["zone"],
            registry=registry,
        )
        self._peer_bytes = {zone: peer_bytes.labels(zone=zone) for zone in ("same", "other", "unknown")}
        self.stalls = Counter(
            "p2pmirror_resolve_stalls_total",
            "Sources that were left because they sent nothing for a second, or too little.",
            registry=registry,
        )
        self.wrong_digests = Counter(
            "p2pmirror_resolve_wrong_digests_total",
            "Contents that came whole from peers and did not match their digest.",
            registry=registry,
        )
        self.flights = Gauge(
            "p2pmirror_resolve_flights", "Blobs that are arriving, from registries or from peers.", registry=registry
        )
        self._ended = Counter(
            "p2pmirror_resolve_flights_ended_total",
            "Blobs that were fetched: kept, unkept (no room for them), unneeded (the runtime has it by now), failed.",
            ["outcome"],
            registry=registry,
        )
        self.upstream_wrong_digests = Counter(
            "p2pmirror_resolve_upstream_wrong_digests_total",
            "Blobs that came whole from registries and did not match their digest.",
            registry=registry,
        )
        self._questions = Counter(
            "p2pmirror_resolve_questions_total",
            "Questions for a registry: asked by this node, told by the node that asked for all, or asked by this one "
            "after it had waited for another in vain.",
            ["kind", "outcome"],
            registry=registry,
        )
        self.stale_tags = Counter(
            "p2pmirror_resolve_stale_tags_total",
            "Tags answered with what their registry last confirmed, because it did not answer.",
            registry=registry,
        )

    def question(self, kind: Literal["tag", "manifest"], outcome: Literal["asked", "told", "vain"]) -> None:
        """Count what a registry was to be asked for the whole cluster."""
        self._questions.labels(kind=kind, outcome=outcome).inc()

    def flight_ended(self, outcome: Literal["kept", "unkept", "unneeded", "failed"]) -> None:
        """Count a flight that has ended."""
        self._ended.labels(outcome=outcome).inc()

    def took_from(self, zone: str, own: str, count: int) -> None:
        """Count bytes that a peer of a zone has sent to this node, which is in `own`; empty: not known."""
        where = "unknown" if not zone or not own else "same" if zone == own else "other"
        self._peer_bytes[where].inc(count)

    def piece(self, outcome: Literal["leader", "peer", "wrong", "lost"]) -> None:
        """Count a piece that was asked of a peer."""
        self._pieces.labels(outcome=outcome).inc()

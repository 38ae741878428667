"""What this room counts."""

from prometheus_client import CollectorRegistry, Counter


class PeersMetrics:
    """How peers failed us."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with `registry`."""
        self.failures = Counter(
            "p2pmirror_peers_failures_total",
            "Questions to peers that were not answered as they should be.",
            ["reason"],
            registry=registry,
        )
        for reason in ("absent", "unreachable", "busy", "forbidden", "misbehaved"):
            self.failures.labels(reason=reason)

"""What this room counts, and says of it."""

import logging

from prometheus_client import CollectorRegistry, Counter

from p2pmirror.oci import Digest
from p2pmirror.wire.identity import NodeId

_log = logging.getLogger(__name__)


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
        self._bans = Counter(
            "p2pmirror_peers_bans_total",
            "Times that a peer was asked no more for a digest, because of what it sent or claimed; the log says why.",
            registry=registry,
        )

    def banned(self, node_id: NodeId, digest: Digest, seconds: float, why: str) -> None:
        """Count a ban, and say why."""
        self._bans.inc()
        _log.warning("peer %s is not asked for %s for %g s: %s", node_id.hex(), digest, seconds, why)

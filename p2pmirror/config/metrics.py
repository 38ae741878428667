"""What is counted of the settings that can change while an agent runs."""

from prometheus_client import CollectorRegistry

from p2pmirror.telemetry.metrics import Room


class KeyMetrics:
    """How many keys of the cluster this agent has, and whether its key file is worth reading."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with `registry`; a cluster without a key has 0 of them."""
        gauge = Room(registry, "node").gauge(
            "peer_keys",
            "Keys of the cluster that this agent accepts (0: no key is set, everybody is served); refused is 1 while "
            "the key file is not one and the keys read before it are kept.",
            {"state": ("accepted", "refused")},
        )
        self._accepted, self._refused = gauge.child("accepted"), gauge.child("refused")

    def accepted(self, count: int) -> None:
        """Note that the file holds `count` good keys."""
        self._accepted.set(count)
        self._refused.set(0)

    def refused(self) -> None:
        """Note that the file as it is now cannot be used."""
        self._refused.set(1)

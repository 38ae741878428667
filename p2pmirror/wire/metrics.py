"""What this room counts: connections, read when they are asked for."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from p2pmirror.telemetry.metrics import Room


class WireMetrics:
    """How many connections are open."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with `registry`."""
        room = Room(registry, "wire")
        self._kept = room.gauge("kept_connections", "Idle connections to peers, kept for the next question.").child()
        self._served = room.gauge("served_connections", "Connections of clients and peers, idle ones too.").child()

    def follow(self, *, kept: Callable[[], int], served: Callable[[], int]) -> None:
        """Ask these whenever somebody looks."""
        self._kept.set_function(kept)
        self._served.set_function(served)

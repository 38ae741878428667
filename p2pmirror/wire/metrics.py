"""What this room counts: connections, read when they are asked for."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from p2pmirror.telemetry.metrics import Room


def count_connections(registry: CollectorRegistry, *, kept: Callable[[], int], served: Callable[[], int]) -> None:
    """Register gauges of the idle connections to peers, and of those that come in."""
    room = Room(registry, "wire")
    room.gauge(
        "kept_connections", "Idle connections to peers that are kept for the next question."
    ).child().set_function(kept)
    room.gauge("served_connections", "Connections of clients and peers, idle ones too.").child().set_function(served)

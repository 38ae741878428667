"""What this room counts."""

from typing import Final, get_args

from prometheus_client import CollectorRegistry

from p2pmirror.telemetry.metrics import Room
from p2pmirror.wire.peer_auth import Doubt

KINDS: Final = ("base", "manifest", "blob", "tags", "referrers", "flight", "other")
SOURCES: Final = ("store", "cache", "flight", "peer", "upstream", "none")
SAVING: Final = frozenset({"store", "cache", "flight", "peer"})  # sources that save a registry the bytes
OUTCOMES: Final = ("ok", "miss", "left", "cut", "refused", "error")
DOUBTS: Final = ("client", *get_args(Doubt))
SLOTS: Final = ("all", "taken")
_FIRST_BYTE_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.04, 0.1, 0.25, 0.5, 1, 2, 5, 10)


class FrontMetrics:
    """Requests, the bytes of their answers, and how long the first byte took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with `registry`."""
        room = Room(registry, "front")
        self.requests = room.counter(
            "requests_total",
            "Requests to the registry API: what for, where the bytes came from, how it ended.",
            {"kind": KINDS, "source": SOURCES, "outcome": OUTCOMES},
        )
        self.bytes = room.counter("bytes_total", "Bytes of bodies sent, by where they came from.", {"source": SOURCES})
        self.saved_bytes = room.counter(
            "saved_bytes_total",
            "Bytes that this node's own clients got and no registry had to send: of store, cache, flight or peer.",
        ).child()
        self.first_byte = room.histogram(
            "first_byte_seconds",
            "From a request for a manifest or a blob to the first byte of its answer.",
            {"source": SOURCES},
            buckets=_FIRST_BYTE_BUCKETS_S,
        )
        self.denied = room.counter(
            "denied_total",
            "Requests that were not let in: a client from elsewhere, or a peer whose proof does not hold, and why.",
            {"reason": DOUBTS},
        )
        for reason in DOUBTS:
            self.denied.child(reason)
        self.upload_slots = room.gauge(
            "upload_slots",
            "Pieces of blobs that may go out to peers at once (all), and that do (taken).",
            {"state": SLOTS},
        )
        self.uploads_refused = room.counter(
            "uploads_refused_total", "Requests of peers for pieces that were sent away because no slot was free."
        ).child()
        self.in_flight = room.gauge("in_flight_requests", "Requests that are being answered.").child()

"""What this room counts."""

from collections.abc import Callable
from typing import Final, Literal, Protocol

from prometheus_client import CollectorRegistry

from p2pmirror.telemetry.metrics import Room

REASONS: Final = ("room", "expired", "damaged", "removed")
Reason = Literal["room", "expired", "damaged", "removed"]


class Held(Protocol):
    """What a cache has."""

    @property
    def held_bytes(self) -> int:
        """The sum of the sizes."""
        ...

    def __len__(self) -> int: ...


class Reserved(Protocol):
    """What room a cache has."""

    @property
    def free_bytes(self) -> int:
        """On the disk."""
        ...

    @property
    def reserved_bytes(self) -> int:
        """For what is arriving."""
        ...


class CacheMetrics:
    """How full a cache is, and what left it. Hits are the front's requests with the source `cache`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with `registry`."""
        room = Room(registry, "cache")
        self._bytes = room.gauge("bytes", "Content in the cache.").child()
        self._max_bytes = room.gauge("max_bytes", "How much content the cache may have.").child()
        self._free_bytes = room.gauge("free_bytes", "Room left on the cache's file system.").child()
        self._reserved_bytes = room.gauge("reserved_bytes", "Room taken for content that is arriving.").child()
        self._blobs = room.gauge("blobs", "Blobs and manifests in the cache.").child()
        self._troubles = room.gauge(
            "troubles",
            "1 while the cache's directory cannot be read or written: what is fetched is passed on, not kept.",
        ).child()
        self._evictions = room.counter(
            "evictions_total",
            "Blobs that left the cache: for room, because nobody used them, found damaged, removed by a person.",
            {"reason": REASONS},
        )
        self.refused = room.counter(
            "refused_total", "Writes for which the cache had no room, or which the disk refused."
        ).child()
        self.wrong_digests = room.counter(
            "wrong_digests_total", "Blobs that arrived whole and did not have their digest; none was kept."
        ).child()

        self.resumed = room.counter(
            "resumed_bytes_total", "Bytes of half-fetched blobs that were there from an earlier try, and right."
        ).child()

    def show(self, held: Held, room: Reserved, bytes_max: int) -> None:
        """Read the gauges from a cache when they are asked for."""
        self._max_bytes.set(bytes_max)
        self._bytes.set_function(lambda: held.held_bytes)
        self._blobs.set_function(lambda: len(held))
        self._free_bytes.set_function(lambda: room.free_bytes)
        self._reserved_bytes.set_function(lambda: room.reserved_bytes)

    def show_trouble(self, is_in_trouble: Callable[[], bool]) -> None:
        """Read from a cache whether something is wrong with its directory, when that is asked for."""
        self._troubles.set_function(is_in_trouble)

    def judged(self, right: bool) -> None:  # noqa: FBT001
        """Count content that came whole and is wrong."""
        if not right:
            self.wrong_digests.inc()

    def evicted(self, reason: Reason) -> None:
        """Count one blob that left."""
        self._evictions.child(reason).inc()

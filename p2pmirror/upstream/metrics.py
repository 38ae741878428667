"""What this room counts."""

from collections.abc import Collection
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry

from p2pmirror.telemetry.metrics import Room

Outcome = Literal["ok", "absent", "denied", "limited", "held", "refused", "wrong", "unreachable", "left"]
"""How a question ended: absent is 404; denied 401 and 403; limited 429; held was not asked at all; refused any other
status; wrong an answer that is none; left whoever asked."""

OUTCOMES: Final[tuple[str, ...]] = get_args(Outcome)


class UpstreamMetrics:
    """Questions to registries, the bytes that came back, and what their quotas have left."""

    def __init__(self, registry: CollectorRegistry, registries: Collection[str]) -> None:
        """Register with `registry`; `registries` are the names of those that are fetched from."""
        room = Room(registry, "upstream")
        names = frozenset(registries)
        self.requests = room.counter(
            "requests_total",
            "Questions to registries, with those for tokens, and how they ended.",
            {"registry": names, "outcome": OUTCOMES},
        )
        self.bytes = room.counter(
            "bytes_total", "Bytes of manifests and blobs that registries sent.", {"registry": names}
        )
        self.unreachable = room.gauge(
            "unreachable_registries",
            "1 for a registry that was asked and gave no answer of its own the last time, else 0.",
            {"registry": names},
        )
        self.quota = room.gauge(
            "quota_left_requests",
            "What a registry's last answer said is left of the pull quota; absent where none says so.",
            {"registry": names},
        )

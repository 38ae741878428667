"""What an agent uses, and whether it is back where it was: memory, descriptors, tasks, tables.

Laws: what is compared was measured at rest, at the same load of none; connections that are kept on purpose are not
counted as descriptors, since they are bounded and let go after a minute; a slack has a reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

MIB: Final = 1 << 20
SLACK: Final[Mapping[str, float]] = {
    "memory_bytes": 12 * MIB,  # what the allocator keeps of a hundred relays
    "descriptors": 6,  # a page being asked for, a thread's pipe
    "tasks": 4,  # the same page's
    "requests": 0,
    "members": 0,
    "records": 0,
    "keys": 0,
}


@dataclass(frozen=True)
class Level:
    """One agent's use at one moment."""

    memory_bytes: float
    descriptors: float  # without kept connections and those that are being served
    tasks: float
    requests: float  # being answered
    members: float  # alive
    records: float  # of the routing table that are kept here
    keys: float  # that it says it has


def level_of(metrics: Mapping[str, float], records: int) -> Level:
    """Read a level off an agent's metrics, summed by name."""
    connections = metrics["p2pmirror_wire_served_connections"]
    return Level(
        memory_bytes=metrics["process_resident_memory_bytes"],
        descriptors=metrics["process_open_fds"] - metrics["p2pmirror_wire_kept_connections"] - connections,
        tasks=metrics["p2pmirror_node_running_tasks"] - connections,
        requests=metrics["p2pmirror_front_in_flight_requests"],
        members=metrics["members_alive"],
        records=records,
        keys=metrics["p2pmirror_routing_advertised_keys"],
    )


def complaints(
    before: Sequence[Level], after: Sequence[Level], *, records_outlived: int = 0, kept: int = 0
) -> list[str]:
    """Say which agent's use is not where it was: beyond the most that any had before; for tables, unlike its own.

    `records_outlived` may still be there of nodes that died with an image and came back without it: nobody takes those
    back, and they end with their time to live. Of what is pulled an agent may have `kept` so many blobs, or none, both
    before and after: what comes from peers lingers, and goes into its cache, unless it is killed in between.
    """
    slacks = {**SLACK, "records": SLACK["records"] + records_outlived + kept * len(before), "keys": kept}
    wrong = []
    for number, (old, new) in enumerate(zip(before, after, strict=True), 1):
        for field in fields(Level):
            slack, value = slacks[field.name], getattr(new, field.name)
            if field.name in {"members", "keys"}:
                expected = getattr(old, field.name)
                is_wrong = abs(value - expected) > slack
            else:
                expected = max(getattr(each, field.name) for each in before)
                is_wrong = value > expected + slack
            if is_wrong:
                wrong.append(f"agent {number}: {field.name} {value:.0f}, was {expected:.0f}")
    return wrong

"""What ties a message to one life of its receiver: the receiver's boot id, and what its monotonic clock said.

Laws. Both halves were told by the receiver itself: nobody's clock is compared with anybody else's, and no wall
clock travels. A binding is not a secret and proves nothing by itself; only a tag of the cluster key that covers it
does (wire.keyring).

Follows DESIGN.md, section 4, "Membership and DHT", wire.
"""

from typing import NamedTuple

BOOT_ID_BYTES = 8  # a fresh random number at each start: two starts of one node are told apart, 2^64 of them
AGE_MAX_MS = 60_000  # a binding older than this, or as far ahead, is stale: time for a slow question, none for a replay


class Binding(NamedTuple):
    """`boot_id`: 8 random bytes drawn at the receiver's start; `clock_ms`: its monotonic clock, in milliseconds."""

    boot_id: bytes
    clock_ms: int


UNBOUND = Binding(bytes(BOOT_ID_BYTES), 0)  # of a message to a receiver that has not told its binding yet

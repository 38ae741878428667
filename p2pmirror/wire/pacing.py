"""Keeping a rate: whoever wants to send asks how long to wait first.

Laws: over any stretch of time no more than `rate` times its length and one burst goes out; those who wait are served in
the order in which they asked, a step at a time, so that many readers share the rate evenly. This module only thinks.
"""

BURST_S = 0.05  # unused time that may be made up for: a twentieth of a second of the rate
STEP_S = 0.02  # of the rate goes out at once: short enough that readers take turns smoothly
STEP_BYTES_MIN = 16 * 1024  # below it, system calls cost more than smoothness is worth
STEP_BYTES_MAX = 1024 * 1024  # above it, one reader keeps the others waiting


class Pace:
    """A rate in bytes per second that everybody who holds this object shares."""

    def __init__(self, rate: int) -> None:
        """Keep `rate` (at least 1)."""
        self._rate = rate
        self._free_at = 0.0  # when what was granted so far has gone out

    @property
    def step_bytes(self) -> int:
        """How much to ask for at a time."""
        return max(STEP_BYTES_MIN, min(STEP_BYTES_MAX, int(self._rate * STEP_S)))

    def grant(self, count: int, now: float) -> float:
        """Grant `count` bytes; return the moment from which on they may be sent."""
        begin = max(self._free_at, now - BURST_S)
        self._free_at = begin + count / self._rate
        return max(begin, now)

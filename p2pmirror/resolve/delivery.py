"""What one source delivers while it owes bytes: how it is told from one that stalls, drips, or waits for the client.

Laws:
- only time counts in which somebody waited for the source: a client that takes nothing makes no source look slow;
- a source without a byte for `STALL_S` stalls; over `SLOW_S`, one under `RATE_MIN` drips, and one under a tenth of what
  peers usually give is slow;
- one that gave less than `RATE_MIN` over `GIVE_UP_S` is given up even when nobody else is there: a registry is likely
  to give more.

Time is an argument: seconds on one clock.
"""

from collections import deque
from typing import Final, Literal

STALL_S: Final = 1.0  # without a byte: look for another source
SLOW_S: Final = 2.0  # of waiting, over which a rate is judged: TCP has found its pace by then
SLOW_PART: Final = 10  # slow is a tenth of the usual rate
RATE_MIN: Final = 32 * 1024  # bytes per second: 100 MB would take an hour
GIVE_UP_S: Final = 10.0  # of waiting for next to nothing; containerd itself waits 30 s for a byte
SAMPLE_S: Final = 0.4  # of waiting between two samples: five for `SLOW_S`
SAMPLES_MAX: Final = int(GIVE_UP_S / SAMPLE_S) + 2

State = Literal["good", "slow", "drips", "stalls"]


class Delivery:
    """One source's bytes, from its first wait to the moment it is left."""

    def __init__(self) -> None:
        """Begin with nothing owed."""
        self._waiting_since: float | None = None
        self._owed_s = 0.0  # time in which it was waited for, in all but the wait under way
        self._count = 0
        self._samples: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=SAMPLES_MAX)  # (owed seconds, bytes)

    def waits(self, now: float) -> None:
        """Take note that a byte is waited for from now on."""
        self._waiting_since = now

    def ends_waiting(self, now: float, count: int = 0) -> None:
        """Take note that `count` bytes came, or that the wait was given up; without a wait nothing changes."""
        if self._waiting_since is not None:
            self._owed_s += now - self._waiting_since
            self._waiting_since = None
            self._count += count

    def look(self, now: float, usual_rate: float | None) -> State:
        """Judge it by what `usual_rate` is among peers (bytes per second, None: unknown); called every half second."""
        if self._waiting_since is not None and now >= self._waiting_since + STALL_S:
            return "stalls"
        owed_s = self._owed(now)
        if owed_s >= self._samples[-1][0] + SAMPLE_S:
            self._samples.append((owed_s, self._count))
        rate = self._rate_over(SLOW_S, now)
        if rate is None:
            return "good"
        if rate < RATE_MIN:
            return "drips"
        return "slow" if usual_rate is not None and rate < usual_rate / SLOW_PART else "good"

    def is_hopeless(self, now: float) -> bool:
        """Return whether it is to be left even for nobody."""
        if self._waiting_since is not None and now >= self._waiting_since + GIVE_UP_S:
            return True
        rate = self._rate_over(GIVE_UP_S, now)
        return rate is not None and rate < RATE_MIN

    def rest_s(self, count: int, now: float) -> float:
        """Return how long `count` bytes more will take at its present rate; for ever when that is unknown."""
        rate = self._rate_over(SLOW_S, now)
        return count / rate if rate else float("inf")

    def _owed(self, now: float) -> float:
        return self._owed_s + (0.0 if self._waiting_since is None else now - self._waiting_since)

    def _rate_over(self, seconds: float, now: float) -> float | None:
        """Return bytes per second over the last `seconds` of waiting; None before there were as many."""
        owed_s = self._owed(now)
        for sample_s, count in reversed(self._samples):
            if sample_s <= owed_s - seconds:
                return (self._count - count) / (owed_s - sample_s)
        return None

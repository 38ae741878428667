"""What a source that alone has something gives to whom, so that all of it is soon elsewhere.

Laws:
- each piece is given to one asker, the first one first; who asked for what another one is just being given is told to
  wait for that one;
- it is given again to somebody else only when the one who got it has not announced it in twice the time that a piece
  takes, and again, as a last resort, after `LAST_RESORT` times that: he may have died since;
- that time is counted until a piece is announced, and not until it was written: buffers hold whole pieces.

DESIGN.md section 4, "Spreading from a scarce source". This module only thinks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from p2pmirror.wire.identity import NodeId

EXPECTED_S_FIRST: Final = 1.0  # for a piece, before one was given
EXPECTED_S_MIN: Final = 0.25  # announcements take 200 ms
LATE: Final = 2.0  # times the expected time until a piece that was not announced is given again
LAST_RESORT: Final = 8.0  # until one that was announced is, to whoever still lacks it
WEIGHT: Final = 0.3  # of the newest time in the moving average


@dataclass(slots=True)
class _Given:
    to: NodeId
    at: float
    ended_at: float | None = None
    announced: bool = False


class Spreading:
    """The book of one blob at one source."""

    def __init__(self) -> None:
        """Nothing was given."""
        self._given: dict[int, _Given] = {}
        self.expected_s = EXPECTED_S_FIRST  # from the moment that a piece is given until it is announced

    @property
    def given(self) -> int:
        """How many pieces somebody got, or is getting."""
        return len(self._given)

    def choose(self, asker: NodeId, lacks: Iterable[int], now: float) -> int | None:
        """Return the piece to give to one who lacks these, of which each is here; None: nothing now."""
        again: int | None = None
        for index in lacks:
            given = self._given.get(index)
            if given is None:
                return index
            if again is None and self._is_due_again(given, asker, now):
                again = index
        return again

    def began(self, index: int, to: NodeId, now: float) -> None:
        """Take note that a piece is being given."""
        self._given[index] = _Given(to, now)

    def ended(self, index: int, to: NodeId, now: float, *, whole: bool) -> None:
        """Take note that giving ended; a piece that did not go out whole was never given."""
        given = self._given.get(index)
        if given is None or given.to != to:
            return
        if not whole:
            del self._given[index]
            return
        given.ended_at = now

    def announced(self, by: NodeId, index: int, now: float) -> None:
        """Take note that a peer has a piece."""
        given = self._given.get(index)
        if given is not None and given.to == by and not given.announced:
            given.announced = True
            self.expected_s += WEIGHT * (max(EXPECTED_S_MIN, now - given.at) - self.expected_s)

    def is_given(self, index: int) -> bool:
        """Whether somebody got it, or is getting it."""
        return index in self._given

    def _is_due_again(self, given: _Given, asker: NodeId, now: float) -> bool:
        if given.to == asker and given.ended_at is not None:
            return True  # it was wrong, or he began anew: he asks for it, so he does not have it
        times = LAST_RESORT if given.announced else LATE
        return given.ended_at is not None and now >= given.ended_at + times * self.expected_s

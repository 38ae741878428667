"""Turns at this node's link: how many pieces of all its flights are on their way to peers of its choosing at once.

Laws:
- the flight with the most pieces that nobody was given has the next one, so that none of several falls behind; among
  those who wait for the same number, whoever has waited longest;
- a turn is over when its peer has the piece, which his next question says, and not when it was written: what lies in
  buffers is on its way still, and more of it would only be later each;
- a peer that never comes back keeps his turn for a limited time.

DESIGN.md section 4, "Spreading from a scarce source".
"""

from collections.abc import Callable
from typing import Final

import trio

TURNS_MAX: Final = 6  # enough to fill a link, few enough that each is soon done


class Turn:
    """One piece on its way to one peer."""

    __slots__ = ()


class Turns:
    """The turns of one node."""

    def __init__(self, most: int = TURNS_MAX) -> None:
        """Have `most` at once."""
        self._most = most
        self._held: dict[Turn, float] = {}  # and until when, at the latest
        self._waiting: dict[object, Callable[[], int]] = {}  # how many pieces each could be given, the oldest first
        self._changed = trio.Event()

    @property
    def held(self) -> int:
        """How many are under way now."""
        now = trio.current_time()
        self._held = {turn: until for turn, until in self._held.items() if now < until}
        return len(self._held)

    async def take(self, backlog: Callable[[], int], seconds: float) -> Turn:
        """Return a turn, when it has come; `end` it once it is over. It counts for `seconds` at most.

        `backlog` says how many pieces of the flight nobody was given.

        Cancellation: none was taken. Where one is free it does not yield.
        """
        own = object()
        self._waiting[own] = backlog
        try:
            while self.held >= self._most or self._next() is not own:
                with trio.move_on_at(min(self._held.values(), default=float("inf"))):
                    await self._changed.wait()
            turn = Turn()
            self._held[turn] = trio.current_time() + seconds
            return turn
        finally:
            del self._waiting[own]
            self._wake()

    def end(self, turn: Turn) -> None:
        """Take note that a turn is over; twice does no harm."""
        if self._held.pop(turn, None) is not None:
            self._wake()

    def _next(self) -> object:
        return max(self._waiting, key=lambda each: self._waiting[each]())

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

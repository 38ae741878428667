"""Waiting by a clock that stands still while this process does not run.

A CPU quota, a busy machine or a long step freezes a process for tens of milliseconds. What arrived meanwhile lies
unread in the sockets while every short deadline has passed: a lookup that was answered in time would be taken for a
miss. So time in which this process came late does not count, within limits. And where every step comes a little late,
as among many busy processes, the tasks that carry an answer from a socket to whoever waits get their turns first.
"""

import trio

SLICE_S = 0.005  # how finely lateness is noticed: a miss of 30 ms wakes six times
LATE_S = 0.002  # what a timer is late by on a loop at work, without any freeze
PASSES = 20  # turns of the loop before a deadline is believed: an answer takes six; a millisecond on an idle loop
LOST_S_MAX = 0.5  # given back in all: beyond it the machine is too slow for anybody to be helped by waiting


class Patience:
    """A clock in seconds for one short piece of work, whose task does nothing but look at it and wait by it.

    Begins at trio's time. What passes between two looks without a wait is time in which the process did not run.
    """

    def __init__(self) -> None:
        """Begin with nothing lost."""
        self._lost_s = 0.0
        self._seen = trio.current_time()

    def now(self) -> float:
        """Return the time without what was lost."""
        self._look(self._seen)
        return self._seen - self._lost_s

    async def wait(self, event: trio.Event, until: float) -> None:
        """Wait for the event, at most until this clock shows `until`. Cancellation leaves nothing behind."""
        while not event.is_set() and self.now() < until:
            intended = min(until + self._lost_s, self._seen + SLICE_S)
            with trio.move_on_at(intended):
                await event.wait()
            self._look(intended)
        for _ in range(PASSES):
            if event.is_set():
                break
            await trio.lowlevel.checkpoint()
            self._look(self._seen)

    def _look(self, expected: float) -> None:
        """Look at trio's clock, which was expected to show about this."""
        self._seen = trio.current_time()
        late_s = self._seen - expected
        if late_s > LATE_S:
            self._lost_s = min(LOST_S_MAX, self._lost_s + late_s)

"""When things happen in a simulated world, and how its tasks are woken.

Laws:
- nothing here runs by itself: with an agenda everything happens in the agenda's entries, without one the tasks that
  wait for the world run what is due, in the order of time and then of adding;
- a task that waits sleeps on an event alone; without an agenda the one that has waited longest wakes for what is next.
"""

import heapq
from collections.abc import Callable
from typing import Protocol

import trio

from p2pmirror.wire.memory_link import Agenda

NEVER = float("inf")


class Timing(Protocol):
    """What the parts of a world need of time."""

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call `callback` once trio's time has reached `when`."""
        ...

    def catch_up(self) -> None:
        """Let everything that is due have happened; called by tasks, never by what a callback calls."""
        ...

    async def wait(self, event: trio.Event) -> None:
        """Wait for an event that a callback sets. Cancellation leaves nothing behind."""
        ...


class AgendaTiming:
    """Everything happens in the entries of a simulation's agenda, which are on time."""

    def __init__(self, agenda: Agenda) -> None:
        self.at = agenda.at

    def catch_up(self) -> None:
        """Nothing is ever late."""

    async def wait(self, event: trio.Event) -> None:
        """Wait for an event."""
        await event.wait()


class WaitersTiming:
    """Whoever waits for the world does what is due, on trio's clock."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0  # breaks ties in the order of adding
        self._waiting: dict[trio.CancelScope, None] = {}
        self._catching_up = False

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call `callback` once a task that waits finds that `when` has come."""
        self._count += 1
        heapq.heappush(self._entries, (when, self._count, callback))
        self._set_alarm()

    def catch_up(self) -> None:
        """Do what is due."""
        if self._catching_up:
            return
        self._catching_up = True
        try:
            while self._entries and self._entries[0][0] <= trio.current_time():
                heapq.heappop(self._entries)[2]()
        finally:
            self._catching_up = False

    async def wait(self, event: trio.Event) -> None:
        """Wait for an event, and do what is due meanwhile when nobody has waited for longer."""
        while True:
            self.catch_up()
            scope = trio.CancelScope()
            self._waiting[scope] = None
            try:
                with scope:
                    self._set_alarm()
                    await event.wait()
                    return
            finally:
                del self._waiting[scope]
                self._set_alarm()

    def _set_alarm(self) -> None:
        longest = next(iter(self._waiting), None)
        if longest is not None and self._entries and self._entries[0][0] < longest.deadline:
            longest.deadline = self._entries[0][0]


class Wakeup:
    """An event that can happen again and again: `wake` ends every `wait` that has begun."""

    __slots__ = ("_event", "_timing")

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._event: trio.Event | None = None  # only while somebody waits: most of ten thousand hosts' have nobody

    def wake(self) -> None:
        """Wake everybody who waits."""
        if self._event is not None:
            waited, self._event = self._event, None
            waited.set()

    async def wait(self) -> None:
        """Wait for the next `wake`. Cancellation leaves nothing behind."""
        if self._event is None:
            self._event = trio.Event()
        await self._timing.wait(self._event)

    async def wait_until(self, when: float) -> None:
        """Wait until a time that no `wake` shortens. Cancellation leaves nothing behind."""
        reached = trio.Event()
        self._timing.at(when, reached.set)
        await self._timing.wait(reached)

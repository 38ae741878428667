"""An agenda for tests: one task that sleeps until what is next."""

import heapq
from collections.abc import Callable

import trio


class TaskAgenda:
    """Keeps a list of what is to happen, and a task (`run`) that does it in time."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._added = trio.Event()

    def at(self, when: float, callback: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._entries, (when, self._count, callback))
        self._added.set()

    async def run(self) -> None:
        while True:
            while self._entries and self._entries[0][0] <= trio.current_time():
                heapq.heappop(self._entries)[2]()
            self._added = trio.Event()
            with trio.move_on_at(self._entries[0][0] if self._entries else float("inf")):
                await self._added.wait()

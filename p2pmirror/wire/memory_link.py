"""How two simulated hosts are joined, and how their tasks are woken.

Laws: nothing here runs by itself. What was sent carries the time at which it arrives, and whoever waits for it sleeps
until then on trio's clock; a change of the world first delivers what has arrived by then.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import trio


@dataclass(frozen=True, slots=True)
class Link:
    """One direction between two hosts.

    `jitter_s` is the most that a datagram is late beyond `latency_s`, drawn for each, so that they overtake one
    another; `loss` and `duplication` are probabilities for datagrams. Streams only know the latency: TCP hides the
    rest. What a link carries a second is not limited here.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    duplication: float = 0.0

    def deliveries(self, now: float, random: Random) -> list[float]:
        """Return when the copies of a datagram sent `now` arrive: none, one or two times."""
        if self.loss and random.random() < self.loss:
            return []
        copies = 2 if self.duplication and random.random() < self.duplication else 1
        return [now + self.latency_s + self._lateness_s(random) for _ in range(copies)]

    def _lateness_s(self, random: Random) -> float:
        return random.uniform(0, self.jitter_s) if self.jitter_s else 0.0


@dataclass(frozen=True, slots=True)
class Path:
    """One direction between two hosts as it is at the moment of asking."""

    is_up: Callable[[], bool]
    link: Callable[[], Link]


class Wakeup:
    """An event that can happen again and again: `wake` ends every `wait` that has begun."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def wake(self) -> None:
        """Wake everybody who waits."""
        waited, self._event = self._event, trio.Event()
        waited.set()

    async def wait(self, until: float = float("inf")) -> None:
        """Wait for the next `wake`, or until a time on trio's clock. Cancellation leaves nothing behind."""
        event = self._event
        with trio.move_on_at(until):
            await event.wait()

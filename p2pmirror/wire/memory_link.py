"""How two simulated hosts are joined, and what a simulation gives to its world.

Laws: all chance comes from the Random that is passed in; a datagram arrives at a time that is fixed when it is sent.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal, Protocol

from p2pmirror.wire.address import Address

Observe = Callable[[str, float, Address, Address, bytes], None]  # kind, trio's time, source, target, data


TAIL = 10.0  # means: an exponential draw goes beyond once in 22,000 times, and a test can state the longest wait


class Agenda(Protocol):
    """What is to happen when, in a simulation that has one list of it for everything."""

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call `callback`, outside any task, when trio's time reaches `when`; of one time in the order of adding."""
        ...


@dataclass(frozen=True, slots=True)
class Link:
    """One direction between two hosts. Times are seconds; `loss`, `duplication` and `reordering` are probabilities.

    A datagram arrives `latency_s` after it was sent, and later by its jitter, drawn for each, so that datagrams
    overtake one another: "uniform" draws from 0 to `jitter_s`, as the queues of a network that is busy now and then;
    "exponential" has `jitter_s` as its mean and a tail that ends at `TAIL` times that, as hosts that are late because
    of their own work. Besides, `reordering` of the datagrams are late by `reordering_s` more: a second way that is
    longer, or a queue that stood still.

    Streams know the latency alone, unless `repeat_s` is set: then a piece of a stream (what one step of sending takes)
    is late by `repeat_s` with the probability `loss`, and all behind it with it, as when TCP sends a packet again;
    Linux waits 0.2 s at least. Nothing in a stream is ever lost, doubled or out of order.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    jitter: Literal["uniform", "exponential"] = "uniform"
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    reordering_s: float = 0.0
    repeat_s: float = 0.0
    steady: bool = field(init=False, repr=False, compare=False)  # every datagram arrives once, after the latency

    def __post_init__(self) -> None:
        chances = (self.loss, self.duplication, self.reordering)
        if not all(0 <= chance <= 1 for chance in chances):
            raise ValueError(f"loss, duplication and reordering are probabilities, from 0 to 1: {chances}")
        times = (self.latency_s, self.jitter_s, self.reordering_s, self.repeat_s)
        if not all(0 <= seconds < float("inf") for seconds in times):
            raise ValueError(f"nothing arrives before it was sent, or never: {times}")
        object.__setattr__(self, "steady", not (self.jitter_s or any(chances)))

    def deliveries(self, now: float, random: Random) -> tuple[float, ...]:
        """Return when the copies of a datagram sent `now` arrive: none, one or two times."""
        if self.loss and random.random() < self.loss:
            return ()
        first = now + self.latency_s + self._lateness_s(random)
        if self.duplication and random.random() < self.duplication:
            return first, now + self.latency_s + self._lateness_s(random)
        return (first,)

    def stream_delay_s(self, random: Random) -> float:
        """Return how long a piece of a stream takes."""
        if self.repeat_s and random.random() < self.loss:
            return self.latency_s + self.repeat_s
        return self.latency_s

    def _lateness_s(self, random: Random) -> float:
        late_s = 0.0
        if self.jitter_s and self.jitter == "uniform":
            late_s = self.jitter_s * random.random()
        elif self.jitter_s:
            late_s = self.jitter_s * min(TAIL, -math.log(1 - random.random()))
        if self.reordering and random.random() < self.reordering:
            late_s += self.reordering_s
        return late_s

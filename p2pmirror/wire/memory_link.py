"""How two simulated hosts are joined, and what a simulation gives to its world.

Laws: all chance comes from the Random that is passed in; a datagram arrives at a time that is fixed when it is sent.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from p2pmirror.wire.address import Address

Observe = Callable[[str, float, Address, Address, bytes], None]  # kind, trio's time, source, target, data


class Agenda(Protocol):
    """What is to happen when, in a simulation that has one list of it for everything."""

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call `callback`, outside any task, when trio's time reaches `when`; of one time in the order of adding."""
        ...


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
    steady: bool = field(init=False, repr=False, compare=False)  # every datagram arrives once, after the latency

    def __post_init__(self) -> None:
        object.__setattr__(self, "steady", not (self.jitter_s or self.loss or self.duplication))

    def deliveries(self, now: float, random: Random) -> list[float]:
        """Return when the copies of a datagram sent `now` arrive: none, one or two times."""
        if self.loss and random.random() < self.loss:
            return []
        copies = 2 if self.duplication and random.random() < self.duplication else 1
        return [now + self.latency_s + self._lateness_s(random) for _ in range(copies)]

    def _lateness_s(self, random: Random) -> float:
        return random.uniform(0, self.jitter_s) if self.jitter_s else 0.0

"""Transfers over links of hosts that send and receive at a rate, as a fluid: when each ends, without its bytes.

Laws:
- no host sends or receives more than its rate; the transfers of one host share it alike, and what one of them cannot
  use, because of its other end, goes to the others;
- what is free at a host is given out when a transfer there begins or ends, so that a rate may be less than max-min fair
  for a moment, never more.

With thousands of transfers under way an exact share for each change (`wire.memory_rates`) would take most of the time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from itertools import count
from typing import Final

TINY: Final = 1e-9  # of a unit: what rounding leaves of a transfer


class Host:
    """One end: what it may send and receive, in units a second, and what is under way there."""

    __slots__ = ("down", "receiving", "sending", "up")

    def __init__(self, up: float, down: float) -> None:
        self.up, self.down = up, down
        self.sending: dict[Transfer, None] = {}  # in the order in which they began
        self.receiving: dict[Transfer, None] = {}


class Transfer:
    """Some units on their way; `ended` is called once with the moment at which the last one has come."""

    __slots__ = ("at", "by_source", "by_target", "ended", "left", "rate", "source", "target", "version")

    def __init__(self, source: Host, target: Host, units: float, ended: Callable[[float], None]) -> None:
        self.source, self.target, self.ended = source, target, ended
        self.left = units
        self.at = self.rate = 0.0
        self.by_source = self.by_target = 0.0  # what each end lets it have
        self.version = 0  # of its rate: an end that was foreseen at an older one does not come


class Fluid:
    """All transfers, and whatever else is to happen at a moment."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = count()
        self._due: list[tuple[float, int, Callable[[float], None] | Transfer, int]] = []

    def at(self, when: float, what: Callable[[float], None]) -> None:
        """Call something at a moment, after all that was to happen then already."""
        heapq.heappush(self._due, (when, next(self._numbers), what, 0))

    def begin(self, source: Host, target: Host, units: float, ended: Callable[[float], None]) -> None:
        """Begin a transfer now."""
        transfer = Transfer(source, target, units, ended)
        transfer.at = self.now
        source.sending[transfer] = target.receiving[transfer] = None
        self._share(source, target)

    def run(self, until: float) -> bool:
        """Let happen what happens by a moment; return whether anything is still to come."""
        while self._due and self._due[0][0] <= until:
            when, _, what, version = heapq.heappop(self._due)
            if not isinstance(what, Transfer):
                self.now = when
                what(when)
            elif version == what.version:
                self.now = when
                self._end(what)
        return bool(self._due)

    def _end(self, transfer: Transfer) -> None:
        del transfer.source.sending[transfer], transfer.target.receiving[transfer]
        transfer.version += 1
        self._share(transfer.source, transfer.target)
        transfer.ended(self.now)

    def _share(self, source: Host, target: Host) -> None:
        """Give out anew what two hosts have."""
        sending, receiving = list(source.sending), list(target.receiving)
        at_targets = (each.target.down / len(each.target.receiving) for each in sending)
        for each, rate in zip(sending, _filled(source.up, at_targets), strict=True):
            each.by_source = rate
        at_sources = (each.source.up / len(each.source.sending) for each in receiving)
        for each, rate in zip(receiving, _filled(target.down, at_sources), strict=True):
            each.by_target = rate
        for each in {**source.sending, **target.receiving}:
            self._flow(each, min(each.by_source, each.by_target))

    def _flow(self, transfer: Transfer, rate: float) -> None:
        if rate == transfer.rate:
            return
        transfer.left -= (self.now - transfer.at) * transfer.rate
        transfer.at, transfer.rate = self.now, rate
        transfer.version += 1
        ends_at = self.now + max(transfer.left, TINY) / rate
        heapq.heappush(self._due, (ends_at, next(self._numbers), transfer, transfer.version))


def _filled(rate: float, limits: Iterable[float]) -> list[float]:
    """Share a rate alike among those who can use so much each; whoever cannot use his share leaves it to the rest."""
    wanted = list(limits)
    found = [0.0] * len(wanted)
    left, others = rate, len(wanted)
    for number in sorted(range(len(wanted)), key=wanted.__getitem__):
        found[number] = share = left if others == 1 else min(wanted[number], left / others)
        left -= share
        others -= 1
    return found

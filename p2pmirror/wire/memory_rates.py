"""Shares hosts' rates among the flows between them, max-min fairly.

Laws:
- no host sends or receives more than its rate;
- a flow gets less than another one only where one of its own hosts is full, and there nobody gets more than it does;
- every flow gets something.

Follows progressive filling (Bertsekas and Gallager, Data Networks, section 6.5.2): all flows grow alike until a host
is full; its flows stay as they are, and the others grow on.
"""

import heapq
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Host = TypeVar("Host", bound=Hashable)

UNLIMITED = float("inf")


def share(
    flows: Sequence[tuple[Host, Host]], upload: Mapping[Host, float], download: Mapping[Host, float]
) -> list[float]:
    """Return the rate of each flow from a source to a target; `UNLIMITED` where neither end has a rate.

    `upload` and `download` are the hosts' rates, above 0, in any one unit. Costs O(n log n) for n flows.
    """
    ends = _ends(flows, upload, download)
    level = 0.0  # what every flow that still grows has; it never falls, so that rounding starves nobody
    rates = [UNLIMITED] * len(flows)
    by_level = [(end.level, number) for number, end in enumerate(ends)]
    heapq.heapify(by_level)
    own_ends: list[list[_End]] = [[] for _ in flows]
    for end in ends:
        for flow in end.growing:
            own_ends[flow].append(end)
    while by_level:
        expected, number = heapq.heappop(by_level)
        end = ends[number]
        if not end.growing:
            continue
        if end.level > expected:  # others of its flows stopped meanwhile, which only leaves more to the rest
            heapq.heappush(by_level, (end.level, number))
            continue
        level = max(level, end.level)
        for flow in list(end.growing):
            rates[flow] = level
            for other in own_ends[flow]:
                other.stop(flow, level)
    return rates


class _End:
    """A host's rate in one direction, and the flows that grow in it."""

    __slots__ = ("growing", "left")

    def __init__(self, rate: float) -> None:
        self.left = rate
        self.growing: dict[int, None] = {}  # in the order of the flows

    @property
    def level(self) -> float:
        """What each of its flows may have if all of them grow on."""
        return max(self.left, 0.0) / len(self.growing) if self.growing else UNLIMITED

    def stop(self, flow: int, rate: float) -> None:
        """Take out a flow that stays at its rate."""
        del self.growing[flow]
        self.left -= rate


def _ends(
    flows: Sequence[tuple[Host, Host]], upload: Mapping[Host, float], download: Mapping[Host, float]
) -> list[_End]:
    ends: dict[tuple[str, Host], _End] = {}
    for flow, (source, target) in enumerate(flows):
        for kind, host, rates in (("up", source, upload), ("down", target, download)):
            rate = rates.get(host)
            if rate is not None:
                if (kind, host) not in ends:
                    ends[kind, host] = _End(rate)
                ends[kind, host].growing[flow] = None
    return list(ends.values())

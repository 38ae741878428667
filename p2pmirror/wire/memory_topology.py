"""What lies between simulated hosts: links, power, partitions, blocked directions.

Laws: only what was changed costs anything to ask for; a host always reaches itself while it has power.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from p2pmirror.wire.memory_link import Link

if TYPE_CHECKING:
    from p2pmirror.wire.memory_host import MemoryNetwork

HOME = Link()  # from a host to itself


class Topology:
    """How all hosts are joined now. `link` joins two that have none of their own."""

    def __init__(self, link: Link) -> None:
        self.whole = True  # nobody is off and nothing is cut: derived at each change, asked for with each datagram
        self._link = link
        self._links: dict[tuple[MemoryNetwork, MemoryNetwork], Link] = {}
        self._off: set[MemoryNetwork] = set()
        self._sides: dict[MemoryNetwork, int] = {}
        self._blocks: list[tuple[frozenset[MemoryNetwork], frozenset[MemoryNetwork]]] = []

    def set_link(self, one: MemoryNetwork, other: MemoryNetwork, link: Link) -> None:
        """Join two hosts, in both directions, by a link of their own; what is on its way keeps its time."""
        self._links[one, other] = self._links[other, one] = link

    def link(self, source: MemoryNetwork, target: MemoryNetwork) -> Link:
        """Return the link from one host to another, or to itself."""
        if source is target:
            return HOME
        return self._links.get((source, target), self._link) if self._links else self._link

    def is_up(self, source: MemoryNetwork, target: MemoryNetwork) -> bool:
        """Whether anything gets from one host to another."""
        if self.whole:
            return True
        if source in self._off or target in self._off:
            return False
        if source is target:
            return True
        if self._sides.get(source, 0) != self._sides.get(target, 0):
            return False
        return not any(source in sources and target in targets for sources, targets in self._blocks)

    def set_power(self, host: MemoryNetwork, *, on: bool) -> None:
        """Let a host have power or none."""
        if on:
            self._off.discard(host)
        else:
            self._off.add(host)
        self._judge()

    def partition(self, groups: Iterable[Iterable[MemoryNetwork]]) -> None:
        """Cut the world into these groups; hosts that are not named form one more."""
        self._sides = {host: side for side, group in enumerate(groups, 1) for host in group}
        self._judge()

    def block(self, sources: Collection[MemoryNetwork], targets: Collection[MemoryNetwork]) -> None:
        """Let nothing through from the sources to the targets; the other direction stays as it is."""
        self._blocks.append((frozenset(sources), frozenset(targets)))
        self._judge()

    def unblock(self, sources: Collection[MemoryNetwork], targets: Collection[MemoryNetwork]) -> None:
        """Take back a `block` of the same groups; nothing happens when there is none."""
        block = frozenset(sources), frozenset(targets)
        if block in self._blocks:
            self._blocks.remove(block)
        self._judge()

    def heal(self) -> None:
        """End the partition and every block."""
        self._sides = {}
        self._blocks = []
        self._judge()

    def _judge(self) -> None:
        self.whole = not (self._off or self._sides or self._blocks)


class Way:
    """One direction between two hosts as it is at the moment of asking."""

    __slots__ = ("source", "target", "topology")

    def __init__(self, topology: Topology, source: MemoryNetwork, target: MemoryNetwork) -> None:
        self.topology = topology
        self.source = source
        self.target = target

    @property
    def is_up(self) -> bool:
        """Whether anything gets through."""
        return self.topology.is_up(self.source, self.target)

    @property
    def link(self) -> Link:
        """What joins the two."""
        return self.topology.link(self.source, self.target)

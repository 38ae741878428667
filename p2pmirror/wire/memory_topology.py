"""What lies between simulated hosts: links, power, partitions.

Laws: only what was changed costs anything to ask for; a host always reaches itself while it has power.
"""

from collections.abc import Hashable, Iterable

from p2pmirror.wire.memory_link import Link

HOME = Link()  # from a host to itself


class Topology:
    """How all hosts are joined now. `link` joins two that have none of their own; a host is whatever can be a key."""

    def __init__(self, link: Link) -> None:
        self.whole = True  # nobody is off and nothing is cut: derived at each change, asked for with each datagram
        self._link = link
        self._links: dict[tuple[Hashable, Hashable], Link] = {}
        self._off: set[Hashable] = set()
        self._sides: dict[Hashable, int] = {}

    def set_link(self, one: Hashable, other: Hashable, link: Link) -> None:
        """Join two hosts, in both directions, by a link of their own; what is on its way keeps its time."""
        self._links[one, other] = self._links[other, one] = link

    def link(self, source: Hashable, target: Hashable) -> Link:
        """Return the link from one host to another, or to itself."""
        if source is target:
            return HOME
        return self._links.get((source, target), self._link) if self._links else self._link

    def is_up(self, source: Hashable, target: Hashable) -> bool:
        """Whether anything gets from one host to another."""
        if self.whole:
            return True
        if source in self._off or target in self._off:
            return False
        return source is target or self._sides.get(source, 0) == self._sides.get(target, 0)

    def set_power(self, host: Hashable, *, on: bool) -> None:
        """Let a host have power or none."""
        if on:
            self._off.discard(host)
        else:
            self._off.add(host)
        self._judge()

    def partition(self, groups: Iterable[Iterable[Hashable]]) -> None:
        """Cut the world into these groups; hosts that are not named form one more."""
        self._sides = {host: side for side, group in enumerate(groups, 1) for host in group}
        self._judge()

    def heal(self) -> None:
        """End the partition."""
        self._sides = {}
        self._judge()

    def _judge(self) -> None:
        self.whole = not (self._off or self._sides)


class Way:
    """One direction between two hosts as it is at the moment of asking."""

    __slots__ = ("source", "target", "topology")

    def __init__(self, topology: Topology, source: Hashable, target: Hashable) -> None:
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

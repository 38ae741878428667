"""A connection of the simulated world: two hosts, two streams, a pipe each way.

Law: it is forgotten once both ends are closed, for then nobody is left who could notice it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import trio

from p2pmirror.wire.address import Address
from p2pmirror.wire.memory_pipe import Pipe
from p2pmirror.wire.memory_streams import MemoryStream

if TYPE_CHECKING:
    from p2pmirror.wire.memory import MemoryWorld
    from p2pmirror.wire.memory_host import MemoryNetwork


class Connection:
    """Joins the one who dialled, `source`, with `target`; `ours` is the dialler's end."""

    __slots__ = ("_back", "_there", "_world", "ours", "source", "target", "theirs")

    def __init__(
        self, world: MemoryWorld, source: MemoryNetwork, local: Address, target: MemoryNetwork, remote: Address
    ) -> None:
        self.source = source
        self.target = target
        self._world = world
        self._there = Pipe(world, world.way(source, target), local, remote)
        self._back = Pipe(world, world.way(target, source), remote, local)
        self._there.back, self._back.back = self._back, self._there
        self.ours = MemoryStream(self._back, self._there, world.timing, self._closed)
        self.theirs = MemoryStream(self._there, self._back, world.timing, self._closed)

    @property
    def latency_s(self) -> float:
        """One way and back."""
        return self._there.way.link.latency_s + self._back.way.link.latency_s

    @property
    def open_ends(self) -> int:
        """How many of the two nobody has closed."""
        return (not self.ours.closed) + (not self.theirs.closed)

    def advance(self) -> None:
        """Go on after the world has changed."""
        self._there.advance()
        self._back.advance()

    def reset(self) -> None:
        """Let both ends see a reset now, whatever lies between them."""
        self._there.sever()
        self._back.sever()

    def kill(self, network: MemoryNetwork) -> None:
        """Close the ends that a host's process had, as its kernel does when it dies."""
        for host, stream, _ in self._ends():
            if host is network:
                stream.kill()

    def lose_memory(self, network: MemoryNetwork) -> None:
        """Close the ends of a host that comes back after its power went: what it had not sent by then is gone."""
        for host, stream, outgoing in self._ends():
            if host is network:
                outgoing.drop()
                stream.kill(reset=True)
                outgoing.reset(trio.current_time())

    def _ends(self) -> Iterator[tuple[MemoryNetwork, MemoryStream, Pipe]]:
        yield self.source, self.ours, self._there
        yield self.target, self.theirs, self._back

    def _closed(self) -> None:
        if not self.open_ends:
            self._there.drop()
            self._back.drop()
            self._world.forget(self)

"""One simulated host: its addresses, its ports, its dials.

Law: a dial that a process had under way when it was killed never ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.memory_datagrams import MemoryDatagrams
from p2pmirror.wire.memory_listener import MemoryListener
from p2pmirror.wire.memory_ports import Ports, is_loopback
from p2pmirror.wire.memory_streams import MemoryStream

if TYPE_CHECKING:
    from p2pmirror.wire.memory import MemoryWorld

LOOPBACK = ("127.0.0.1", "::1")


class MemoryNetwork:
    """One simulated host, as `network.Network` describes it; made by `MemoryWorld.host`."""

    __slots__ = ("_killed", "_world", "datagrams", "hosts", "listeners")

    def __init__(self, world: MemoryWorld, hosts: list[str]) -> None:
        self.hosts = hosts
        own = frozenset((*hosts, *LOOPBACK))
        self.listeners = Ports[MemoryListener](own)
        self.datagrams = Ports[MemoryDatagrams](own)
        self._world = world
        self._killed = 0  # how many processes died here

    async def connect(self, address: Address) -> MemoryStream:
        """Dial. Raises `Unreachable` when nobody listens; waits without end for a silent host. Cancellation: undone."""
        await trio.lowlevel.checkpoint()
        if address.is_unspecified:
            raise Unreachable(f"{address} is an address to listen on, not to dial")
        process = self._killed
        target = await self._reach(address, process)
        local = Address(self.chosen_host(address), self.listeners.draw())
        connection = self._world.join(self, local, target, address)
        try:
            await self._pause(self._world.way(target, self).link.latency_s, process)
        except trio.Cancelled:
            if connection is not None:
                connection.ours.close_now()
            raise
        if connection is None:
            raise Unreachable(f"{address} cannot be dialled: Connection refused")
        return connection.ours

    async def listen(self, address: Address) -> MemoryListener:
        """Listen for streams; `::` means both families. Raises OSError. Cancellation: nothing is bound."""
        await trio.lowlevel.checkpoint()
        listener = MemoryListener(self.listeners.choose(address), self.listeners.release, self._world.timing)
        self.listeners.add(listener)
        return listener

    async def open_datagrams(self, address: Address) -> MemoryDatagrams:
        """Bind a datagram port; `::` means both families. Raises OSError. Cancellation: nothing is bound."""
        await trio.lowlevel.checkpoint()
        port = MemoryDatagrams(self.datagrams.choose(address), self, self._world)
        self.datagrams.add(port)
        return port

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return what the world's table says. Raises `Unreachable` for a name that is not in it."""
        await trio.lowlevel.checkpoint()
        try:
            return [Address.of(host, port)]
        except ValueError:
            found = self._world.names.get(host)
        if not found:
            raise Unreachable(f"the name {host!r} has no address")
        return sorted({Address.of(numeric, port) for numeric in found})

    async def source_host(self, towards: Address) -> str:
        """Return this host's first numeric host of the same family. Raises `Unreachable` when it has none."""
        await trio.lowlevel.checkpoint()
        return self.chosen_host(towards)

    def chosen_host(self, towards: Address) -> str:
        """Return what `source_host` returns, at once."""
        if is_loopback(towards.host):
            return "::1" if towards.is_ipv6 else "127.0.0.1"
        for host in self.hosts:
            if (":" in host) == towards.is_ipv6:
                return host
        raise Unreachable(f"there is no route to {towards.host}: this host has no address of that family")

    def kill(self) -> None:
        """Close every port, because the process behind them died."""
        self._killed += 1
        self.listeners.kill_all()
        self.datagrams.kill_all()

    async def _reach(self, address: Address, process: int) -> MemoryNetwork:
        """Wait until a first word has reached the host of `address`; a dialling kernel asks again and again."""
        while True:
            target = self._world.owner(address.host, self)
            if target is not None:
                there, back = self._world.way(self, target), self._world.way(target, self)
                if there.is_up and back.is_up:
                    await self._pause(there.link.latency_s, process)
                if there.is_up and back.is_up:
                    return target
            await self._world.changed.wait()

    async def _pause(self, seconds: float, process: int) -> None:
        if seconds:
            await self._world.changed.wait_until(trio.current_time() + seconds)
        else:
            await trio.lowlevel.checkpoint()
        if self._killed != process:
            await trio.sleep_forever()

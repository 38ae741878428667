"""Datagram ports of simulated hosts.

Laws: a datagram arrives whole or not at all; it is handed over in the moment in which it arrives, or waits until
somebody takes; one that finds the port's buffer full is lost. An error in what takes comes out of `deliver` alone. The
task of a process that was killed waits in `deliver` for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.memory_ports import is_loopback
from p2pmirror.wire.memory_timing import Wakeup

if TYPE_CHECKING:
    from p2pmirror.wire.memory import MemoryWorld
    from p2pmirror.wire.memory_host import MemoryNetwork

PORT_BYTES = 208 << 10  # 208 KiB wait unread at most: Linux's default rmem
PAYLOAD_BYTES_MAX = 65507  # the most that fits one UDP datagram over IPv4

ANYWHERE4, ANYWHERE6 = Address("192.0.2.1", 9), Address("2001:db8::1", 9)  # not of this host

Take = Callable[[bytes, Address], None]


class MemoryDatagrams:
    """A bound datagram port of a simulated host, as `network.Datagrams` describes it."""

    __slots__ = (
        "_arrived",
        "_bytes",
        "_closed",
        "_failure",
        "_home",
        "_killed",
        "_source4",
        "_source6",
        "_take",
        "_wakeup",
        "_world",
        "address",
    )

    def __init__(self, address: Address, home: MemoryNetwork, world: MemoryWorld) -> None:
        self.address = address  # the bound one, with its real port
        self._home = home
        self._world = world
        self._take: Take | None = None
        self._failure: Exception | None = None
        self._arrived: deque[tuple[bytes, Address, Address]] | None = None  # while something waits
        self._bytes = 0
        self._wakeup = Wakeup(world.timing)
        self._closed = False
        self._killed = False
        self._source4 = self._source(ANYWHERE4)
        self._source6 = self._source(ANYWHERE6)

    def send(self, data: bytes, to: Address) -> None:
        """Send one datagram, or lose it."""
        source = self._source6 if ":" in to.host else self._source4
        if is_loopback(to.host):
            source = self._source(to)
        if source is not None and not self._closed and len(data) <= PAYLOAD_BYTES_MAX:
            self._world.carry(bytes(data), source, self._home, to)

    async def deliver(self, take: Take) -> None:
        """Hand over every datagram; see `network.Datagrams`."""
        await trio.lowlevel.checkpoint()
        if self._take is not None:
            raise trio.BusyResourceError("another task is receiving on this port")
        self._world.timing.catch_up()
        self._take = take
        try:
            self._hand_over_what_waits()
            while not self._closed and self._failure is None:
                await self._wakeup.wait()
            if self._killed:
                await trio.sleep_forever()
        finally:
            self._take = None
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure

    async def aclose(self) -> None:
        """Close the port at once. Cancellation: closed all the same."""
        self.close_now()
        await trio.lowlevel.checkpoint()

    def close_now(self) -> None:
        """Close the port without waiting; once."""
        if self._closed:
            return
        self._closed = True
        self._home.datagrams.release(self)
        self._arrived = None
        self._wakeup.wake()

    def kill(self) -> None:
        """Close the port because its process died: its task sees nothing of it."""
        self._killed = not self._closed
        self.close_now()

    def arrive(self, data: bytes, source: Address, to: Address) -> None:
        """Take a datagram in that was sent to an address of this port."""
        if self._take is not None and self._failure is None:
            self._hand_over(self._take, data, source, to)
        elif self._bytes + len(data) <= PORT_BYTES:
            if self._arrived is None:
                self._arrived = deque()
            self._arrived.append((data, source, to))
            self._bytes += len(data)

    def _hand_over_what_waits(self) -> None:
        while self._arrived and self._take is not None and self._failure is None:
            data, source, to = self._arrived.popleft()
            self._bytes -= len(data)
            self._hand_over(self._take, data, source, to)
        if not self._arrived:
            self._arrived = None

    def _hand_over(self, take: Take, data: bytes, source: Address, to: Address) -> None:
        if self._world.observe is not None:
            self._world.observe("datagram", trio.current_time(), source, to, data)
        try:
            take(data, source)
        except Exception as error:  # noqa: BLE001 - it belongs to the task in `deliver`, not to whoever keeps the time
            self._failure = error
            self._wakeup.wake()

    def _source(self, to: Address) -> Address | None:
        """Return how the port calls itself towards an address; None when it has no address of that family."""
        if not self.address.is_unspecified:
            return self.address if self.address.is_ipv6 == to.is_ipv6 else None
        if self.address.host == "0.0.0.0" and to.is_ipv6:
            return None
        try:
            return Address(self._home.chosen_host(to), self.address.port)
        except Unreachable:
            return None

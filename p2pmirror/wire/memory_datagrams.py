"""Datagram ports of simulated hosts.

Laws: a datagram arrives whole or not at all; one that arrives while the path is down, or finds the port's buffer full,
is lost.
"""

import heapq
from collections import deque
from collections.abc import Callable

import trio

from p2pmirror.wire.address import Address
from p2pmirror.wire.memory_link import Path, Wakeup
from p2pmirror.wire.memory_pipe import NEVER

PORT_BYTES = 208 << 10  # 208 KiB wait unread at most: Linux's default rmem
PAYLOAD_BYTES_MAX = 65507  # the most that fits one UDP datagram over IPv4

Arrival = tuple[float, int, bytes, Address, Path]


class MemoryDatagrams:
    """A bound datagram port of a simulated host, as `network.Datagrams` describes it."""

    def __init__(
        self,
        address: Address,
        deliver: Callable[["MemoryDatagrams", bytes, Address], None],
        release: Callable[["MemoryDatagrams"], None],
    ) -> None:
        self._address = address
        self._deliver = deliver
        self._release = release
        self._flying: list[Arrival] = []
        self._arrived: deque[tuple[bytes, Address]] = deque()
        self._bytes = 0
        self._count = 0  # breaks ties between arrivals in the order of sending
        self._wakeup = Wakeup()
        self._closed = False

    @property
    def address(self) -> Address:
        """The bound address, with its real port."""
        return self._address

    def send(self, data: bytes, to: Address) -> None:
        """Send one datagram, or lose it."""
        if not self._closed and len(data) <= PAYLOAD_BYTES_MAX:
            self._deliver(self, bytes(data), to)

    async def deliver(self, take: Callable[[bytes, Address], None]) -> None:
        """Hand over every datagram; see `network.Datagrams`."""
        await trio.lowlevel.checkpoint()
        while not self._closed:
            self.settle(trio.current_time())
            while self._arrived:
                data, source = self._arrived.popleft()
                self._bytes -= len(data)
                take(data, source)
            if not self._closed:
                await self._wakeup.wait(self._flying[0][0] if self._flying else NEVER)

    async def aclose(self) -> None:
        """Close the port at once. Cancellation: closed all the same."""
        self.close_now()
        await trio.lowlevel.checkpoint()

    def close_now(self) -> None:
        """Close the port without waiting; once."""
        if self._closed:
            return
        self._closed = True
        self._release(self)
        self._flying.clear()
        self._arrived.clear()
        self._wakeup.wake()

    def arrive(self, data: bytes, source: Address, at: float, path: Path) -> None:
        """Let a datagram arrive at a time, if the path is up then."""
        if self._closed:
            return
        self.settle(trio.current_time())
        self._count += 1
        heapq.heappush(self._flying, (at, self._count, data, source, path))
        self._wakeup.wake()

    def settle(self, now: float) -> None:
        """Take in what has arrived by `now`."""
        while self._flying and self._flying[0][0] <= now:
            _, _, data, source, path = heapq.heappop(self._flying)
            if path.is_up() and self._bytes + len(data) <= PORT_BYTES:
                self._arrived.append((data, source))
                self._bytes += len(data)

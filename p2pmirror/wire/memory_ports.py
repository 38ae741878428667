"""Which ports a simulated host has bound, and who is behind them.

Laws: a port is bound once for every host that a bound address covers; port 0 asks for one that is free.
"""

import errno
import ipaddress
import os

from p2pmirror.wire.address import PORT_MAX, Address
from p2pmirror.wire.memory_datagrams import MemoryDatagrams
from p2pmirror.wire.memory_streams import MemoryListener

FIRST_FREE_PORT = 32768  # where Linux begins to draw ports


class Ports:
    """The bound ports of one host; `hosts` are the numeric hosts that it has, loopback included."""

    def __init__(self, hosts: list[str]) -> None:
        self._hosts = frozenset(hosts)
        self._listeners: list[MemoryListener] = []
        self._datagrams: list[MemoryDatagrams] = []
        self._drawn = FIRST_FREE_PORT - 1

    def next_port(self) -> int:
        """Draw a port, each in its turn."""
        self._drawn = self._drawn + 1 if self._drawn < PORT_MAX else FIRST_FREE_PORT
        return self._drawn

    def choose(self, kind: str, address: Address) -> Address:
        """Return the address to bind, with a port; OSError when it is in use or not of this host."""
        if not (address.is_unspecified or address.host in self._hosts or is_loopback(address.host)):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        bound = [port.address for port in (self._listeners if kind == "tcp" else self._datagrams)]
        if address.port:
            if _collides(address, bound):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            return address
        for _ in range(PORT_MAX - FIRST_FREE_PORT):
            chosen = Address(address.host, self.next_port())
            if not _collides(chosen, bound):
                return chosen
        raise OSError(errno.EADDRINUSE, "every port is in use")

    def add_listener(self, listener: MemoryListener) -> None:
        """Let dials find a listener."""
        self._listeners.append(listener)

    def add_datagrams(self, port: MemoryDatagrams) -> None:
        """Let datagrams find a port."""
        self._datagrams.append(port)

    def release_listener(self, listener: MemoryListener) -> None:
        """Forget a listener that closes."""
        self._listeners.remove(listener)

    def release_datagrams(self, port: MemoryDatagrams) -> None:
        """Forget a datagram port that closes."""
        self._datagrams.remove(port)

    def listener(self, address: Address) -> MemoryListener:
        """Return who listens there; KeyError when nobody does."""
        for listener in self._listeners:
            if listener.address.port == address.port and _covers(listener.address.host, address.host):
                return listener
        raise KeyError(address)

    def datagrams(self, address: Address) -> MemoryDatagrams | None:
        """Return who receives datagrams there."""
        for port in self._datagrams:
            if port.address.port == address.port and _covers(port.address.host, address.host):
                return port
        return None

    def settle(self, now: float) -> None:
        """Take in the datagrams that have arrived by `now`."""
        for port in self._datagrams:
            port.settle(now)

    def close_all(self) -> None:
        """Close every port."""
        for listener in list(self._listeners):
            listener.close_now()
        for port in list(self._datagrams):
            port.close_now()


def is_loopback(host: str) -> bool:
    """Whether a numeric host means the asking host itself."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _covers(bound: str, host: str) -> bool:
    return bound in {host, "::"} or (bound == "0.0.0.0" and ":" not in host)


def _collides(address: Address, bound: list[Address]) -> bool:
    return any(
        other.port == address.port and (_covers(other.host, address.host) or _covers(address.host, other.host))
        for other in bound
    )

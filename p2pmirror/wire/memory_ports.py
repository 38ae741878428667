"""Which ports a simulated host has bound, and who is behind them.

Laws: a port is bound once for every host that a bound address covers; port 0 asks for one that is free. Who is behind
an address is found by its port's number, in the same time however many ports are bound.
"""

import errno
import os
from typing import Generic, Protocol, TypeVar

from p2pmirror.wire.address import PORT_MAX, Address

FIRST_FREE_PORT = 32768  # where Linux begins to draw ports


class _Bound(Protocol):
    @property
    def address(self) -> Address: ...

    def kill(self) -> None: ...


_Port = TypeVar("_Port", bound=_Bound)


class Ports(Generic[_Port]):
    """The bound ports of one host, of one kind; `hosts` are the numeric hosts that it has, loopback included."""

    __slots__ = ("_bound", "_drawn", "_hosts")

    def __init__(self, hosts: frozenset[str]) -> None:
        self._hosts = hosts
        self._bound: dict[int, list[_Port]] = {}
        self._drawn = FIRST_FREE_PORT - 1

    def draw(self) -> int:
        """Draw a port, each in its turn."""
        self._drawn = self._drawn + 1 if self._drawn < PORT_MAX else FIRST_FREE_PORT
        return self._drawn

    def choose(self, address: Address) -> Address:
        """Return the address to bind, with a port; OSError when it is in use or not of this host."""
        if not (address.is_unspecified or address.host in self._hosts or is_loopback(address.host)):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        if address.port:
            if self._collides(address):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            return address
        for _ in range(PORT_MAX - FIRST_FREE_PORT):
            chosen = Address(address.host, self.draw())
            if not self._collides(chosen):
                return chosen
        raise OSError(errno.EADDRINUSE, "every port is in use")

    def add(self, port: _Port) -> None:
        """Let others find a port."""
        self._bound.setdefault(port.address.port, []).append(port)

    def release(self, port: _Port) -> None:
        """Forget a port that closes."""
        same = self._bound[port.address.port]
        same.remove(port)
        if not same:
            del self._bound[port.address.port]

    def at(self, address: Address) -> _Port | None:
        """Return who is behind an address; None when nobody is."""
        for port in self._bound.get(address.port, ()):
            if _covers(port.address.host, address.host):
                return port
        return None

    def kill_all(self) -> None:
        """Close every port, because the process behind them died."""
        for port in [port for same in self._bound.values() for port in same]:
            port.kill()

    def _collides(self, address: Address) -> bool:
        return any(
            _covers(other.address.host, address.host) or _covers(address.host, other.address.host)
            for other in self._bound.get(address.port, ())
        )


def is_loopback(host: str) -> bool:
    """Whether a numeric host, in its one spelling, means the asking host itself."""
    return host.startswith("127.") or host == "::1"


def _covers(bound: str, host: str) -> bool:
    return bound in (host, "::") or (bound == "0.0.0.0" and ":" not in host)

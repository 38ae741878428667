"""Addresses as the kernel's socket calls take and give them.

Laws: what comes from the kernel is normalised once, here, so that an IPv4 peer of a dual-stack socket is an IPv4 peer;
a link-local IPv6 host keeps its interface, without which it cannot be dialled.
"""

import socket
from contextlib import suppress
from functools import lru_cache
from typing import Any

from p2pmirror.wire.address import Address


def family_of(address: Address) -> socket.AddressFamily:
    """Return AF_INET or AF_INET6."""
    return socket.AF_INET6 if address.is_ipv6 else socket.AF_INET


def to_kernel(address: Address, family: socket.AddressFamily) -> tuple[Any, ...]:
    """Return `address` for a socket of `family`; an IPv4 host on an IPv6 socket is mapped.

    Raises OSError when the address names an interface that is not there, or is IPv6 on an IPv4 socket.
    """
    if family == socket.AF_INET:
        if address.is_ipv6:
            raise OSError(f"{address} cannot be reached from an IPv4 socket")
        return (address.host, address.port)
    if not address.is_ipv6:
        return (f"::ffff:{address.host}", address.port, 0, 0)
    host, _, scope = address.host.partition("%")
    return (host, address.port, 0, _interface_number(scope))


def from_kernel(name: Any) -> Address:
    """Return the address that `getsockname`, `accept`, `recvfrom` or `getaddrinfo` gave."""
    host, port = name[0], name[1]
    scope = name[3] if len(name) > 3 else 0
    if scope and "%" not in host:
        return Address.of(f"{host}%{_interface_name(scope)}", port)
    return _address_of(host, port)


# Entries: correspondents of a large cluster, some 200 bytes each. Parsing costs more than receiving the datagram does.
_address_of = lru_cache(maxsize=4096)(Address.of)


def _interface_number(scope: str) -> int:
    if not scope:
        return 0
    return int(scope) if scope.isdigit() else socket.if_nametoindex(scope)


def _interface_name(number: int) -> str:
    with suppress(OSError):  # the interface may have gone since the packet came
        return socket.if_indextoname(number)
    return str(number)

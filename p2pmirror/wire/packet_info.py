"""Which of this host's addresses a datagram came to, and how to send from there.

A port on the unspecified address receives at every address of its host, and the kernel sends from the one that its
routes prefer: whoever asked another one would not take that for an answer. So the kernel is asked for the address with
each datagram (`IP_PKTINFO`, ip(7); `IPV6_PKTINFO`, RFC 3542 section 6), and told it when something is sent back.
"""

import socket
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, TypeAlias

_IP_PKTINFO: Final = 8  # of Linux; Python has no name for it before 3.12
_IPV4: Final = struct.Struct("=i4s4s")  # interface, local address, address in the header
_IPV6: Final = struct.Struct("=16si")  # local address, interface

ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_IPV6.size) + socket.CMSG_SPACE(_IPV4.size)

Ancillary: TypeAlias = tuple[int, int, bytes]
"""A control message: level, kind, content."""


def ask_for(sock: socket.socket) -> None:
    """Have the kernel tell with each datagram where it came to; an IPv6 socket tells mapped IPv4 addresses too."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)


def way_back(received: Iterable[Ancillary]) -> Ancillary | None:
    """Return what makes an answer leave from where its question came to; None when the kernel did not tell."""
    for each in received:
        way = _way_back(*each)
        if way is not None:
            return way
    return None


@lru_cache(maxsize=1024)  # entries: a host's addresses on its interfaces
def _way_back(level: int, kind: int, content: bytes) -> Ancillary | None:
    if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO) and len(content) == _IPV4.size:
        _, local, _ = _IPV4.unpack(content)
        return level, kind, _IPV4.pack(0, local, bytes(4))
    if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and len(content) == _IPV6.size:
        local, interface = _IPV6.unpack(content)
        return level, kind, _IPV6.pack(local, interface if local.startswith(b"\xfe\x80") else 0)
    return None

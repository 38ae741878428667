"""UDP on trio: whole datagrams with where they came from; nothing that happens on the way is an error.

Laws:
- only closing ends a `deliver`; what cannot be sent now is lost, as it might have been lost further on;
- on a port of all addresses, what is sent to somebody leaves from the address at which he was heard last. A forged
  sender can change that until the real one is heard again; what he then answers arrives at this port all the same.
"""

import errno
import socket
from collections.abc import Callable
from contextlib import suppress

import trio

from p2pmirror.wire import packet_info
from p2pmirror.wire.address import Address
from p2pmirror.wire.socket_address import family_of, from_kernel, to_kernel
from p2pmirror.wire.tcp import bind

DATAGRAM_BYTES_MAX = 65535  # the length field of UDP has 16 bits: no datagram is longer, so none is cut
DATAGRAMS_PER_STEP = 64  # then the loop turns once: half a millisecond of answering
WAYS_MAX = 4096  # addresses of which it is remembered where they were heard, some 200 bytes each: a large cluster's


class UdpDatagrams:
    """One bound UDP socket, as `network.Datagrams` describes it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock  # does not block
        self._address = from_kernel(sock.getsockname())
        # An unspecified IPv6 address that the kernel turned down has become an IPv4 one: ask what is there.
        self._family = family_of(self._address)
        self._receive = self._receive_from
        self._ways: dict[Address, packet_info.Ancillary] = {}  # the first heard is the first forgotten
        if self._address.is_unspecified:
            packet_info.ask_for(sock)
            self._receive = self._receive_with_way

    @property
    def address(self) -> Address:
        """The bound address, with its real port."""
        return self._address

    def send(self, data: bytes, to: Address) -> None:
        """Send one datagram, or lose it."""
        with suppress(OSError):  # no room, no route, too long, refused by a firewall, closed
            way = self._ways.get(to)
            if way is None:
                self._sock.sendto(data, to_kernel(to, self._family))
            else:
                self._send_by(way, data, to)

    async def deliver(self, take: Callable[[bytes, Address], None]) -> None:
        """Hand over every datagram; see `network.Datagrams`."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self._sock)
            except (trio.ClosedResourceError, ValueError):  # ValueError: closed before the wait began
                return
            for _ in range(DATAGRAMS_PER_STEP):
                try:
                    data, source = self._receive()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno == errno.EBADF:
                        return
                    continue  # an ICMP error about an earlier datagram: not this one's business
                take(data, source)

    async def aclose(self) -> None:
        """Close the port at once. Cancellation: closed all the same."""
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
        await trio.lowlevel.checkpoint()

    def _receive_from(self) -> tuple[bytes, Address]:
        data, name = self._sock.recvfrom(DATAGRAM_BYTES_MAX)
        return data, from_kernel(name)

    def _receive_with_way(self) -> tuple[bytes, Address]:
        data, ancillary, _, name = self._sock.recvmsg(DATAGRAM_BYTES_MAX, packet_info.ANCILLARY_BYTES)
        source = from_kernel(name)
        way = packet_info.way_back(ancillary)
        if way is not None and self._ways.get(source) != way:
            self._ways.pop(source, None)
            self._ways[source] = way
            if len(self._ways) > WAYS_MAX:
                del self._ways[next(iter(self._ways))]
        return data, source

    def _send_by(self, way: packet_info.Ancillary, data: bytes, to: Address) -> None:
        """Send from where `to` was heard, or from anywhere when this host no longer has that address."""
        name = to_kernel(to, self._family)
        try:
            self._sock.sendmsg((data,), (way,), 0, name)
        except BlockingIOError:
            return
        except OSError:
            self._ways.pop(to, None)
            self._sock.sendto(data, name)


async def open_datagrams(address: Address) -> UdpDatagrams:
    """Bind a port; `::` means both families. Raises OSError. Cancellation: nothing is bound."""
    await trio.lowlevel.checkpoint()
    return UdpDatagrams(bind(address, socket.SOCK_DGRAM))

"""UDP on trio: whole datagrams with where they came from; nothing that happens on the way is an error.

Law: only closing ends a `deliver`; what cannot be sent now is lost, as it might have been lost further on.
"""

import errno
import socket
from collections.abc import Callable
from contextlib import suppress

import trio

from p2pmirror.wire.address import Address
from p2pmirror.wire.socket_address import family_of, from_kernel, to_kernel
from p2pmirror.wire.tcp import bind

DATAGRAM_BYTES_MAX = 65535  # the length field of UDP has 16 bits: no datagram is longer, so none is cut
DATAGRAMS_PER_STEP = 64  # then the loop turns once: half a millisecond of answering


class UdpDatagrams:
    """One bound UDP socket, as `network.Datagrams` describes it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock  # does not block
        self._address = from_kernel(sock.getsockname())
        # An unspecified IPv6 address that the kernel turned down has become an IPv4 one: ask what is there.
        self._family = family_of(self._address)

    @property
    def address(self) -> Address:
        """The bound address, with its real port."""
        return self._address

    def send(self, data: bytes, to: Address) -> None:
        """Send one datagram, or lose it."""
        with suppress(OSError):  # no room, no route, too long, refused by a firewall, closed
            self._sock.sendto(data, to_kernel(to, self._family))

    async def deliver(self, take: Callable[[bytes, Address], None]) -> None:
        """Hand over every datagram; see `network.Datagrams`."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self._sock)
            except (trio.ClosedResourceError, ValueError):  # ValueError: closed before the wait began
                return
            for _ in range(DATAGRAMS_PER_STEP):
                try:
                    data, name = self._sock.recvfrom(DATAGRAM_BYTES_MAX)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno == errno.EBADF:
                        return
                    continue  # an ICMP error about an earlier datagram: not this one's business
                take(data, from_kernel(name))

    async def aclose(self) -> None:
        """Close the port at once. Cancellation: closed all the same."""
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
        await trio.lowlevel.checkpoint()


async def open_datagrams(address: Address) -> UdpDatagrams:
    """Bind a port; `::` means both families. Raises OSError. Cancellation: nothing is bound."""
    await trio.lowlevel.checkpoint()
    return UdpDatagrams(bind(address, socket.SOCK_DGRAM))

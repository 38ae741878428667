"""UDP on trio: whole datagrams with where they came from; nothing that happens on the way is an error.

Law: only closing ends a `receive`; what cannot be sent now is lost, as it might have been lost further on.
"""

import errno
import socket
from contextlib import suppress

import trio

from p2pmirror.wire.address import Address
from p2pmirror.wire.socket_address import family_of, from_kernel, to_kernel
from p2pmirror.wire.tcp import bind

DATAGRAM_BYTES_MAX = 65535  # the length field of UDP has 16 bits: no datagram is longer, so none is cut


class UdpDatagrams:
    """One bound UDP socket, as `network.Datagrams` describes it."""

    def __init__(self, sock: socket.socket) -> None:
        self._plain = sock  # to send without ever waiting
        self._sock = trio.socket.from_stdlib_socket(sock)
        self._address = from_kernel(sock.getsockname())
        # An unspecified IPv6 address that the kernel turned down has become an IPv4 one: ask what is there.
        self._family = family_of(self._address)

    @property
    def address(self) -> Address:
        """The bound address, with its real port."""
        return self._address

    async def send(self, data: bytes, to: Address) -> None:
        """Send one datagram, or lose it. Raises ClosedResourceError once closed. Cancelled: not sent."""
        await trio.lowlevel.checkpoint()
        if self._plain.fileno() < 0:
            raise trio.ClosedResourceError("this port is closed")
        with suppress(OSError):  # no room, no route, too long, refused by a firewall
            self._plain.sendto(data, to_kernel(to, self._family))

    async def receive(self) -> tuple[bytes, Address]:
        """Return the next datagram and its sender. Raises ClosedResourceError once closed. Cancellation loses none."""
        while True:
            try:
                data, name = await self._sock.recvfrom(DATAGRAM_BYTES_MAX)
            except OSError as error:
                if error.errno in {errno.EBADF, errno.ENOTSOCK}:
                    raise trio.ClosedResourceError("this port is closed") from error
                await trio.lowlevel.checkpoint()  # an ICMP error about an earlier datagram: not this one's business
                continue
            return data, from_kernel(name)

    async def aclose(self) -> None:
        """Close the port at once. Cancellation: closed all the same."""
        self._sock.close()
        await trio.lowlevel.checkpoint()


async def open_datagrams(address: Address) -> UdpDatagrams:
    """Bind a port; `::` means both families. Raises OSError. Cancellation: nothing is bound."""
    await trio.lowlevel.checkpoint()
    return UdpDatagrams(bind(address, socket.SOCK_DGRAM))

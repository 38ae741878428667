"""This machine's network: TCP, UDP, names and routes.

Laws: threads live here, behind a limiter for each kind of work, so that a slow name server never holds back a disk,
nor a slow disk a name.
"""

import ipaddress
import socket
from functools import partial

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire import tcp, udp
from p2pmirror.wire.address import Address
from p2pmirror.wire.socket_address import family_of, from_kernel, to_kernel

READING_THREADS = 8  # reads of cold files at a time: enough to keep an SSD busy, 8 MiB of buffers at most
RESOLVING_THREADS = 4  # name look-ups at a time; each may hang for the resolver's own 5 s and more
ROUTE_PORT = 9  # any port but 0 will do to ask for a route: nothing is sent


class HostNetwork:
    """The sockets of this host, as `network.Network` describes them."""

    def __init__(
        self, *, reading: trio.CapacityLimiter | None = None, resolving: trio.CapacityLimiter | None = None
    ) -> None:
        self._reading = reading or trio.CapacityLimiter(READING_THREADS)
        self._resolving = resolving or trio.CapacityLimiter(RESOLVING_THREADS)

    async def connect(self, address: Address) -> tcp.TcpStream:
        """Dial. Raises `Unreachable`. Cancellation: the dial is given up and its socket closed."""
        return await tcp.dial(address, self._reading)

    async def listen(self, address: Address) -> tcp.TcpListener:
        """Listen for streams; `::` means both families. Raises OSError. Cancellation: nothing is bound."""
        return await tcp.listen(address, self._reading)

    async def open_datagrams(self, address: Address) -> udp.UdpDatagrams:
        """Bind a datagram port; `::` means both families. Raises OSError. Cancellation: nothing is bound."""
        return await udp.open_datagrams(address)

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return every address of `host`, sorted. Raises `Unreachable`. Cancellation: the look-up is abandoned."""
        await trio.lowlevel.checkpoint()
        if _is_numeric(host):
            return [Address.of(host, port)]
        # One socket type, or every address would be listed once for each.
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = await trio.to_thread.run_sync(look_up, limiter=self._resolving, abandon_on_cancel=True)
        except socket.gaierror as error:
            raise Unreachable(f"the name {host!r} has no address: {tcp.reason(error)}") from error
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"the name {host!r} cannot be looked up: {error}") from error
        return sorted({from_kernel(name) for *_, name in found})

    async def source_host(self, towards: Address) -> str:
        """Return the source host of the route to `towards`. Raises `Unreachable`. Sends nothing."""
        await trio.lowlevel.checkpoint()
        family = family_of(towards)
        asked = Address(towards.host, towards.port or ROUTE_PORT)
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect(to_kernel(asked, family))
                return from_kernel(sock.getsockname()).host
        except OSError as error:
            raise Unreachable(f"there is no route to {towards.host}: {tcp.reason(error)}") from error


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True

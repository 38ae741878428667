"""TCP on trio: streams that end with FIN, listeners that survive a full descriptor table.

Laws:
- `Unreachable` is the one error of a stream at work; using a stream after closing it is `trio.ClosedResourceError`;
- a send that did not finish, whatever the reason, leaves a stream that may only be closed;
- `aclose` reads and throws away what still comes in, because Linux answers a close with unread bytes by a reset, and a
  reset destroys what the other end has not received yet (RFC 9112 section 9.6 asks for this lingering close).
"""

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.file_sending import send_by_reading, send_bytes, send_descriptor
from p2pmirror.wire.network import File
from p2pmirror.wire.one_send import OneSend
from p2pmirror.wire.socket_address import family_of, from_kernel, to_kernel

BACKLOG_CONNECTIONS = 4096  # a rollout makes every node of a big cluster dial at once; Linux's own cap (somaxconn)
LINGER_S = 1.0  # as `Stream.aclose` promises: enough for round trips across a continent
LINGER_BYTES_MAX = 8 << 20  # 8 MiB: more than Linux lets a receive buffer grow (6 MiB); who sends more does not listen
LINGER_STEP_BYTES = 64 << 10  # 64 KiB thrown away at a time
UNSENT_BYTES_MAX = 128 << 10  # 128 KiB in the kernel for whoever stands still, where its own limit is 4 MiB (tcp_wmem)
QUICK_BYTES = 512 << 10  # after 512 KiB somebody reads: his own kernel begins with room for 64 KiB (tcp_rmem)
GATHERED_BYTES = 512 << 10  # 512 KiB: some 0.5 ms to hash and write, beside which a turn of the loop costs little
ACCEPT_PAUSE_S = 0.1  # no event says that a descriptor has come free: look again ten times a second

_NO_CAPACITY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_LISTENER_GONE = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP, errno.EFAULT})


class TcpStream:
    """One connected TCP socket, as `network.Stream` describes it; `reading` limits the threads for cold file pages."""

    def __init__(
        self, sock: trio.socket.SocketType, local: Address, remote: Address, reading: trio.CapacityLimiter
    ) -> None:
        self._sock = sock
        self._local = local
        self._remote = remote
        self._reading = reading
        self._sends = OneSend()
        self._sent = 0  # bytes by `send_all`, until it is known that they are taken
        self._low_water = 1  # bytes
        self._closed = False

    @property
    def local(self) -> Address:
        """Our end."""
        return self._local

    @property
    def remote(self) -> Address:
        """The other end."""
        return self._remote

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send every byte. Raises `Unreachable`. Cancellation: a part was sent, the stream may only be closed.

        Few bytes that the socket takes at once cost no turn of the loop.
        """
        self._check_open()
        try:
            if self._sent < QUICK_BYTES:
                self._count(len(data))
            with self._sends.begin():
                await send_bytes(self._sock, data)
        except OSError as error:
            raise self._broken(error) from error

    async def send_file(self, file: File, offset: int, count: int, moved: Callable[[int], None] | None = None) -> None:
        """Send `count` bytes of `file` from `offset`, by sendfile where it has a descriptor; tell `moved` of each part.

        Raises `Unreachable` when the other end is gone, or the file ends early or cannot be read; the stream may only
        be closed then. Cancellation: as for `send_all`.
        """
        descriptor = file.fileno()
        self._check_open()
        try:
            if self._sent < QUICK_BYTES and descriptor is not None:
                self._count(QUICK_BYTES)  # pages of a file take no memory, however many are unsent
            with self._sends.begin():
                if count == 0:
                    await trio.lowlevel.checkpoint()
                elif descriptor is None:
                    await send_by_reading(self._sock, file, offset, count, moved)
                else:
                    await send_descriptor(self._sock, descriptor, offset, count, reading=self._reading, moved=moved)
        except OSError as error:
            raise self._broken(error) from error

    async def receive_some(self, count_max: int, gather_s: float = 0.0) -> bytes:
        """Return 1 to `count_max` bytes, b"" at FIN. Raises `Unreachable`. Cancellation loses no byte."""
        if count_max < 1:
            raise ValueError("nothing can be received into no room: that would look like FIN")
        self._check_open()
        while True:
            # What is waited for here is mostly not there yet, and trying it first would cost an exception each time.
            await self._wait(count_max, gather_s)
            try:
                return os.read(self._sock.fileno(), count_max)
            except BlockingIOError:
                gather_s = 0.0  # there was nothing to add to
            except OSError as error:
                raise self._broken(error) from error

    async def receive_into(self, buffer: memoryview, gather_s: float = 0.0) -> int:
        """Fill the front of `buffer`, 0 at FIN. Raises `Unreachable`. Cancellation loses no byte."""
        if not buffer:
            raise ValueError("nothing can be received into no room: that would look like FIN")
        self._check_open()
        try:
            if gather_s:
                await self._wait(len(buffer), gather_s)
            else:
                self._wake_at(1)
            return await self._sock.recv_into(buffer)
        except OSError as error:
            raise self._broken(error) from error

    async def send_eof(self) -> None:
        """Send FIN and keep receiving. Raises `Unreachable`. Cancelled before it began: nothing was sent."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self._sends.under_way:
            raise trio.BusyResourceError("another task is sending on this stream")
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._broken(error) from error

    async def aclose(self) -> None:
        """Close with FIN after what was sent; waits `LINGER_S` at most for the other end's. Cancellation: at once."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        trio.lowlevel.notify_closing(self._sock)  # a waiting receive or send ends with ClosedResourceError
        try:
            with trio.move_on_after(LINGER_S), suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
                await self._throw_away()
            await trio.lowlevel.checkpoint_if_cancelled()
        finally:
            self._sock.close()

    def abort(self) -> None:
        """Close without waiting; a receive or send that waits ends with ClosedResourceError."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    async def _throw_away(self) -> None:
        scratch = bytearray(LINGER_STEP_BYTES)
        left = LINGER_BYTES_MAX
        while left > 0:
            got = await self._sock.recv_into(scratch)
            if got == 0:
                return
            left -= got

    async def _wait(self, count_max: int, gather_s: float) -> None:
        """Wait until something can be received; `gather_s` at most for as much as is worth a turn of the loop."""
        self._wake_at(min(count_max, GATHERED_BYTES) if gather_s else 1)
        if not gather_s:
            await trio.lowlevel.wait_readable(self._sock)
            return
        with trio.move_on_after(gather_s) as scope:
            await trio.lowlevel.wait_readable(self._sock)
        if scope.cancelled_caught:
            self._wake_at(1)

    def _wake_at(self, count: int) -> None:
        """Have the kernel wake us only when so many bytes have come, or FIN (SO_RCVLOWAT)."""
        if count != self._low_water:
            self._low_water = count
            with suppress(OSError):  # broken, which the receive will say
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def _count(self, count: int) -> None:
        """Let the kernel keep little unsent until the other end has taken `QUICK_BYTES`. Raises OSError."""
        if self._sent == 0 and count < QUICK_BYTES:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)
        self._sent += count
        if self._sent >= QUICK_BYTES:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")

    def _broken(self, error: OSError) -> Exception:
        if self._closed:
            return trio.ClosedResourceError("this stream was closed meanwhile")
        return Unreachable(f"{self._remote}: the connection broke: {reason(error)}")


class TcpListener:
    """A listening socket, as `network.Listener` describes it."""

    def __init__(self, sock: trio.socket.SocketType, reading: trio.CapacityLimiter) -> None:
        self._sock = sock
        self._reading = reading
        self._address = from_kernel(sock.getsockname())

    @property
    def address(self) -> Address:
        """The bound address, with its real port."""
        return self._address

    async def accept(self) -> TcpStream:
        """Return the next connection; when descriptors have run out, try again each `ACCEPT_PAUSE_S`.

        Raises ClosedResourceError once closed. Cancellation loses no connection.
        """
        while True:
            try:
                sock, name = await self._sock.accept()
            except OSError as error:
                if error.errno in _LISTENER_GONE:
                    raise trio.ClosedResourceError("this listener is closed") from error
                if error.errno in _NO_CAPACITY:
                    await trio.sleep(ACCEPT_PAUSE_S)
                continue  # anything else befell a connection that was gone before it was accepted
            try:
                return _stream_of(sock, from_kernel(name), self._reading)
            except OSError:
                sock.close()  # gone meanwhile

    async def aclose(self) -> None:
        """Stop listening at once. Cancellation: closed all the same."""
        self._sock.close()
        await trio.lowlevel.checkpoint()


async def dial(address: Address, reading: trio.CapacityLimiter) -> TcpStream:
    """Connect. Raises `Unreachable`. Cancellation: the dial is given up and its socket closed."""
    if address.is_unspecified:
        raise Unreachable(f"{address} is an address to listen on, not to dial")
    try:
        sock = trio.socket.socket(family_of(address), socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(f"{address} cannot be dialled: {reason(error)}") from error
    try:
        await sock.connect(to_kernel(address, family_of(address)))
        stream = _stream_of(sock, address, reading)
        _refuse_oneself(stream)
    except OSError as error:
        sock.close()
        raise Unreachable(f"{address} cannot be dialled: {reason(error)}") from error
    except BaseException:
        sock.close()
        raise
    return stream


async def listen(address: Address, reading: trio.CapacityLimiter) -> TcpListener:
    """Listen; `::` means both families. Raises OSError. Cancellation: nothing is bound."""
    await trio.lowlevel.checkpoint()
    sock = bind(address, socket.SOCK_STREAM)
    try:
        sock.listen(BACKLOG_CONNECTIONS)
        return TcpListener(trio.socket.from_stdlib_socket(sock), reading)
    except BaseException:
        sock.close()
        raise


def bind(address: Address, kind: socket.SocketKind) -> socket.socket:
    """Return a socket bound to `address`: `::` takes both families, or IPv4 alone where the kernel has no IPv6."""
    try:
        return _bind(address, kind)
    except OSError as error:
        if address.host != "::" or error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            raise
        return _bind(Address("0.0.0.0", address.port), kind)


def _bind(address: Address, kind: socket.SocketKind) -> socket.socket:
    family = family_of(address)
    sock = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:  # on UDP the option would let two agents share a port and steal from each other
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address.host == "::" else 1)
        sock.bind(to_kernel(address, family))
        sock.settimeout(0)
    except BaseException:
        sock.close()
        raise
    return sock


def reason(error: OSError) -> str:
    """Say in a few words what the kernel said."""
    if error.errno is not None and error.errno > 0:  # trio puts words of its own around it; a resolver's are negative
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


def _refuse_oneself(stream: TcpStream) -> None:
    """Linux joins a dial to itself when nobody listens and the port dialled was drawn as its own: that is a refusal."""
    if stream.local == stream.remote:
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def _stream_of(sock: trio.socket.SocketType, remote: Address, reading: trio.CapacityLimiter) -> TcpStream:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # heads and small answers are written whole, once
    return TcpStream(sock, from_kernel(sock.getsockname()), remote, reading)

"""Connections and listeners between simulated hosts.

Laws: a full pipe holds its sender back; bytes for an end that is closed are answered with a reset; what was sent before
FIN or a reset and has arrived is read first.
"""

from collections import deque
from collections.abc import Callable

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.memory_link import Wakeup
from p2pmirror.wire.memory_pipe import NEVER, PIPE_BYTES, Pipe
from p2pmirror.wire.network import File
from p2pmirror.wire.one_send import OneSend


class MemoryStream:
    """One end of a connection between simulated hosts, as `network.Stream` describes it."""

    def __init__(self, local: Address, remote: Address, incoming: Pipe, outgoing: Pipe, wakeup: Wakeup) -> None:
        self._local = local
        self._remote = remote
        self._incoming = incoming
        self._outgoing = outgoing
        self._wakeup = wakeup
        self._sends = OneSend()
        self._receiving = False
        self.closed = False

    @property
    def local(self) -> Address:
        """Our end."""
        return self._local

    @property
    def remote(self) -> Address:
        """The other end."""
        return self._remote

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send every byte. Raises `Unreachable`. Cancellation: a part was sent, the stream may only be closed."""
        self._check_open()
        with self._sends.begin():
            await self._push_all(bytes(data))

    async def send_file(self, file: File, offset: int, count: int, moved: Callable[[int], None] | None = None) -> None:
        """Send a part of a file, read by `read_at`. Raises `Unreachable`. Cancellation: as for `send_all`."""
        self._check_open()
        end = offset + count
        with self._sends.begin():
            await self._push_all(b"")
            while offset < end:
                step = min(PIPE_BYTES, end - offset)
                data = await file.read_at(offset, step)
                await self._push_all(data)
                offset += len(data)
                if moved is not None:
                    moved(len(data))
                if len(data) < step:
                    raise Unreachable(f"the file ended at byte {offset}, {end - offset} bytes before its announced end")

    async def receive_some(self, count_max: int) -> bytes:
        """Return 1 to `count_max` bytes, b"" at FIN. Raises `Unreachable`. Cancellation loses no byte."""
        if count_max < 1:
            raise ValueError("nothing can be received into no room: that would look like FIN")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._receiving = True
        try:
            return await self._receive(count_max)
        finally:
            self._receiving = False

    async def receive_into(self, buffer: memoryview) -> int:
        """Fill the front of `buffer`, 0 at FIN. Raises `Unreachable`. Cancellation loses no byte."""
        data = await self.receive_some(buffer.nbytes)
        buffer.cast("B")[: len(data)] = data
        return len(data)

    async def send_eof(self) -> None:
        """Send FIN and keep receiving. Raises `Unreachable`. Cancelled before it began: nothing was sent."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self._sends.under_way:
            raise trio.BusyResourceError("another task is sending on this stream")
        self.settle(trio.current_time())
        if self._incoming.broken:
            raise self._broken()
        if not self._outgoing.finished:
            self._outgoing.push(b"", trio.current_time())
        self._wakeup.wake()

    async def aclose(self) -> None:
        """Close with FIN after what was sent. Cancellation: closed all the same."""
        self.close_now()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Close without waiting."""
        self.close_now()

    def close_now(self, *, reset: bool = False) -> None:
        """Close without waiting, with FIN, or with a reset as a kernel does for a killed process; once."""
        if self.closed:
            return
        now = trio.current_time()
        self.settle(now)
        self.closed = True
        if reset:
            self._outgoing.reset(now)
        elif not self._outgoing.finished:
            self._outgoing.push(b"", now)
        self._incoming.close_reader()
        self._wakeup.wake()

    def settle(self, now: float) -> None:
        """Deliver what has arrived by `now` at both ends."""
        for _ in range(2):  # what arrives at a closed end answers with a reset, which may arrive at once
            for there, back in ((self._outgoing, self._incoming), (self._incoming, self._outgoing)):
                refused_at = there.settle(now)
                if refused_at is not None:
                    back.reset(refused_at)
                    self._wakeup.wake()

    def wake(self) -> None:
        """Let waiting tasks look at the world again."""
        self._wakeup.wake()

    @property
    def has_unread(self) -> bool:
        """Whether bytes have arrived that nobody has read."""
        return bool(self._incoming.arrived)

    async def _receive(self, count_max: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            self._check_open()
            self.settle(trio.current_time())
            if self._incoming.arrived:
                data = self._incoming.take(count_max)
                self._wakeup.wake()
                return data
            if self._incoming.ended:
                return b""
            if self._incoming.broken:
                raise self._broken()
            await self._wait()

    async def _push_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        sent = 0
        while True:
            self._check_open()
            self.settle(trio.current_time())
            if self._incoming.broken or self._outgoing.finished:
                raise self._broken()
            if sent == len(data):
                return
            if self._outgoing.room <= 0:
                await self._wait()
                continue
            part = data[sent : sent + self._outgoing.room]
            self._outgoing.push(part, trio.current_time())
            sent += len(part)
            self._wakeup.wake()

    async def _wait(self) -> None:
        await self._wakeup.wait(min(self._incoming.due(), self._outgoing.due()))

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this stream is closed")

    def _broken(self) -> Unreachable:
        return Unreachable(f"{self._remote}: the connection broke")


class MemoryListener:
    """A listening port of a simulated host, as `network.Listener` describes it."""

    def __init__(self, address: Address, release: Callable[["MemoryListener"], None]) -> None:
        self._address = address
        self._release = release
        self._waiting: deque[tuple[float, MemoryStream]] = deque()
        self._wakeup = Wakeup()
        self._closed = False

    @property
    def address(self) -> Address:
        """The bound address, with its real port."""
        return self._address

    def enqueue(self, stream: MemoryStream, ready_at: float) -> None:
        """Let a connection be accepted from a time on."""
        self._waiting.append((ready_at, stream))
        self._wakeup.wake()

    async def accept(self) -> MemoryStream:
        """Return the next connection. Raises ClosedResourceError once closed. Cancellation loses no connection."""
        await trio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise trio.ClosedResourceError("this listener is closed")
            if self._waiting and self._waiting[0][0] <= trio.current_time():
                return self._waiting.popleft()[1]
            await self._wakeup.wait(self._waiting[0][0] if self._waiting else NEVER)

    async def aclose(self) -> None:
        """Stop listening at once, and reset what was not accepted. Cancellation: closed all the same."""
        self.close_now()
        await trio.lowlevel.checkpoint()

    def close_now(self) -> None:
        """Stop listening without waiting; once."""
        if self._closed:
            return
        self._closed = True
        self._release(self)
        for _, stream in self._waiting:
            stream.close_now(reset=True)
        self._waiting.clear()
        self._wakeup.wake()

"""Connections between simulated hosts.

Laws: a full pipe holds its sender back; bytes for an end that is closed are answered with a reset; what was sent before
FIN or a reset and has arrived is read first. The tasks of a process that was killed wait for ever in whatever it had
open: a dead process sees nothing.
"""

from collections.abc import Callable

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.address import Address
from p2pmirror.wire.memory_pipe import PIPE_BYTES, Pipe
from p2pmirror.wire.memory_timing import Timing, Wakeup
from p2pmirror.wire.network import File
from p2pmirror.wire.one_send import OneSend


class MemoryStream:
    """One end of a connection between simulated hosts, as `network.Stream` describes it."""

    __slots__ = (
        "_forget",
        "_incoming",
        "_outgoing",
        "_receiving",
        "_sends",
        "_timing",
        "_wakeup",
        "closed",
        "killed",
    )

    def __init__(self, incoming: Pipe, outgoing: Pipe, timing: Timing, forget: Callable[[], None]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._timing = timing
        self._wakeup = incoming.reader = outgoing.writer = Wakeup(timing)
        self._forget = forget
        self._sends = OneSend()
        self._receiving = False
        self.closed = False
        self.killed = False  # closed because its process died

    @property
    def local(self) -> Address:
        """Our end."""
        return self._outgoing.source

    @property
    def remote(self) -> Address:
        """The other end."""
        return self._outgoing.target

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send every byte. Raises `Unreachable`. Cancellation: a part was sent, the stream may only be closed."""
        await self._begin()
        with self._sends.begin():
            await self._push_all(bytes(data))

    async def send_file(self, file: File, offset: int, count: int, moved: Callable[[int], None] | None = None) -> None:
        """Send a part of a file, read by `read_at`. Raises `Unreachable`. Cancellation: as for `send_all`."""
        await self._begin()
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

    async def receive_some(self, count_max: int, gather_s: float = 0.0) -> bytes:  # noqa: ARG002  # it has what it has
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

    async def receive_into(self, buffer: memoryview, gather_s: float = 0.0) -> int:
        """Fill the front of `buffer`, 0 at FIN. Raises `Unreachable`. Cancellation loses no byte."""
        data = await self.receive_some(buffer.nbytes, gather_s)
        buffer.cast("B")[: len(data)] = data
        return len(data)

    async def send_eof(self) -> None:
        """Send FIN and keep receiving. Raises `Unreachable`. Cancelled before it began: nothing was sent."""
        await trio.lowlevel.checkpoint()
        await self._begin()
        if self._sends.under_way:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._timing.catch_up()
        if self._incoming.broken:
            raise self._broken()
        if not self._outgoing.finished:
            self._outgoing.push(b"")

    async def aclose(self) -> None:
        """Close with FIN after what was sent. Cancellation: closed all the same."""
        self.close_now()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Close without waiting."""
        self.close_now()

    def close_now(self, *, reset: bool = False) -> None:
        """Close without waiting, with FIN or with a reset; once."""
        if self.closed:
            return
        self.closed = True
        if reset:
            self._outgoing.reset(trio.current_time())
        elif not self._outgoing.finished:
            self._outgoing.push(b"")
        self._incoming.close_reader()
        self._wakeup.wake()
        self._forget()

    def kill(self, *, reset: bool = False) -> None:
        """Close as a kernel does for a process that died: with a reset when it had not read everything; once."""
        self.killed = not self.closed
        self.close_now(reset=reset or bool(self._incoming.arrived))

    async def _receive(self, count_max: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            self._timing.catch_up()
            await self._begin()
            if self._incoming.arrived:
                return self._incoming.take(count_max)
            if self._incoming.ended:
                return b""
            if self._incoming.broken:
                raise self._broken()
            await self._wakeup.wait()

    async def _push_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        sent = 0
        while True:
            self._timing.catch_up()
            await self._begin()
            if self._incoming.broken or self._outgoing.finished:
                raise self._broken()
            if sent == len(data):
                return
            if self._outgoing.room <= 0:
                await self._wakeup.wait()
                continue
            part = data[sent : sent + self._outgoing.room]
            self._outgoing.push(part)
            sent += len(part)

    async def _begin(self) -> None:
        if self.killed:
            await trio.sleep_forever()
        if self.closed:
            raise trio.ClosedResourceError("this stream is closed")

    def _broken(self) -> Unreachable:
        return Unreachable(f"{self.remote}: the connection broke")

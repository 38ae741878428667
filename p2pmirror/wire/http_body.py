"""Sending the body of a response: exact in its length, and never waiting for ever on a client that takes nothing.

Laws:
- never a byte more than was announced; whoever writes short, or fails, leaves a body that is not finished;
- a client that takes no byte of a file within `stall_s` is cut; of bytes in memory, one that takes less than one slice:
  slices follow the client's pace, so that a slice normally takes a small part of that time and a slow client is told
  from one that stands still;
- after a failed or cancelled send nothing more is sent.
"""

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.http import FileBody, PumpBody
from p2pmirror.wire.network import File, Stream

SLICE_BYTES_FIRST = 64 << 10  # what a client's socket buffer takes at once, however slow its link
SLICE_BYTES_MIN = 16 << 10  # at 30 s: 0.5 KiB/s are still somebody who reads
SLICE_BYTES_MAX = 1 << 20  # at 10 GB/s 0.1 ms: the cost of a deadline per slice is lost in it
SLOW_PART = 16  # a slice that took more than 1/16 of the stall limit was too large
SLACK_PART = 32  # of the stall limit a client is cut late at most: moving a deadline for every step has a price


class BodySink:
    """The `Sink` of one response: `count` bytes may go through it."""

    __slots__ = ("_broken", "_count", "_slice_bytes", "_stall_s", "_stream", "sent")

    def __init__(self, stream: Stream, count: int, stall_s: float) -> None:
        self._stream = stream
        self._count = count
        self._stall_s = stall_s
        self._slice_bytes = SLICE_BYTES_FIRST
        self._broken = False
        self.sent = 0

    @property
    def is_complete(self) -> bool:
        """Whether the whole body has gone out and nothing went wrong."""
        return self.sent == self._count and not self._broken

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes. Raises `Unreachable` (client gone, too slow), ValueError (more than announced).

        Cancelled or failed, the body can not be finished any more.
        """
        self._claim(len(data))
        if len(data) <= self._slice_bytes:
            await self._send_slice(data)
            return
        view = memoryview(data)
        offset = 0
        while offset < len(view):
            count = min(self._slice_bytes, len(view) - offset)
            await self._send_slice(view[offset : offset + count])
            offset += count

    async def send_file(self, file: File, offset: int, count: int) -> None:
        """Send a part of a file. Raises and cancels as `send_all` does; a file that ends early is `Unreachable`."""
        self._claim(count)
        self._broken = True  # until all of it has gone out
        slack_s = self._stall_s / SLACK_PART
        with trio.CancelScope(deadline=trio.current_time() + self._stall_s + slack_s) as scope:

            def moved(part: int) -> None:
                self.sent += part
                now = trio.current_time()
                if now + self._stall_s > scope.deadline:
                    scope.deadline = now + self._stall_s + slack_s

            await self._stream.send_file(file, offset, count, moved)
            self._broken = False
        if self._broken:
            raise Unreachable(f"the client took nothing for {self._stall_s:g} s")

    def _claim(self, count: int) -> None:
        if self._broken:
            raise Unreachable("an earlier part of this response could not be sent")
        if self.sent + count > self._count:
            self._broken = True
            raise ValueError(f"{self.sent + count} bytes for a body of {self._count}")

    async def _send_slice(self, data: bytes | bytearray | memoryview) -> None:
        count = len(data)
        start = trio.current_time()
        self._broken = True  # until this slice has gone out
        with trio.CancelScope(deadline=start + self._stall_s):
            await self._stream.send_all(data)
            self._broken = False
        if self._broken:
            raise Unreachable(f"the client took less than {count} bytes in {self._stall_s:g} s")
        self.sent += count
        if trio.current_time() - start > self._stall_s / SLOW_PART:
            self._slice_bytes = max(self._slice_bytes // 4, SLICE_BYTES_MIN)
        elif self._slice_bytes < SLICE_BYTES_MAX:
            self._slice_bytes *= 2


async def send_body(body: bytes | FileBody | PumpBody, sink: BodySink) -> None:
    """Send a body that comes after its head. Raises what the pump raises, and `Unreachable`."""
    if isinstance(body, bytes):
        await sink.send_all(body)
    elif isinstance(body, FileBody):
        await sink.send_file(body.file, body.offset, body.count)
    else:
        await body.pump(sink)


def close_body(body: bytes | FileBody | PumpBody) -> None:
    """Let go of what a body holds."""
    if isinstance(body, FileBody):
        body.file.close()
    elif isinstance(body, PumpBody):
        body.close()

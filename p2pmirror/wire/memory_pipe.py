"""One direction of a simulated connection: bytes on their way, bytes that have arrived, FIN and reset.

Laws: bytes arrive in order, a latency after they were sent; FIN comes after the bytes, a reset overtakes those still on
their way; on a path that is down everything waits, as TCP would send it again. Bytes that meet a closed reader are
answered with a reset.
"""

from collections import deque

import trio

from p2pmirror.wire.address import Address
from p2pmirror.wire.memory_link import Observe
from p2pmirror.wire.memory_timing import NEVER, Timing, Wakeup
from p2pmirror.wire.memory_topology import Way

PIPE_BYTES = 256 << 10  # 256 KiB on the way and unread in one direction: small, so that tests meet back-pressure


class Pipe:
    """One direction of a connection: what is on its way and what has arrived. Times are trio's, in seconds."""

    __slots__ = (
        "_bytes",
        "_flying",
        "_observe",
        "_reset_at",
        "_ticks_at",
        "_timing",
        "arrived",
        "back",
        "broken",
        "ended",
        "finished",
        "reader",
        "reader_closed",
        "source",
        "target",
        "way",
        "writer",
    )

    back: "Pipe"  # the other direction
    reader: Wakeup
    writer: Wakeup

    def __init__(self, way: Way, source: Address, target: Address, timing: Timing, observe: Observe | None) -> None:
        self.way = way
        self.source = source
        self.target = target
        self.arrived: deque[bytes] = deque()
        self.ended = False  # the reader may know of FIN
        self.broken = False  # the reader may know of a reset
        self.finished = False  # the writer has sent FIN
        self.reader_closed = False
        self._timing = timing
        self._observe = observe
        self._flying: deque[tuple[float, bytes]] = deque()  # b"" is FIN
        self._bytes = 0
        self._reset_at = NEVER
        self._ticks_at = NEVER  # when the next call of `_tick` comes

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return PIPE_BYTES - self._bytes

    def push(self, data: bytes) -> None:
        """Send `data`, b"" for FIN."""
        now = trio.current_time()
        self.finished = self.finished or not data
        self._bytes += len(data)
        latest = self._flying[-1][0] if self._flying else now
        self._flying.append((max(latest, now + self.way.link.latency_s), data))
        self.advance()

    def take(self, count_max: int) -> bytes:
        """Return what has arrived, at most `count_max` bytes."""
        data = self.arrived.popleft()
        if len(data) > count_max:
            self.arrived.appendleft(data[count_max:])
            data = data[:count_max]
        self._bytes -= len(data)
        self.writer.wake()
        return data

    def reset(self, at: float) -> None:
        """Let the reader know of a reset that was sent at a time."""
        self._reset_at = min(self._reset_at, at + self.way.link.latency_s)
        self.advance()

    def close_reader(self) -> None:
        """Throw away what was not read and what is still to come."""
        self.reader_closed = True
        self._bytes -= sum(map(len, self.arrived))
        self.arrived.clear()
        self.writer.wake()

    def advance(self) -> None:
        """Deliver what has arrived by now, and come back for the rest; called again when the path comes up."""
        if not self.way.is_up:
            return
        now = trio.current_time()
        while self._flying and self._flying[0][0] <= now:
            self._deliver(*self._flying.popleft())
        if self._reset_at <= now and not self.broken:
            self._break()
        due = min(self._flying[0][0] if self._flying else NEVER, NEVER if self.broken else self._reset_at)
        if due < self._ticks_at:
            self._ticks_at = due
            self._timing.at(due, self._tick)

    def _tick(self) -> None:
        self._ticks_at = NEVER
        self.advance()

    def _deliver(self, at: float, data: bytes) -> None:
        if self._observe is not None:
            self._observe("stream" if data else "fin", trio.current_time(), self.source, self.target, data)
        if self.reader_closed:
            self._bytes -= len(data)
            if data:
                self.back.reset(at)
        elif data:
            self.arrived.append(data)
        else:
            self.ended = True
        self.reader.wake()

    def _break(self) -> None:
        if self._observe is not None:
            self._observe("reset", trio.current_time(), self.source, self.target, b"")
        self.broken = True
        self._bytes -= sum(len(data) for _, data in self._flying)
        self._flying.clear()
        self.reader.wake()

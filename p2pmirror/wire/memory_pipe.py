"""One direction of a simulated connection: bytes on their way, bytes that have arrived, FIN and reset.

Laws: bytes arrive in order, a latency after they were sent; FIN comes after the bytes, a reset overtakes those still on
their way, and nothing comes after it; on a path that is down everything waits, as TCP would send it again. Bytes that
meet a closed reader are answered with a reset. Where a host has a rate, bytes leave as `memory_traffic` says.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from p2pmirror.wire.address import Address
from p2pmirror.wire.memory_timing import NEVER, Wakeup
from p2pmirror.wire.memory_topology import Way
from p2pmirror.wire.memory_traffic import Flow

if TYPE_CHECKING:
    from p2pmirror.wire.memory import MemoryWorld

PIPE_BYTES: Final = 256 << 10  # unsent, on the way and unread in one direction: small, so that tests meet back-pressure


class Pipe:
    """One direction of a connection: what is on its way and what has arrived. Times are trio's, in seconds."""

    __slots__ = (
        "_bytes",
        "_flow",
        "_flying",
        "_reset_at",
        "_ticks_at",
        "_world",
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

    back: Pipe  # the other direction
    reader: Wakeup
    writer: Wakeup

    def __init__(self, world: MemoryWorld, way: Way, source: Address, target: Address) -> None:
        self.way = way
        self.source = source
        self.target = target
        self.arrived: deque[bytes] = deque()
        self.ended = False  # the reader may know of FIN
        self.broken = False  # the reader may know of a reset
        self.finished = False  # the writer has sent FIN
        self.reader_closed = False
        self._world = world
        self._flow: Flow | None = None  # what has not left, where a host has a rate; made when it is first needed
        self._flying: deque[tuple[float, bytes, int]] = deque()  # b"" is FIN; how much of it is counted in `_bytes`
        self._bytes = 0
        self._reset_at = NEVER
        self._ticks_at = NEVER  # when the next call of `_tick` comes

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return self._world.pipe_bytes - self._bytes

    def push(self, data: bytes) -> None:
        """Send `data`, b"" for FIN."""
        self.finished = self.finished or not data
        if self.broken:
            return
        self._bytes += len(data)
        if self._flow is None and self._world.traffic.limits(self.way):
            self._flow = Flow(self, self._world.traffic, self._world.timing)
        if self._flow is None or (self._flow.is_empty and not self._world.traffic.limits(self.way)):
            self._fly(data, trio.current_time(), counted=len(data))
        else:
            self._flow.add(data)

    def launch(self, data: bytes, at: float) -> None:
        """Let `data` leave the host at a time; from then on it leaves room for more, as TCP's window grows to fit."""
        self._bytes -= len(data)
        self.writer.wake()
        self._fly(data, at, counted=0)

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
        """Let the reader know of a reset that was sent at a time; what had not left by then never leaves."""
        self._hold_back()
        self._reset_at = min(self._reset_at, at + self.way.link.latency_s)
        self._settle()

    def sever(self) -> None:
        """Let the reader know of a reset now, whatever the path is like."""
        if not self.broken:
            self._break()

    def close_reader(self) -> None:
        """Throw away what was not read and what is still to come."""
        self.reader_closed = True
        self._bytes -= sum(map(len, self.arrived))
        self.arrived.clear()
        self.writer.wake()

    def drop(self) -> None:
        """Throw everything away: nobody is left at either end."""
        self._flying.clear()
        self._hold_back()

    def advance(self) -> None:
        """Deliver what has arrived by now, and come back for the rest; called again when the path comes up or goes."""
        if self._flow is not None:
            self._flow.review()
        self._settle()

    def _fly(self, data: bytes, at: float, *, counted: int) -> None:
        arrives_at = at + self.way.link.stream_delay_s(self._world.random)
        if self._flying:
            arrives_at = max(arrives_at, self._flying[-1][0])
        self._flying.append((arrives_at, data, counted))
        self._settle()

    def _settle(self) -> None:
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
            self._world.timing.at(due, self._tick)

    def _tick(self) -> None:
        self._ticks_at = NEVER
        self._settle()

    def _deliver(self, at: float, data: bytes, counted: int) -> None:
        self._tell("stream" if data else "fin", data)
        self._bytes += len(data) - counted
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
        self._tell("reset", b"")
        self.broken = True
        self._flying.clear()
        self._hold_back()
        self.back._hold_back()  # noqa: SLF001 - a kernel that hears of a reset has nothing more to say either
        self._bytes = sum(map(len, self.arrived))
        self.reader.wake()

    def _hold_back(self) -> None:
        """Throw away what has not left."""
        if self._flow is not None:
            self._flow.clear()

    def _tell(self, kind: str, data: bytes) -> None:
        if self._world.observe is not None:
            self._world.observe(kind, trio.current_time(), self.source, self.target, data)

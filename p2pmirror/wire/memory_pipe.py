"""One direction of a simulated connection: bytes on their way, bytes that have arrived, FIN and reset.

Laws: bytes arrive in order, a latency after they were sent; FIN comes after the bytes, a reset overtakes those still on
their way; on a path that is down everything waits, as TCP would send it again.
"""

from collections import deque

from p2pmirror.wire.memory_link import Path

PIPE_BYTES = 256 << 10  # 256 KiB on the way and unread in one direction: small, so that tests meet back-pressure
NEVER = float("inf")


class Pipe:
    """One direction of a connection: what is on its way and what has arrived. Times are trio's, in seconds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.arrived: deque[bytes] = deque()
        self.ended = False  # the reader may know of FIN
        self.broken = False  # the reader may know of a reset
        self.finished = False  # the writer has sent FIN
        self.reader_closed = False
        self._flying: deque[tuple[float, bytes]] = deque()  # b"" is FIN
        self._bytes = 0
        self._reset_at = NEVER

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return PIPE_BYTES - self._bytes

    def push(self, data: bytes, now: float) -> None:
        """Send `data`, b"" for FIN."""
        self.finished = self.finished or not data
        latest = self._flying[-1][0] if self._flying else now
        self._flying.append((max(latest, now + self.path.link().latency_s), data))
        self._bytes += len(data)

    def take(self, count_max: int) -> bytes:
        """Return what has arrived, at most `count_max` bytes."""
        data = self.arrived.popleft()
        if len(data) > count_max:
            self.arrived.appendleft(data[count_max:])
            data = data[:count_max]
        self._bytes -= len(data)
        return data

    def reset(self, at: float) -> None:
        """Let the reader know of a reset that was sent at a time."""
        self._reset_at = min(self._reset_at, at + self.path.link().latency_s)

    def close_reader(self) -> None:
        """Throw away what was not read and what is still to come."""
        self.reader_closed = True
        self._bytes -= sum(map(len, self.arrived))
        self.arrived.clear()

    def due(self) -> float:
        """When something arrives next."""
        if not self.path.is_up():
            return NEVER
        first = self._flying[0][0] if self._flying else NEVER
        return first if self.broken else min(first, self._reset_at)

    def settle(self, now: float) -> float | None:
        """Deliver what has arrived by `now`; return when bytes met a closed reader, or None."""
        refused_at = None
        while self.path.is_up() and self._flying and self._flying[0][0] <= now:
            at, data = self._flying.popleft()
            if self.reader_closed:
                self._bytes -= len(data)
                if data and refused_at is None:
                    refused_at = at
            elif data:
                self.arrived.append(data)
            else:
                self.ended = True
        if self.path.is_up() and self._reset_at <= now:
            self.broken = True
            self._bytes -= sum(len(data) for _, data in self._flying)
            self._flying.clear()
        return refused_at

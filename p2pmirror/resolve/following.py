"""A reader of a flight: the first bytes as soon as they may be given out, later ones many at a time.

Laws: a reader never gets past what the flight says; what was written is read on whatever becomes of the flight; whoever
got little waits for more, a little longer each time, since each time costs turns of the loop and system calls.
"""

from typing import Final

import trio

from p2pmirror.resolve.flight import Flight
from p2pmirror.wire.http import Sink
from p2pmirror.wire.network import File

MUCH_BYTES: Final = 512 << 10  # some 0.2 ms to send, beside which a turn of the loop costs little
PAUSE_S_MIN: Final = 0.001
PAUSE_S_MAX: Final = 0.02  # in which 100 Mbit/s bring 250 KiB


class Following:
    """One reader of a flight: bytes `start` to `end` of the blob. Made once the flight is open; `close` it once."""

    def __init__(self, flight: Flight, file: File, start: int, end: int) -> None:
        """Own `file`."""
        self.position = start
        self._flight = flight
        self._file = file
        self._end = end
        self._pause_s = 0.0
        self._closed = False
        flight.readers += 1

    @property
    def file(self) -> File:
        """What has been written, for whoever goes on without the flight."""
        return self._file

    async def pump(self, sink: Sink) -> None:
        """Send the bytes as they come. Raises what ended the flight when it ends too early, at `position`."""
        flight = self._flight
        while self.position < self._end:
            count = min(flight.readable_to(self.position), self._end) - self.position
            if count > 0:
                await sink.send_file(self._file, self.position, count)
                self.position += count
                await self._gather(count)
            elif flight.failed is not None:
                raise flight.failed
            else:
                await flight.wait()

    async def _gather(self, count: int) -> None:
        """Let more come after `count` bytes, unless that was much, or all is here."""
        self._pause_s = 0.0 if count >= MUCH_BYTES else min(PAUSE_S_MAX, 2 * self._pause_s or PAUSE_S_MIN)
        if self._pause_s and self.position < self._end:
            with trio.move_on_after(self._pause_s):
                await self._flight.ended.wait()

    def close(self) -> None:
        """Leave the flight; twice does no harm."""
        if not self._closed:
            self._closed = True
            self._file.close()
            self._flight.readers -= 1
            self._flight.alone_since = trio.current_time()

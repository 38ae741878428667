"""A reader of a flight: each byte as soon as it may be given out.

Laws: a reader never gets past what the flight says; what was written is read on whatever becomes of the flight.
"""

import trio

from p2pmirror.resolve.flight import Flight
from p2pmirror.wire.http import Sink
from p2pmirror.wire.network import File


class Following:
    """One reader of a flight: bytes `start` to `end` of the blob. Made once the flight is open; `close` it once."""

    def __init__(self, flight: Flight, file: File, start: int, end: int) -> None:
        """Own `file`."""
        self.position = start
        self._flight = flight
        self._file = file
        self._end = end
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
            elif flight.failed is not None:
                raise flight.failed
            else:
                await flight.wait()

    def close(self) -> None:
        """Leave the flight; twice does no harm."""
        if not self._closed:
            self._closed = True
            self._file.close()
            self._flight.readers -= 1
            self._flight.alone_since = trio.current_time()

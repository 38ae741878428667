"""Blobs from peers and registries together, at the rate that this node may take (setting `download_rate_max`).

Laws:
- what has come is counted, and its receiver waits before it takes more: nothing that came is ever thrown away for it;
- that wait is nobody's fault: no source is judged by it, and no piece counts as late for it;
- manifests and other small content come at once, since a pull waits for them.
"""

from typing import Final

import trio

from p2pmirror.upstream.protocol import Download
from p2pmirror.wire.pacing import Pace

PIECE_TAKES_S: Final = 2.0  # at most, while this node has them under way: at a low rate a few in turn


class Meter:
    """One receiver's share of the rate; for one task at a time."""

    __slots__ = ("_may_at", "_pace")

    def __init__(self, pace: Pace | None) -> None:
        """Share `pace` with all others that have it; None: take what comes."""
        self._pace = pace
        self._may_at = 0.0

    async def ready(self) -> float:
        """Wait until more may be taken; return for how many seconds. Cancellation changes nothing."""
        if self._pace is None:
            return 0.0
        now = trio.current_time()
        await trio.sleep_until(self._may_at)
        return trio.current_time() - now

    def room(self, buffer: memoryview) -> memoryview:
        """Return the part of a buffer that is to be filled at once."""
        return buffer if self._pace is None else buffer[: self._pace.step_bytes]

    def took(self, count: int) -> None:
        """Take note that so many bytes have come."""
        if self._pace is not None:
            self._may_at = self._pace.grant(count, trio.current_time())


class Intake:
    """The rate of one node, which all its receivers share."""

    def __init__(self, rate: int = 0) -> None:
        """Take `rate` bytes a second; 0: as much as comes."""
        self._rate = rate
        self._pace = Pace(rate) if rate else None

    def meter(self) -> Meter:
        """Return what a receiver counts with."""
        return Meter(self._pace)

    def pieces_at_once(self, piece_bytes: int, most: int) -> int:
        """Return how many pieces may be under way, so that none of them takes too long; one at least."""
        return max(1, min(most, int(self._rate * PIECE_TAKES_S / piece_bytes))) if self._rate else most


class MeteredDownload:
    """A download at this node's rate; see `upstream.protocol.Download`."""

    def __init__(self, download: Download, meter: Meter) -> None:
        """Take from `download`."""
        self._download = download
        self._meter = meter

    @property
    def size(self) -> int:
        """Length of the whole blob."""
        return self._download.size

    async def receive(self) -> bytes:
        """Return the next bytes, b"" after the last."""
        await self._meter.ready()
        data = await self._download.receive()
        self._meter.took(len(data))
        return data

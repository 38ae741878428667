"""Answers to peers: as many pieces at once, and as quickly, as this node may send; containerd waits for neither.

Laws: only pieces take slots, whose askers come back for them a moment later; whoever wants all that follows a byte may
have nobody else to ask, and is served: a large blob goes to one peer at a time anyhow (`resolve.giving`).

Settings `upload_slots`, `upload_slots_per_peer` and `upload_rate_max`.
"""

from collections.abc import Callable
from typing import Final

import trio

from p2pmirror.front.errors import Occupied
from p2pmirror.front.metrics import FrontMetrics
from p2pmirror.front.slots import Slots
from p2pmirror.oci import Digest
from p2pmirror.wire.http import FileBody, PumpBody, Response, Sink
from p2pmirror.wire.http_body import close_body
from p2pmirror.wire.identity import NodeId
from p2pmirror.wire.network import File
from p2pmirror.wire.pacing import Pace

SMALL_BYTES: Final = 64 * 1024  # manifests and configs: what a pull waits for goes out at once


class Uploads:
    """What goes out to peers."""

    def __init__(self, slots: Slots, pace: Pace | None, metrics: FrontMetrics, clock: Callable[[], float]) -> None:
        """Give `slots` out; send at `pace` (None: as fast as it goes)."""
        self._slots = slots
        self._pace = pace
        self._metrics = metrics
        self._clock = clock
        metrics.upload_slots.child("taken").set_function(lambda: slots.taken)
        metrics.upload_slots.child("all").set_function(lambda: slots.count)

    def check(self, peer: NodeId) -> None:
        """Raise `Occupied` for a peer who would get no slot, before anything is looked up for him."""
        if not self._slots.has_room(peer):
            raise self._occupied(peer, None)

    def begin(self, response: Response, peer: NodeId, digest: Digest | None, *, is_piece: bool) -> None:
        """Have an answer go out, a piece in a slot. Raises `Occupied`, and has let go of the answer then."""
        body = response.body
        if isinstance(body, bytes) or body.count <= SMALL_BYTES:
            return
        if is_piece:
            self._take_slot(response, peer, digest)
        if self._pace is not None:
            response.body = paced(body, self._pace)

    def _take_slot(self, response: Response, peer: NodeId, digest: Digest | None) -> None:
        if not self._slots.take(peer):
            close_body(response.body)
            raise self._occupied(peer, digest)
        began, done = self._clock(), response.done

        def end(sent: int, finished: bool) -> None:  # noqa: FBT001  # Response.done's shape
            if done is not None:
                done(sent, finished)
            self._slots.give_back(peer, digest, sent=sent, seconds=self._clock() - began, whole=finished)

        response.done = end

    def _occupied(self, peer: NodeId, digest: Digest | None) -> Occupied:
        self._metrics.uploads_refused.inc()
        return Occupied("as many pieces go out to peers as may", self._slots.takers(digest, peer))


def paced(body: FileBody | PumpBody, pace: Pace) -> PumpBody:
    """Return a body that goes out at `pace`, shared with all others that have it."""
    if isinstance(body, PumpBody):
        pump = body.pump
        return PumpBody(body.count, lambda sink: pump(_PacedSink(sink, pace)), body.close)
    file, offset, count = body.file, body.offset, body.count
    return PumpBody(count, lambda sink: _PacedSink(sink, pace).send_file(file, offset, count), file.close)


class _PacedSink:
    """A sink that lets so much through as may go out; see `wire.http.Sink`."""

    def __init__(self, sink: Sink, pace: Pace) -> None:
        self._sink = sink
        self._pace = pace

    @property
    def sent(self) -> int:
        return self._sink.sent

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with memoryview(data) as view:
            for begin in range(0, len(view), self._pace.step_bytes):
                part = view[begin : begin + self._pace.step_bytes]
                await self._turn(len(part))
                await self._sink.send_all(part)

    async def send_file(self, file: File, offset: int, count: int) -> None:
        end = offset + count
        for begin in range(offset, end, self._pace.step_bytes):
            step = min(self._pace.step_bytes, end - begin)
            await self._turn(step)
            await self._sink.send_file(file, begin, step)

    async def _turn(self, count: int) -> None:
        await trio.sleep_until(self._pace.grant(count, trio.current_time()))

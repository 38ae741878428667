"""Answers to peers at the rate that this node may send (setting `upload_rate_max`); containerd never waits for it."""

from typing import Final

import trio

from p2pmirror.wire.http import Body, FileBody, PumpBody, Sink
from p2pmirror.wire.pacing import Pace

SMALL_BYTES: Final = 64 * 1024  # manifests and configs: what a pull waits for goes out at once


def paced(body: Body, pace: Pace) -> Body:
    """Return a body that goes out at `pace`, shared with all others that have it."""
    if not isinstance(body, FileBody) or body.count <= SMALL_BYTES:
        return body
    file, offset, count = body.file, body.offset, body.count

    async def pump(sink: Sink) -> None:
        position, end = offset, offset + count
        while position < end:
            step = min(pace.step_bytes, end - position)
            await trio.sleep_until(pace.grant(step, trio.current_time()))
            await sink.send_file(file, position, step)
            position += step

    return PumpBody(count, pump, file.close)

"""Listeners of simulated hosts.

Law: what was not accepted when a listener closes is reset.
"""

from collections import deque
from collections.abc import Callable
from functools import partial

import trio

from p2pmirror.wire.address import Address
from p2pmirror.wire.memory_streams import MemoryStream
from p2pmirror.wire.memory_timing import Timing, Wakeup


class MemoryListener:
    """A listening port of a simulated host, as `network.Listener` describes it."""

    __slots__ = ("_address", "_closed", "_coming", "_killed", "_release", "_timing", "_waiting", "_wakeup")

    def __init__(self, address: Address, release: Callable[["MemoryListener"], None], timing: Timing) -> None:
        self._address = address
        self._release = release
        self._timing = timing
        self._coming: dict[MemoryStream, None] | None = None  # not ready; in the order of dialling
        self._waiting: deque[MemoryStream] | None = None  # ready
        self._wakeup = Wakeup(timing)
        self._closed = False
        self._killed = False

    @property
    def address(self) -> Address:
        """The bound address, with its real port."""
        return self._address

    def enqueue(self, stream: MemoryStream, ready_at: float) -> None:
        """Let a connection be accepted from a time on."""
        if self._coming is None:
            self._coming = {}
        self._coming[stream] = None
        if ready_at <= trio.current_time():
            self._ready(stream)
        else:
            self._timing.at(ready_at, partial(self._ready, stream))

    async def accept(self) -> MemoryStream:
        """Return the next connection. Raises ClosedResourceError once closed. Cancellation loses no connection."""
        await trio.lowlevel.checkpoint()
        while True:
            self._timing.catch_up()
            if self._killed:
                await trio.sleep_forever()
            if self._closed:
                raise trio.ClosedResourceError("this listener is closed")
            if self._waiting:
                return self._waiting.popleft()
            self._waiting = None
            await self._wakeup.wait()

    async def aclose(self) -> None:
        """Stop listening at once, and reset what was not accepted. Cancellation: closed all the same."""
        self.close_now()
        await trio.lowlevel.checkpoint()

    def close_now(self) -> None:
        """Stop listening without waiting; once."""
        if self._closed:
            return
        self._closed = True
        self._release(self)
        for stream in (*(self._waiting or ()), *(self._coming or ())):
            stream.close_now(reset=True)
        self._waiting = self._coming = None
        self._wakeup.wake()

    def kill(self) -> None:
        """Stop listening because the process died: its task sees nothing of it."""
        self._killed = not self._closed
        self.close_now()

    def _ready(self, stream: MemoryStream) -> None:
        if self._coming is None or stream not in self._coming:
            return
        del self._coming[stream]
        self._coming = self._coming or None
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(stream)
        self._wakeup.wake()

"""One gRPC call under way: bytes come in from the connection, messages go out to one reader.

Laws:
- a reader takes messages when it likes: what waits for it is bounded by the call's window and one message;
- the messages that came before an end are read before the end is told, and the end is told once it is known.
"""

from collections import deque
from collections.abc import Callable
from typing import Self

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.store.containerd.framing import FramingError, Unframer
from p2pmirror.store.containerd.status import Code, RpcError

MESSAGE_BYTES_MAX = 16 * 1024 * 1024  # what containerd's own server sends at most by default


class Call:
    """One call under way: what has come for it, and how it ended. Made by `Connection.call`."""

    def __init__(self, stream_id: int, taken: Callable[["Call", int], None]) -> None:
        """Tell `taken` how many bytes of the call's window may be given back."""
        self._taken = taken
        self._inbox = bytearray()
        self._window_bytes_due = 0  # what the inbox cost of the window, padding included
        self._unframer = Unframer(MESSAGE_BYTES_MAX)
        self._messages: deque[bytes] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._failure: RpcError | Unreachable | None = None
        self.stream_id = stream_id
        self.ended = False  # no more will be taken: a status, a reset, or the connection's end
        self.sent = False  # the request is out
        self.closed = False  # the server's half is closed
        self.reset = False  # the server took the whole stream away

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next message.

        Raises `StopAsyncIteration` at a good end, `RpcError` at another, `Unreachable` when the connection broke.
        Cancellation loses nothing.
        """
        await trio.lowlevel.checkpoint()
        while not self._messages:
            if self._window_bytes_due:
                self._take_inbox()
            elif not self.ended:
                await self._changed.park()
            elif self._failure is not None:
                raise self._failure
            elif self._unframer.unfinished:
                raise RpcError(Code.INTERNAL, "the response ended inside a message")
            else:
                raise StopAsyncIteration
        return self._messages.popleft()

    async def wait_changed(self) -> None:
        """Wait until something came, or room for sending, or the end."""
        await self._changed.park()

    def wake(self) -> None:
        """Let `wait_changed` look again."""
        self._changed.unpark_all()

    def arrived(self, data: bytes, window_bytes: int) -> None:
        """Keep bytes of the response, which cost `window_bytes` of the call's window."""
        self._inbox += data
        self._window_bytes_due += window_bytes
        self.wake()

    def finish(self, failure: RpcError | Unreachable | None) -> None:
        """Note how the call ended; the first word counts."""
        if not self.ended:
            self.ended = True
            self._failure = failure
        self.wake()

    def _take_inbox(self) -> None:
        data, self._inbox = self._inbox, bytearray()
        self._taken(self, self._window_bytes_due)
        self._window_bytes_due = 0
        try:
            self._messages.extend(self._unframer.feed(data))
        except FramingError as error:
            self._failure = RpcError(Code.INTERNAL, f"the server sent {error}")
            self.ended = True

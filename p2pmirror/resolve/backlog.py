"""Parts of a download between who receives them and who writes them.

Laws: parts come out in their order, each once; what waits is at most `AHEAD_BYTES` and one part; a part that is worth a
thread's call by itself is handed on as it is, smaller ones are joined.
"""

from collections import deque
from typing import Final

import trio

AHEAD_BYTES: Final = 4 << 20  # 4 MiB: what a disk that pauses for some milliseconds is behind at 10 Gbit/s
STEP_BYTES: Final = 256 << 10  # some 0.3 ms of hashing and writing, beside which a thread's call costs little


class Backlog:
    """For one task that puts and one that takes."""

    def __init__(self) -> None:
        """Begin empty."""
        self._parts: deque[bytes] = deque()
        self._bytes = 0
        self._ended = False
        self._changed = trio.Event()

    async def put(self, part: bytes) -> None:
        """Add a part, once less than `AHEAD_BYTES` wait. Cancelled, it is not added."""
        while self._bytes >= AHEAD_BYTES:
            await self._changed.wait()
        self._parts.append(part)
        self._bytes += len(part)
        self._wake()

    def end(self) -> None:
        """Say that nothing more comes."""
        self._ended = True
        self._wake()

    async def step(self) -> bytes:
        """Return the next bytes to write, b"" after the last. Cancellation loses none."""
        while not self._parts:
            if self._ended:
                return b""
            await self._changed.wait()
        step = [self._parts.popleft()]
        count = len(step[0])
        while self._parts and count < STEP_BYTES:
            step.append(self._parts.popleft())
            count += len(step[-1])
        self._bytes -= count
        self._wake()
        return step[0] if len(step) == 1 else b"".join(step)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

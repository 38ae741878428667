"""The seam to the processor: hashing bytes that pass through, beside the event loop."""

import os
from collections.abc import Awaitable, Callable

import trio

from p2pmirror.oci import Hasher

INLINE_BYTES = 64 * 1024  # 64 KiB, some 0.1 ms: up to here a thread costs more than it saves

Hashing = Callable[[Hasher, memoryview], Awaitable[None]]
"""Feeds a hasher; the bytes must not change meanwhile. Cancelled before it began or not at all."""


def hashing_in_threads() -> Hashing:
    """Return a `Hashing` with one thread for each processor: hashlib lets go of the interpreter's lock."""
    limiter = trio.CapacityLimiter(os.cpu_count() or 1)

    async def update(hasher: Hasher, data: memoryview) -> None:
        if len(data) <= INLINE_BYTES:
            hasher.update(data)
        else:
            await trio.to_thread.run_sync(hasher.update, data, limiter=limiter)

    return update


async def hashing_inline(hasher: Hasher, data: memoryview) -> None:
    """Feed the hasher on the event loop: for simulations, which have no threads."""
    hasher.update(data)

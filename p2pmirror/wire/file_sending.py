"""Moves bytes of a file into a connected socket, without copies where the file has a descriptor.

Laws:
- no system call on the event loop waits for a disk: what is not in the page cache is read by a thread first;
- no call moves more than `STEP_BYTES`, and every call is followed by a checkpoint, so that one fast reader does not
  keep the others from their turn;
- cancellation leaves a part of the bytes sent and no thread that holds the caller's descriptor.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.network import File

STEP_BYTES = 4 << 20  # 4 MiB, at 4 to 5 GiB/s about 1 ms: the longest that one connection keeps the loop from others
COLD_STEP_BYTES = 1 << 20  # 1 MiB read by a thread at a time: the first bytes need not wait for more
TURN_BYTES = 64 << 10  # what may go out of memory without a turn of the loop: less than a turn costs
COPY_BYTES = 256 << 10  # 256 KiB where bytes pass through memory: fits the L2 cache, and 1,000 readers hold 256 MiB
PROBE_STRIDE_BYTES = 128 << 10  # 128 KiB, what Linux reads ahead by default: the cache fills and empties in such runs
AHEAD_BYTES = 4 << 20  # 4 MiB asked of the disk behind a cold step, so that the next steps find it warm

_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})  # this file system or kernel cannot say


async def send_descriptor(
    sock: trio.socket.SocketType,
    descriptor: int,
    offset: int,
    count: int,
    *,
    reading: trio.CapacityLimiter,
    moved: Callable[[int], None] | None = None,
) -> None:
    """Send `count` bytes of `descriptor` from `offset` with sendfile; `reading` limits the threads for cold pages.

    `moved` is told of each part. Raises `Unreachable` when the file ends early, OSError when the socket or the disk
    fails. Cancellation: a part has been sent.
    """
    end = offset + count
    warm_until = offset
    while offset < end:
        await trio.lowlevel.checkpoint()
        if offset >= warm_until:
            warm_until = min(offset + STEP_BYTES, end)
            if not _is_cached(descriptor, offset, warm_until):
                warm_until = min(offset + COLD_STEP_BYTES, end)
                await _warm(descriptor, offset, warm_until - offset, reading)
        try:
            sent = os.sendfile(sock.fileno(), descriptor, offset, warm_until - offset)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            # The wait may have been long: the pages are looked at again before the loop trusts them.
            warm_until = offset
            continue
        if sent == 0:
            raise _ended_early(offset, end)
        offset += sent
        if moved is not None:
            moved(sent)


async def send_by_reading(
    sock: trio.socket.SocketType, file: File, offset: int, count: int, moved: Callable[[int], None] | None = None
) -> None:
    """Send `count` bytes of a file that has no descriptor, in steps of `COPY_BYTES`; tell `moved` of each part.

    Raises `Unreachable` when the file ends early or cannot be read, OSError when the socket fails. Cancellation: a
    part has been sent.
    """
    end = offset + count
    while offset < end:
        step = min(COPY_BYTES, end - offset)
        part = await file.read_at(offset, step)
        await send_bytes(sock, part, moved)
        offset += len(part)
        if len(part) < step:
            raise _ended_early(offset, end)


async def send_bytes(
    sock: trio.socket.SocketType,
    data: bytes | bytearray | memoryview,
    moved: Callable[[int], None] | None = None,
) -> None:
    """Send every byte; tell `moved` of each part. Raises OSError. Cancellation: a part has been sent.

    More than `TURN_BYTES` cost a turn of the loop.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    with memoryview(data) as whole, whole.cast("B") as view:
        sent, count = 0, len(view)
        while sent < count:
            part = _write(sock, view, sent)
            sent += part
            if part and moved is not None:
                moved(part)
            if sent < count:
                await trio.lowlevel.wait_writable(sock)
    if count > TURN_BYTES:
        await trio.lowlevel.cancel_shielded_checkpoint()


def _write(sock: trio.socket.SocketType, view: memoryview, start: int) -> int:
    """Write what the socket takes at once, at most `STEP_BYTES`; 0 when it is full."""
    with view[start : start + STEP_BYTES] as rest:
        try:
            return os.write(sock.fileno(), rest)
        except BlockingIOError:
            return 0


def _is_cached(descriptor: int, start: int, end: int) -> bool:
    """Say whether one page in each stride, and the last one, can be read at once. A page beyond the end counts."""
    one = bytearray(1)
    try:
        for position in range(start, end, PROBE_STRIDE_BYTES):
            os.preadv(descriptor, [one], position, os.RWF_NOWAIT)
        os.preadv(descriptor, [one], end - 1, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


async def _warm(descriptor: int, offset: int, count: int, reading: trio.CapacityLimiter) -> None:
    """Bring a step into the page cache from a thread. Cancellation: the thread ends by itself, on its own copy."""
    # Whoever takes the copy out of the list closes it: the thread, or, if it has not begun when we leave, we.
    copies = [os.dup(descriptor)]

    def read() -> None:
        try:
            copy = copies.pop()
        except IndexError:
            return
        try:
            os.posix_fadvise(copy, offset, count + AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
            os.preadv(copy, [bytearray(count)], offset)
        finally:
            os.close(copy)

    try:
        await trio.to_thread.run_sync(read, limiter=reading, abandon_on_cancel=True)
    finally:
        with suppress(IndexError):
            os.close(copies.pop())


def _ended_early(reached: int, end: int) -> Unreachable:
    return Unreachable(f"the file ended at byte {reached}, {end - reached} bytes before its announced end")

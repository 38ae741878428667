"""Moves bytes of a file into a connected socket, without copies where the file has a descriptor.

Laws:
- no system call on the event loop waits for a disk: what is not in the page cache is read by a thread first;
- no call moves more than `STEP_BYTES`, and a turn of the loop follows each, so that one fast reader does not keep the
  others from theirs; only up to `TURN_BYTES` out of memory go without, since who sends them waits for a question first;
- cancellation leaves a part of the bytes sent and no thread that holds the caller's descriptor.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import trio

from p2pmirror.errors import Unreachable
from p2pmirror.wire.network import File
from p2pmirror.wire.page_cache import is_cached

STEP_BYTES = 4 << 20  # 4 MiB, at 4 to 5 GiB/s about 1 ms: the longest that one connection keeps the loop from others
COLD_STEP_BYTES = 1 << 20  # 1 MiB read by a thread at a time: the first bytes need not wait for more
TURN_BYTES = 64 << 10  # what may go out of memory without a turn of the loop: less than a turn costs
COPY_BYTES = 256 << 10  # 256 KiB where bytes pass through memory: fits the L2 cache, and 1,000 readers hold 256 MiB
TRUST_S = 0.01  # what was in the page cache a moment ago still is
AHEAD_BYTES = 4 << 20  # 4 MiB asked of the disk behind a cold step, so that the next steps find it warm


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
    warm_until, looked_at = offset, 0.0
    await trio.lowlevel.checkpoint()
    with _whole_segments(sock):
        while offset < end:
            # A wait may have been long: the pages are looked at again before the loop trusts them.
            if offset >= warm_until or trio.current_time() > looked_at + TRUST_S:
                looked_at = trio.current_time()
                warm_until = min(offset + STEP_BYTES, end)
                if not is_cached(descriptor, offset, warm_until):
                    warm_until = min(offset + COLD_STEP_BYTES, end)
                    await _warm(descriptor, offset, warm_until - offset, reading)
            sent = _send_step(sock, descriptor, offset, warm_until - offset)
            if sent == 0:
                raise _ended_early(offset, end)
            if sent > 0:
                offset += sent
                if moved is not None:
                    moved(sent)
            if offset < warm_until:
                await trio.lowlevel.wait_writable(sock)  # it is full; waiting is a turn of the loop, too
            else:
                await trio.lowlevel.checkpoint()


@contextmanager
def _whole_segments(sock: trio.socket.SocketType) -> Iterator[None]:
    """Let the kernel cut the bytes of the block into full segments only, and send the rest at its end (TCP_CORK).

    sendfile hands over a few pages at a time; without it each time ends in a short segment, and a reader that keeps up
    makes its own core send them.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    try:
        yield
    finally:
        with suppress(OSError):  # closed meanwhile, or broken, which the send has said
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


def _send_step(sock: trio.socket.SocketType, descriptor: int, offset: int, count: int) -> int:
    """Return how many bytes the socket took at once: 0 at the end of the file, -1 when it takes none."""
    try:
        return os.sendfile(sock.fileno(), descriptor, offset, count)
    except BlockingIOError:
        return -1


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

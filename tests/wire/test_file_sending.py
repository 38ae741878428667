"""What sending files and bytes over real sockets, and receiving them, takes of the kernel: pages, segments, buffers."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from p2pmirror.wire import page_cache
from p2pmirror.wire.address import Address
from p2pmirror.wire.file_sending import send_descriptor
from p2pmirror.wire.tcp import GATHERED_BYTES, QUICK_BYTES, TcpStream
from tests.groups import leave_out

MIB = 1 << 20


@pytest.fixture
def file(tmp_path):
    """8 MiB in the page cache, written back, so that the kernel may let go of them."""
    path = tmp_path / "file"
    with path.open("wb", buffering=0) as out:
        for _ in range(128):  # in small parts, so that the kernel can let go of small parts
            out.write(os.urandom(64 << 10))
    number = os.open(path, os.O_RDONLY)
    os.fsync(number)
    os.pread(number, 8 * MIB, 0)
    yield number
    os.close(number)


def evict(number: int, start: int, count: int) -> None:
    """Have the kernel let go of pages. Nobody looks whether it did: to look has them read."""
    os.posix_fadvise(number, start, count, os.POSIX_FADV_DONTNEED)


@pytest.fixture
def cold(file):
    """Give the file where its file system lets go of pages; tmpfs, for one, has no disk to read them from."""
    evict(file, 6 * MIB, MIB)
    if not is_cold(file, 6 * MIB + MIB // 2):
        leave_out("cold pages", "this file system keeps its pages", mendable=False)
    os.pread(file, 8 * MIB, 0)
    return file


def is_cold(file, offset):
    """Whether a byte would have to be read from a disk."""
    try:
        os.preadv(file, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def test_what_is_in_memory_is_cached(file):
    """All of it, a part of it, and what lies beyond its end, which no disk is asked for."""
    assert page_cache.is_cached(file, 0, 8 * MIB)
    assert page_cache.is_cached(file, 12_345, 12_346)
    assert page_cache.is_cached(file, 7 * MIB, 9 * MIB)


@pytest.mark.parametrize(("start", "end", "cached"), [(2, 3, False), (0, 8, False), (4, 8, True)])
def test_a_hole_is_seen_wherever_it_lies(cold, start, end, cached):
    """Pages that went between those that are read are missed all the same, and only where they are."""
    evict(cold, 2 * MIB + 256 * 1024, 512 * 1024)
    if not is_cold(cold, 2 * MIB + 512 * 1024):  # the kernel takes it as advice
        leave_out("cold pages", "this kernel keeps pages now and then", mendable=False)
    assert page_cache.is_cached(cold, start * MIB, end * MIB) is cached


def test_a_closed_file_is_an_error(tmp_path):
    """A number that is no open file is the caller's mistake."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        page_cache.is_cached(1 << 20, 0, 1)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[TcpStream, socket.socket, trio.socket.SocketType]]:
    """Give a stream, the other end's socket (which blocks), and the stream's own; over the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = trio.socket.socket()
        await sock.connect(listener.getsockname())
        theirs, _ = listener.accept()
    local, remote = (Address(*name[:2]) for name in (sock.getsockname(), sock.getpeername()))
    with theirs, sock:
        yield TcpStream(sock, local, remote, trio.CapacityLimiter(1)), theirs, sock


def corked(sock: trio.socket.SocketType) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)


def unsent_max(sock: trio.socket.SocketType) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)


async def take(sock: socket.socket, count: int) -> int:
    """Read `count` bytes, or up to the end, beside the loop."""

    def read() -> int:
        left = count
        while left and (got := len(sock.recv(min(left, MIB)))):
            left -= got
        return count - left

    return await trio.to_thread.run_sync(read)


async def test_a_file_leaves_no_cork_behind(file):
    """What does not fill a segment goes out with the end of the file, not when the kernel loses patience."""
    async with connected() as (stream, theirs, sock), trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_file, Opened(file), 0, 3 * MIB + 1)
        assert await take(theirs, 3 * MIB + 1) == 3 * MIB + 1
        await trio.testing.wait_all_tasks_blocked()
        assert corked(sock) == 0


async def test_a_send_that_is_cut_leaves_no_cork_behind(file):
    """A client that stands still and is cut gets what was sent before."""
    async with connected() as (stream, _, sock):
        with trio.move_on_after(0.2):
            while True:
                await stream.send_file(Opened(file), 0, 8 * MIB)
        assert corked(sock) == 0


async def test_who_takes_nothing_costs_the_kernel_little():
    """Of bytes in memory less than `QUICK_BYTES` are taken for a client that reads nothing; the rest waits with us."""
    async with connected() as (stream, _, _sock):
        sent = 0
        with trio.move_on_after(1):
            while sent < 8 * MIB:
                await stream.send_all(bytes(16 << 10))
                sent += 16 << 10
        assert 0 < sent < QUICK_BYTES


async def test_who_takes_much_is_sent_much():
    """After `QUICK_BYTES` the kernel may keep as much unsent as it likes."""
    async with connected() as (stream, theirs, sock), trio.open_nursery() as nursery:
        await stream.send_all(b"head")
        assert unsent_max(sock) > 0
        nursery.start_soon(stream.send_all, bytes(QUICK_BYTES))
        assert await take(theirs, QUICK_BYTES + 4) == QUICK_BYTES + 4
        assert unsent_max(sock) == 0


async def test_a_file_is_sent_without_that_limit(file):
    """Its pages take no memory of ours, however many of them are unsent."""
    async with connected() as (stream, theirs, sock), trio.open_nursery() as nursery:
        await stream.send_all(b"head")
        nursery.start_soon(stream.send_file, Opened(file), 0, MIB)
        assert await take(theirs, MIB + 4) == MIB + 4
        assert unsent_max(sock) == 0


async def test_many_small_parts_are_one_receive():
    """Whoever lets bytes gather is woken once for half a MiB that comes in 128 parts, and for what is left at once."""
    parts = 2 * GATHERED_BYTES // (8 << 10)
    buffer = memoryview(bytearray(2 * GATHERED_BYTES))

    async with connected() as (stream, theirs, _), trio.open_nursery() as nursery:

        async def send() -> None:
            for _ in range(parts):
                await trio.to_thread.run_sync(theirs.sendall, bytes(8 << 10))

        nursery.start_soon(send)
        assert await stream.receive_into(buffer[:GATHERED_BYTES], 600.0) == GATHERED_BYTES
        assert await stream.receive_into(buffer[: GATHERED_BYTES - 1], 600.0) == GATHERED_BYTES - 1
        assert await stream.receive_into(buffer[:10]) == 1


async def test_cold_pages_are_read_beside_the_loop(cold):
    """A file with holes in the page cache arrives as it is, and its holes were filled by a thread."""
    evict(cold, 5 * MIB, 2 * MIB)
    reading = trio.CapacityLimiter(1)
    expected = os.pread(cold, 4 * MIB, 0)
    async with connected() as (_, theirs, sock), trio.open_nursery() as nursery:
        nursery.start_soon(partial(send_descriptor, sock, cold, 0, 8 * MIB, reading=reading))
        got = bytearray(8 * MIB)
        await trio.to_thread.run_sync(theirs.recv_into, got, 8 * MIB, socket.MSG_WAITALL)
    assert bytes(got[: 4 * MIB]) == expected
    assert bytes(got) == os.pread(cold, 8 * MIB, 0)
    assert page_cache.is_cached(cold, 0, 8 * MIB)


class Opened:
    """A descriptor as a `File`; the fixture closes it."""

    size = 8 * MIB

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    async def read_at(self, offset: int, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return os.pread(self._number, count, offset)

    def close(self) -> None:
        """Leave it to the fixture."""

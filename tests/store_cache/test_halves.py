"""A blob that is half there: the next one to receive it goes on with it, once it was hashed again, or it is gone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry

from p2pmirror.errors import StoreFull
from p2pmirror.oci import Digest
from p2pmirror.store.cache import CacheHooks, CacheMetrics, CacheStore
from p2pmirror.store.cache.protocol import Incoming, Left
from p2pmirror.store.files import Files
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.memoryfiles import MemoryFiles
from tests.cancellation import cancel_at_every_checkpoint
from tests.store_cache.setting import DIRECTORY, NAME, Day, content, keep, listed, looked, options, rests, store_on

PIECE = 1000
DATA = Random(1).randbytes(10 * PIECE - 5)
DIGEST = Digest.of(DATA)


async def received(store: CacheStore, data: bytes = DATA, **more: Any) -> Incoming:
    return await store.receive(Digest.of(data), len(data), None, NAME, **{"piece_bytes": PIECE, **more})


async def write(incoming: Incoming, start: int, end: int) -> None:
    """Write pieces in their turn."""
    for offset in range(start, end, PIECE):
        await incoming.write(DATA[offset : min(end, offset + PIECE)])


async def put(incoming: Incoming, offset: int) -> None:
    """Put one piece out of its turn, as it comes from a peer."""
    data = DATA[offset : offset + PIECE]
    await incoming.put(offset, data)
    await incoming.note(offset, sha256(data).digest())


async def leave_half(store: CacheStore) -> None:
    """Receive three pieces and a bit in their turn, and two more out of it; then end."""
    incoming = await received(store)
    try:
        await write(incoming, 0, 3 * PIECE + 100)
        await put(incoming, 5 * PIECE)
        await put(incoming, 9 * PIECE)
    finally:
        await incoming.leave()


async def finish(store: CacheStore, incoming: Incoming) -> None:
    """Go on with what was left by `leave_half`, and keep it."""
    async with incoming:
        for end in incoming.left.prefixes:
            assert await incoming.prove_to(end)
        for offset in incoming.left.pieces:
            assert await incoming.prove_piece(offset) == sha256(DATA[offset : offset + PIECE]).digest()
        with closing(await incoming.reader()) as reader:
            assert await reader.read_at(0, incoming.written) == DATA[: incoming.written]
        await write(incoming, incoming.written, 5 * PIECE)
        await incoming.catch_up(6 * PIECE)
        await write(incoming, 6 * PIECE, 9 * PIECE)
        await incoming.catch_up(len(DATA))
        assert await incoming.is_right()
        await incoming.keep()
    assert await content(store, DIGEST) == DATA


@pytest.fixture(params=["host", "memory"])
def files(request: pytest.FixtureRequest) -> Files:
    return HostFiles() if request.param == "host" else MemoryFiles()


async def names(files: Files, directory: Path) -> list[str]:
    return [name for name in await files.names(directory) if name.startswith(".incoming")]


async def test_what_is_left_is_gone_on_with(files: Files, tmp_path: Path) -> None:
    """Another agent's start has what came in its turn and out of it, and ends with a right blob and no rest."""
    directory = tmp_path / "cache"
    await leave_half(await looked(files, directory=directory))
    metrics = CacheMetrics(CollectorRegistry())
    store = CacheStore(directory, files, options(), None, metrics)
    await store.look()
    assert await store.resumes_at(DIGEST, lambda _: PIECE) == 3 * PIECE
    incoming = await received(store)
    assert incoming.left == Left((PIECE, 2 * PIECE, 3 * PIECE), (5 * PIECE, 9 * PIECE))
    assert incoming.written == 0
    await finish(store, incoming)
    assert metrics.resumed._value.get() == 5 * PIECE - 5
    assert await names(files, directory) == []
    assert await store.resumes_at(DIGEST, lambda _: PIECE) == 0


async def test_left_again_and_again(files: Files, tmp_path: Path) -> None:
    """Each try adds what it brought, in the same file; what it did not prove is there for the next one."""
    directory = tmp_path / "cache"
    for count in range(1, 10):
        store = await looked(files, directory=directory)
        incoming = await received(store)
        assert incoming.left.prefixes == tuple(range(PIECE, count * PIECE, PIECE))
        for end in incoming.left.prefixes[-1:]:
            assert await incoming.prove_to(end)
        await write(incoming, incoming.written, count * PIECE)
        await incoming.leave()
        assert len(await names(files, directory)) == 2
    assert await store.resumes_at(DIGEST, lambda _: PIECE) == 9 * PIECE
    assert store._room.reserved_bytes == 0


async def test_the_whole_blob_may_have_been_left(files: Files, tmp_path: Path) -> None:
    """Killed just before it was kept: all is proved, nothing is written, and a source is asked for its last byte."""
    store = await looked(files, directory=tmp_path / "cache")
    incoming = await received(store)
    await write(incoming, 0, len(DATA))
    await incoming.leave()
    assert await store.resumes_at(DIGEST, lambda _: PIECE) == len(DATA) - 1
    async with await received(store) as incoming:
        assert await incoming.prove_to(incoming.left.prefixes[-1])
        assert await incoming.is_right()
        await incoming.keep()
    assert await content(store, DIGEST) == DATA


def _torn(files: MemoryFiles) -> None:
    files.entries[_half(files)].now[2500] ^= 1


def _shorter(files: MemoryFiles) -> None:
    del files.entries[_half(files)].now[-1:]


def _noteless(files: MemoryFiles) -> None:
    files.remove(_notes(files))


def _garbled(files: MemoryFiles) -> None:
    files.entries[_notes(files)].now[:] = b"\xff" * 100


def _unreadable(files: MemoryFiles) -> None:
    files.unreadable.add(_notes(files))


def _half(files: MemoryFiles) -> Path:
    return DIRECTORY / rests(files)[0]


def _notes(files: MemoryFiles) -> Path:
    return DIRECTORY / rests(files)[1]


async def test_what_is_torn_is_not_proved() -> None:
    """Up to the bit that changed it is right, after it nothing is, but for pieces that have a hash of their own."""
    files = MemoryFiles()
    await leave_half(await looked(files))
    _torn(files)
    async with await received(await looked(files)) as incoming:
        assert [await incoming.prove_to(end) for end in (PIECE, 2 * PIECE, 3 * PIECE)] == [True, True, False]
        assert incoming.written == 2 * PIECE
        files.entries[_half(files)].now[5 * PIECE] ^= 1
        assert await incoming.prove_piece(5 * PIECE) is None
        assert await incoming.prove_piece(9 * PIECE) is not None
        await write(incoming, 2 * PIECE, len(DATA))
        assert await incoming.is_right()


@pytest.mark.parametrize("harm", [_shorter, _noteless, _garbled, _unreadable])
async def test_what_cannot_be_gone_on_with_is_begun_anew(harm: Callable[[MemoryFiles], None]) -> None:
    """Of another length, without notes, or with notes that cannot be read: it is begun from the first byte."""
    files = MemoryFiles()
    await leave_half(await looked(files))
    harm(files)
    store = await looked(files)
    async with await received(store) as incoming:
        assert incoming.left == Left()
        await write(incoming, 0, len(DATA))
        await incoming.keep()
    await store._directory.remove_abandoned()
    files.unreadable.clear()
    assert rests(files) == []
    assert await content(store, DIGEST) == DATA


async def test_another_length_or_other_pieces() -> None:
    """A half of a blob that is said to be longer now, or that is cut in another way, is thrown away."""
    for size, piece_bytes in [(len(DATA) + 1, PIECE), (len(DATA), PIECE // 2)]:
        files = MemoryFiles()
        await leave_half(await looked(files))
        store = await looked(files)
        assert await store.resumes_at(DIGEST, lambda _: PIECE // 2) == 0
        assert await store.resumes_at(DIGEST, lambda size: PIECE if size == len(DATA) else 1) == 3 * PIECE
        async with await store.receive(DIGEST, size, None, NAME, piece_bytes=piece_bytes) as incoming:
            assert incoming.left == Left()
            assert len(rests(files)) == 1
        assert rests(files) == []


async def test_what_is_not_to_be_left_is_not() -> None:
    """Without pieces, of one piece, without anything noted, after it was kept: nothing stays behind."""
    files = MemoryFiles()
    store = await looked(files)
    for more, count in [({"piece_bytes": 0}, 5000), ({"piece_bytes": len(DATA)}, 5000), ({}, 999)]:
        incoming = await received(store, **more)
        await write(incoming, 0, count)
        await incoming.leave()
        assert rests(files) == []
    incoming = await received(store)
    await write(incoming, 0, len(DATA))
    await incoming.keep()
    await incoming.leave()
    assert (rests(files), listed(store)) == ([], {DIGEST})
    assert store._room.reserved_bytes == 0


async def test_who_does_not_ask_for_it_does_not_get_it() -> None:
    """A command that receives the same blob in order has a file of its own, and the half stays for an agent."""
    store = await looked(MemoryFiles())
    await leave_half(store)
    async with await received(store, piece_bytes=0) as incoming:
        assert incoming.left == Left()
        with pytest.raises(ValueError, match="nothing was left"):
            await incoming.prove_to(PIECE)
        with pytest.raises(ValueError, match="no piece was left"):
            await incoming.prove_piece(0)
        await incoming.note(0, bytes(32))
    assert await store.resumes_at(DIGEST, lambda _: PIECE) == 3 * PIECE


async def test_two_agents_never_have_the_same_half(files: Files, tmp_path: Path) -> None:
    """While one goes on with it the other begins anew; of two that were left the latest is taken, and both go."""
    one, two = [await looked(files, directory=tmp_path / "cache") for _ in range(2)]
    await leave_half(one)
    first, second = await received(one), await received(two)
    assert (first.left.prefixes != (), second.left) == (True, Left())
    await two._halves.remove_old(0.0)
    await second.write(DATA[: 4 * PIECE])
    await second.write(DATA[4 * PIECE : 5 * PIECE])
    await first.leave()
    await second.leave()
    async with await received(two) as third:
        assert third.left.prefixes[-1] == 5 * PIECE
    await one._directory.remove_abandoned()
    assert await names(files, tmp_path / "cache") == []


async def test_it_goes_after_its_time(autojump_clock: Any) -> None:
    """The walk leaves a young one alone, and removes it when nobody has come for it for ten minutes."""
    day = Day()
    files = MemoryFiles(wall_s=day)
    store = store_on(files, hooks=CacheHooks(wall_s=day))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await leave_half(store)
        await trio.sleep(590)
        assert len(rests(files)) == 2
        assert store._room._taken_bytes >= len(DATA)
        await trio.sleep(311)  # the next walk
        assert rests(files) == []
        await trio.sleep(10)
        assert store._room._taken_bytes == 0
        nursery.cancel_scope.cancel()


async def test_room_is_made_of_it_first() -> None:
    """What is half there counts as taken, and goes before anything that is whole, when there is no room left."""
    files = MemoryFiles()
    store = await looked(files, bytes_max=30_000)
    whole = await keep(store, b"1" * 10_000)
    await leave_half(store)
    assert store._room._taken_bytes == 10_000 + len(DATA)
    async with await received(store, b"2" * 15_000, piece_bytes=0) as incoming:
        assert store._room._taken_bytes == 25_000
        assert len(rests(files)) == 1
        await incoming.write(b"2" * 15_000)
        await incoming.keep()
    assert whole in listed(store)


async def test_it_has_its_room_already() -> None:
    """On a disk that is full but for it, it is gone on with, and nothing else goes for it; it counts once."""
    files = MemoryFiles(bytes_free=40_000)
    store = await looked(files, bytes_max=22_000)
    whole = await keep(store, b"1" * 10_000)
    await leave_half(store)
    files.bytes_free = 1000
    incoming = await received(store)
    assert (store._room.reserved_bytes, store._room._taken_bytes) == (len(DATA), 10_000 + len(DATA))
    await finish(store, incoming)
    assert listed(store) == {whole, DIGEST}
    assert store._room.reserved_bytes == 0


async def test_no_room_any_more() -> None:
    """A cache that has become too small for it says so, and leaves it where it is."""
    files = MemoryFiles()
    await leave_half(await looked(files))
    small = await looked(files, bytes_max=len(DATA) - 1)
    with pytest.raises(StoreFull):
        await received(small)
    assert small._room.reserved_bytes == 0
    assert await small.resumes_at(DIGEST, lambda _: PIECE) == 3 * PIECE


async def test_a_disk_that_takes_no_notes() -> None:
    """Receiving goes on without them, and a directory that is wiped meanwhile is no trouble either."""
    files = MemoryFiles()
    store = await looked(files)
    for harm in (
        lambda: files.put(DIRECTORY / f".incoming-{DIGEST.hex}-0.pieces", b"old"),
        lambda: files.remove(DIRECTORY),
    ):
        incoming = await received(store)
        harm()
        await write(incoming, 0, 5 * PIECE)
        await incoming.leave()
    assert await store.resumes_at(DIGEST, lambda _: PIECE) == 0
    async with await received(store) as incoming:
        files.bytes_free = 0
        await write(incoming, 0, len(DATA))
        files.bytes_free = None
        await incoming.keep()
    assert await content(store, DIGEST) == DATA


async def test_cancelled_anywhere(files: Files, tmp_path: Path) -> None:
    """Left, gone on with, proved, noted and kept, cancelled anywhere: the blob is right or can be gone on with."""
    directory = tmp_path / "cache"
    store = await looked(files, directory=directory)

    async def use() -> None:
        await leave_half(store)
        await store.resumes_at(DIGEST, lambda _: PIECE)
        incoming = await received(store)
        try:
            assert await incoming.prove_to(3 * PIECE)
            assert await incoming.prove_piece(5 * PIECE)
            await write(incoming, 3 * PIECE, 5 * PIECE)
            await put(incoming, 6 * PIECE)
        finally:
            await incoming.leave()
        await store._halves.remove_old(0.0 if isinstance(files, MemoryFiles) else 2e9)

    async def check() -> None:
        assert store._room.reserved_bytes == 0
        async with await received(store) as incoming:
            for end in incoming.left.prefixes:
                assert await incoming.prove_to(end)
            for offset in incoming.left.pieces:
                assert await incoming.prove_piece(offset)
            await write(incoming, incoming.written, len(DATA))
            assert await incoming.is_right()
        await store._directory.remove_abandoned()
        assert await names(files, directory) == []

    assert await cancel_at_every_checkpoint(use, check) > 20

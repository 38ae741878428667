"""Room for what nobody keeps: bytes as a cache has them, a limit, and nothing left whatever happens."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import pytest
import trio

from p2pmirror.errors import StoreFull
from p2pmirror.oci import Digest
from p2pmirror.store.cache.scratch import FirstWithRoom, Scratch
from p2pmirror.store.files import Files, NotWritable
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.memoryfiles import MemoryFiles
from tests.cancellation import cancel_at_every_checkpoint

DATA = bytes(range(256)) * 10
DIGEST = Digest.of(DATA)
NAME = "registry.example/app"
LIMIT = 2 * len(DATA)


@pytest.fixture(params=["host", "memory"])
def files(request: pytest.FixtureRequest) -> Files:
    return HostFiles() if request.param == "host" else MemoryFiles()


@pytest.fixture
def scratch(files: Files, tmp_path: Path) -> Scratch:
    return Scratch(tmp_path / "scratch", files, LIMIT, free_bytes_min=0)


async def names(files: Files, tmp_path: Path) -> list[str]:
    return await files.names(tmp_path / "scratch")


async def test_a_blob_arrives_in_a_file_without_a_name(scratch: Scratch, files: Files, tmp_path: Path) -> None:
    """It is read while it grows and after it has been let go of; it is never seen in the directory, nor kept."""
    async with await scratch.receive(DIGEST, len(DATA), None, NAME) as incoming:
        assert await names(files, tmp_path) == []
        await incoming.put(1000, DATA[1000:])
        await incoming.write(DATA[:1000])
        with closing(await incoming.reader()) as reader:
            assert await reader.read_at(0, 1000) == DATA[:1000]
        await incoming.catch_up(len(DATA))
        assert await incoming.is_right()
        with pytest.raises(StoreFull):
            await incoming.keep()
        late = await incoming.reader()
    with closing(late):
        assert await late.read_at(0, len(DATA)) == DATA
    assert await names(files, tmp_path) == []
    assert scratch.taken_bytes == 0


async def test_room_is_counted(scratch: Scratch) -> None:
    """Two blobs fill it, a third one has no room until one is gone; a blob that is larger than all never has."""
    async with await scratch.receive(DIGEST, len(DATA), None, NAME):
        async with await scratch.receive(DIGEST, len(DATA), None, NAME):
            assert scratch.taken_bytes == LIMIT
            with pytest.raises(StoreFull, match="scratch_max_bytes"):
                await scratch.receive(DIGEST, 1, None, NAME)
        async with await scratch.receive(DIGEST, 1, None, NAME):
            pass
    with pytest.raises(StoreFull):
        await scratch.receive(DIGEST, LIMIT + 1, None, NAME)
    assert scratch.taken_bytes == 0


async def test_a_full_disk(tmp_path: Path) -> None:
    """What the disk has no room for is refused before its first byte, and the reserve of others is left alone."""
    files = MemoryFiles()
    files.bytes_free = len(DATA) + 999
    scratch = Scratch(tmp_path / "scratch", files, LIMIT, free_bytes_min=1000)
    with pytest.raises(StoreFull, match="disk is full"):
        await scratch.receive(DIGEST, len(DATA), None, NAME)
    assert (scratch.taken_bytes, await names(files, tmp_path)) == (0, [])
    files.bytes_free += 1
    async with await scratch.receive(DIGEST, len(DATA), None, NAME) as incoming:
        await incoming.write(DATA)
        assert await incoming.is_right()


async def test_a_disk_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and refused each time; as soon as it can be written it is used."""
    files = MemoryFiles()
    files.read_only = True
    scratch = Scratch(tmp_path / "scratch", files, LIMIT, free_bytes_min=0)
    with caplog.at_level(logging.WARNING, "p2pmirror.store"):
        for _ in range(3):
            with pytest.raises(NotWritable):
                await scratch.receive(DIGEST, len(DATA), None, NAME)
    assert len([each for each in caplog.records if each.name == "p2pmirror.store"]) == 1
    files.read_only = False
    async with await scratch.receive(DIGEST, len(DATA), None, NAME) as incoming:
        await incoming.write(DATA)
        assert await incoming.is_right()


async def test_what_a_crash_left_is_removed(scratch: Scratch, files: Files, tmp_path: Path) -> None:
    """A file whose writer died between making it and taking its name away goes with the first blob; others' stay."""
    root = tmp_path / "scratch"
    await files.make_directory(root)
    async with await files.create(root / "left") as left:
        await left.append(b"rest")
        await left.commit(root / ".incoming-dead-0")
    async with (
        await files.create(root / ".incoming-live-0"),
        await scratch.receive(DIGEST, len(DATA), None, NAME),
    ):
        assert await names(files, tmp_path) == [".incoming-live-0"]


async def test_what_a_cache_has_no_room_for_arrives_all_the_same(tmp_path: Path) -> None:
    """The first one that has room takes it; where neither has, that is said."""
    small = Scratch(tmp_path / "a", MemoryFiles(), 10, free_bytes_min=0)
    large = Scratch(tmp_path / "b", MemoryFiles(), LIMIT, free_bytes_min=0)
    both = FirstWithRoom(small, large)
    async with await both.receive(DIGEST, len(DATA), None, NAME), await both.receive(DIGEST, 10, None, NAME):
        assert (small.taken_bytes, large.taken_bytes) == (10, len(DATA))
        with pytest.raises(StoreFull):
            await both.receive(DIGEST, LIMIT, None, NAME)
    assert (small.taken_bytes, large.taken_bytes) == (0, 0)


async def test_cancelled_anywhere(scratch: Scratch, files: Files, tmp_path: Path) -> None:
    """No name, and no room that is held, is left by a blob whose way here was cut at any point."""

    async def receive() -> None:
        first = FirstWithRoom(Scratch(tmp_path / "scratch", files, 0), scratch)
        assert await first.resumes_at(DIGEST, lambda _: 10) == await scratch.resumes_at(DIGEST, lambda _: 10) == 0
        incoming = await first.receive(DIGEST, len(DATA), None, NAME, piece_bytes=10)
        try:
            await incoming.write(DATA)
            assert await incoming.is_right()
        finally:
            await incoming.leave()

    async def check() -> None:
        await trio.lowlevel.checkpoint()
        assert scratch.taken_bytes == 0
        left = await names(files, tmp_path)
        await files.remove_abandoned(tmp_path / "scratch", ".incoming-")
        assert len(left) <= 1, "one whose name was about to be taken away, which the next start removes"

    await files.make_directory(tmp_path / "scratch")
    assert await cancel_at_every_checkpoint(receive, check) > 3

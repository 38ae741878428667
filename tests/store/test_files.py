"""The seam to the disk: the real files and their twin keep the same laws."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from p2pmirror.errors import NotHere, StoreFull, Unreachable
from p2pmirror.oci import Digest
from p2pmirror.store.files import AlreadyThere, Files, NotWritable
from p2pmirror.store.hostfiles import HostFiles, Limiters
from p2pmirror.store.hostfiles.descriptor import Descriptor
from p2pmirror.store.memoryfiles import MemoryFiles, PowerOff


class Place:
    """Files of one kind, and an empty directory among them."""

    def __init__(self, files: Files, directory: Path) -> None:
        self.files = files
        self.directory = directory

    async def write(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        async with await self.files.create(self.directory / f"{name}.new") as writer:
            await writer.append(data)
            await writer.commit(path)
        return path

    async def read(self, path: Path) -> bytes:
        return await self.files.read_whole(path, 10_000_000)


@pytest.fixture(params=["host", "memory"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "host":
        return Place(HostFiles(), tmp_path)
    files = MemoryFiles()
    await files.make_directory(Path("/store"))
    return Place(files, Path("/store"))


# --- reading ---


async def test_reads_anywhere(place: Place) -> None:
    """Any part of a file can be read, also beyond 1 MiB, and reading past the end gives what there is."""
    data = Random(1).randbytes(3_000_000)
    file = await place.files.open(await place.write("a", data))
    assert file.size == len(data)
    for offset, count in [(0, 10), (5, 0), (999_999, 2_000_001), (0, len(data)), (len(data) - 1, 100), (len(data), 1)]:
        assert await file.read_at(offset, count) == data[offset : offset + count]
    assert await file.read_at(len(data) + 10, 1) == b""
    file.close()
    file.close()


async def test_absent_file(place: Place) -> None:
    """What is not there is NotHere, also below a file in place of a directory."""
    path = await place.write("a", b"x")
    for absent in (place.directory / "b", path / "below", place.directory / "no" / "such"):
        with pytest.raises(NotHere):
            await place.files.open(absent)
        with pytest.raises(NotHere):
            await place.files.read_whole(absent, 10)
    with pytest.raises(NotHere):
        await place.files.names(place.directory / "no")


async def test_read_whole_has_a_limit(place: Place) -> None:
    """A file longer than the reader allows is refused; one of just that length is read."""
    path = await place.write("a", b"12345")
    assert await place.files.read_whole(path, 5) == b"12345"
    with pytest.raises(Unreachable, match="more than the 4"):
        await place.files.read_whole(path, 4)


async def test_open_file_survives_unlink_and_replacement(place: Place) -> None:
    """An open file reads its own bytes to the end after its name was given away or removed."""
    path = await place.write("a", b"old content")
    file = await place.files.open(path)
    await place.write("a", b"new")
    await place.files.unlink(path)
    await place.files.unlink(path)
    assert await file.read_at(0, 100) == b"old content"
    assert await file.hash() == Digest.of(b"old content")
    file.close()


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("size", [0, 1, 1_048_576, 9_000_001])
async def test_hash(place: Place, algorithm: str, size: int) -> None:
    """The hash is that of all bytes, for both algorithms, whether the file is smaller or larger than a step."""
    data = Random(size).randbytes(size)
    file = await place.files.open(await place.write("a", data))
    assert await file.hash(algorithm) == Digest.of(data, algorithm)
    file.close()


async def test_stat_in_bulk(place: Place) -> None:
    """Many states are told at once, None for what is absent or a directory; equal until the content changes."""
    a, b = await place.write("a", b"1"), await place.write("b", b"22")
    await place.files.make_directory(place.directory / "d")
    paths = [a, place.directory / "x", b, place.directory / "d"]
    before = await place.files.stat(paths)
    assert [each and each.size for each in before] == [1, None, 2, None]
    assert await place.files.stat(paths) == before
    file = await place.files.open(a)
    assert file.stat() == before[0]
    file.close()
    await place.write("a", b"3")
    after = await place.files.stat(paths)
    assert after[0] != before[0]
    assert after[2] == before[2]
    assert await place.files.stat([]) == []


async def test_names(place: Place) -> None:
    """A directory's names are listed sorted, files and directories."""
    await place.write("b", b"")
    await place.write("a", b"")
    await place.files.make_directory(place.directory / "c" / "d")
    assert await place.files.names(place.directory) == ["a", "b", "c"]
    assert await place.files.names(place.directory / "c") == ["d"]


async def test_free_bytes(place: Place) -> None:
    """Free room is a number for a directory, NotHere for what is absent."""
    assert await place.files.free_bytes(place.directory) > 0
    with pytest.raises(NotHere):
        await place.files.free_bytes(place.directory / "no")


# --- writing ---


async def test_writes_out_of_order(place: Place) -> None:
    """Pieces may be written in any order into a preallocated file; what was not written reads as zeros."""
    async with await place.files.create(place.directory / "t") as writer:
        await writer.preallocate(10)
        assert writer.size == 10
        await writer.write_at(6, memoryview(b"789"))
        await writer.write_at(0, bytearray(b"012"))
        await writer.preallocate(5)
        assert await writer.hash() == Digest.of(b"012\0\0\x00789\0")
        await writer.append(b"end")
        assert writer.size == 13
        await writer.commit(place.directory / "a")
        assert writer.path == place.directory / "a"
    assert await place.read(place.directory / "a") == b"012\0\0\x00789\0end"


async def test_uncommitted_vanishes(place: Place) -> None:
    """A writer that is left without commit, by itself, by an error or by cancellation, leaves nothing behind."""
    async with await place.files.create(place.directory / "t"):
        assert await place.files.names(place.directory) == ["t"]
    assert await place.files.names(place.directory) == []
    with pytest.raises(ZeroDivisionError):
        async with await place.files.create(place.directory / "t"):
            raise ZeroDivisionError
    with trio.CancelScope() as scope:
        async with await place.files.create(place.directory / "t") as writer:
            await writer.append(b"x")
            scope.cancel()
            await writer.fsync()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert await place.files.names(place.directory) == []
    await writer.discard()


async def test_discarded_writer_leaves_its_successor_alone(place: Place) -> None:
    """Discarding twice does not remove another file that has the name by then, and writing after it is refused."""
    writer = await place.files.create(place.directory / "t")
    await writer.discard()
    path = await place.write("t", b"mine")
    await writer.discard()
    assert await place.read(path) == b"mine"
    with pytest.raises(NotWritable):
        await writer.append(b"x")


async def test_commit_is_of_its_own_content(place: Place) -> None:
    """A writer whose file was removed commits nothing, neither what another writer put under its name by then."""
    writer = await place.files.create(place.directory / "t")
    await writer.append(b"mine")
    await place.files.unlink(place.directory / "t")
    with pytest.raises(NotWritable):
        await writer.commit(place.directory / "a")
    async with await place.files.create(place.directory / "t") as other:
        await other.append(b"half")
        with pytest.raises(NotWritable):
            await writer.commit(place.directory / "a")
        await writer.discard()
        assert await place.files.names(place.directory) == ["t"]
        await other.commit(place.directory / "b")
    assert await place.files.names(place.directory) == ["b"]


async def test_create_is_exclusive(place: Place) -> None:
    """A name that is taken can not be created, nor one in a directory that does not exist."""
    await place.write("a", b"")
    with pytest.raises(AlreadyThere):
        await place.files.create(place.directory / "a")
    with pytest.raises(NotWritable):
        await place.files.create(place.directory / "no" / "a")


async def test_rename(place: Place) -> None:
    """A rename replaces what had the name, across directories too; an absent file is NotHere."""
    await place.write("a", b"1")
    await place.write("b", b"2")
    await place.files.make_directory(place.directory / "d")
    await place.files.rename(place.directory / "a", place.directory / "b")
    await place.files.rename(place.directory / "b", place.directory / "d" / "c")
    assert await place.files.names(place.directory) == ["d"]
    assert await place.read(place.directory / "d" / "c") == b"1"
    with pytest.raises(NotHere):
        await place.files.rename(place.directory / "a", place.directory / "b")


async def test_make_directory(place: Place) -> None:
    """Directories are made with their parents; existing ones are no error, a file in the way is."""
    for _ in range(2):
        await place.files.make_directory(place.directory / "x" / "y")
    assert await place.files.names(place.directory / "x") == ["y"]
    await place.write("f", b"")
    with pytest.raises(NotWritable):
        await place.files.make_directory(place.directory / "f" / "g")


async def test_remove_abandoned(place: Place) -> None:
    """Files of dead writers with the prefix are removed; live ones, others, and committed ones stay."""
    await place.write(".t-dead", b"")
    await place.write("other", b"")
    async with await place.files.create(place.directory / ".t-live"):
        assert await place.files.remove_abandoned(place.directory, ".t-") == [".t-dead"]
        assert await place.files.names(place.directory) == [".t-live", "other"]


async def test_names_that_are_spared_stay(place: Place) -> None:
    """Of the files of dead writers those that are named are left, and nothing is said of them."""
    for name in (".t-1", ".t-2", ".t-3"):
        await place.write(name, b"")
    assert await place.files.remove_abandoned(place.directory, ".t-", {".t-2", "other"}) == [".t-1", ".t-3"]
    assert await place.files.names(place.directory) == [".t-2"]


async def test_what_is_left_is_taken_over(place: Place) -> None:
    """A writer that leaves lets go of its file as it is, whoever reads it; another goes on writing and commits it."""
    path = place.directory / ".t-left"
    writer = await place.files.create(path)
    await writer.append(b"half")
    reader = await writer.reader()
    for _ in range(2):
        await writer.leave()
    with pytest.raises(NotWritable):
        await writer.append(b"x")
    async with await place.files.take_over(path) as second:
        assert (second.path, second.size) == (path, 4)
        await writer.discard()  # which is closed: it is no longer its file
        await writer.leave()
        await second.append(b" and half")
        assert await second.hash() == Digest.of(b"half and half")
        assert await place.files.remove_abandoned(place.directory, ".t-") == []
        await second.commit(place.directory / "a")
    assert await place.read(place.directory / "a") == b"half and half"
    assert await reader.read_at(0, 4) == b"half"
    reader.close()


async def test_what_cannot_be_taken_over(place: Place) -> None:
    """What is held is NotWritable until its writer lets go, what is absent is NotHere; a left file can be removed."""
    path = place.directory / ".t-1"
    writer = await place.files.create(path)
    for _ in range(2):
        with pytest.raises(NotWritable):
            await place.files.take_over(path)
    await writer.leave()
    second = await place.files.take_over(path)
    with pytest.raises(NotWritable):
        await place.files.take_over(path)
    await second.discard()
    with pytest.raises(NotHere):
        await place.files.take_over(path)
    await (await place.files.create(path)).leave()
    assert await place.files.remove_abandoned(place.directory, ".t-") == [".t-1"]


async def test_only_a_regular_file_of_one_name_is_taken_over(tmp_path: Path) -> None:
    """A link, a pipe, a directory, or a file that has another name too is not written to, and stays as it is."""
    (tmp_path / "file").write_bytes(b"other's")
    (tmp_path / "soft").symlink_to(tmp_path / "file")
    (tmp_path / "hard").hardlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("soft", "hard", "file", "pipe", "."):
        with pytest.raises(NotWritable):
            await HostFiles().take_over(tmp_path / name)
    assert (tmp_path / "file").read_bytes() == b"other's"


async def test_lock_excludes(place: Place) -> None:
    """Two tasks never hold a lock file together; one that is cancelled while it waits leaves it to the others."""
    inside = 0

    async def enter() -> None:
        nonlocal inside
        async with place.files.locked(place.directory / "lock"):
            inside += 1
            assert inside == 1
            await trio.sleep(0.005)
            inside -= 1

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, place.files.locked(place.directory / "lock"):
            with trio.move_on_after(0.01) as scope:
                await enter()
            assert scope.cancelled_caught
            for _ in range(5):
                nursery.start_soon(enter)
        await enter()


@pytest.mark.parametrize(
    "operation",
    [
        lambda place: place.files.open(place.directory / "a"),
        lambda place: place.files.stat([place.directory / "a"]),
        lambda place: place.files.names(place.directory),
        lambda place: place.files.read_whole(place.directory / "a", 10),
        lambda place: place.files.create(place.directory / "t"),
        lambda place: place.files.unlink(place.directory / "a"),
        lambda place: place.files.rename(place.directory / "a", place.directory / "b"),
        lambda place: place.files.free_bytes(place.directory),
        lambda place: place.files.remove_abandoned(place.directory, "a"),
    ],
)
async def test_cancelled_before_is_not_done(place: Place, operation: Callable[[Place], Any]) -> None:
    """An operation in a cancelled scope raises Cancelled and has done nothing."""
    await place.write("a", b"1")
    with trio.CancelScope() as scope:
        scope.cancel()
        await operation(place)
    assert scope.cancelled_caught
    assert await place.files.names(place.directory) == ["a"]


async def test_reader_of_a_file_being_written(place: Place) -> None:
    """A writer's reader sees what was written, and goes on when the file is committed, removed or discarded."""
    for end in ("commit", "unlink", "discard"):
        writer = await place.files.create(place.directory / "t")
        await writer.preallocate(8)
        reader = await writer.reader()
        assert (reader.size, await reader.read_at(0, 8)) == (8, bytes(8))
        await writer.write_at(0, b"1234")
        assert await reader.read_at(0, 4) == b"1234"
        if end == "unlink":
            await place.files.unlink(place.directory / "t")
        await writer.write_at(4, b"5678")
        if end == "commit":
            await writer.commit(place.directory / "a")
        await writer.discard()
        assert await reader.read_at(2, 100) == b"345678"
        reader.close()
        with pytest.raises(Unreachable):
            await writer.reader()


async def test_hashes_while_writing(place: Place) -> None:
    """A hasher that is handed in has taken in what was written, and nothing that could not be."""
    hasher = Digest.of(b"").hasher()
    async with await place.files.create(place.directory / "t") as writer:
        await writer.write_at(0, memoryview(b"abc"), hasher)
        await writer.write_at(3, b"def", hasher)
        assert Digest.of(b"abcdef").matches(hasher)
    with pytest.raises(NotWritable):
        await writer.write_at(6, b"ghi", hasher)
    assert Digest.of(b"abcdef").matches(hasher)


@pytest.mark.parametrize(("offset", "count"), [(0, 0), (0, 1), (5, 9_000_000), (8_388_607, 2), (9_000_009, 1)])
async def test_feeds_a_part(place: Place, offset: int, count: int) -> None:
    """A hasher is fed any part, longer than a step or empty, by the writer and by whoever has the file open."""
    data = Random(2).randbytes(9_000_010)
    part = Digest.of(data[offset : offset + count])
    async with await place.files.create(place.directory / "t") as writer:
        await writer.append(data)
        with closing(await writer.reader()) as reader:
            for source in (writer, reader):
                hasher = part.hasher()
                await source.feed(hasher, offset, count)
                assert part.matches(hasher)


async def test_feeding_what_is_not_there(place: Place) -> None:
    """A part that ends beyond the file, and any part after the writer was closed, is Unreachable, never a short one."""
    async with await place.files.create(place.directory / "t") as writer:
        await writer.append(b"0123456789")
        with closing(await writer.reader()) as reader:
            for source in (writer, reader):
                for offset, count in [(5, 6), (10, 1), (11, 1)]:
                    with pytest.raises(Unreachable):
                        await source.feed(Digest.of(b"").hasher(), offset, count)
    with pytest.raises(Unreachable):
        await writer.feed(Digest.of(b"").hasher(), 0, 1)


async def test_reads_many(place: Place) -> None:
    """Many small files are read at once; None for what is absent, a directory, or too long."""
    a, b = await place.write("a", b"1"), await place.write("b", b"22")
    paths = [b, place.directory / "x", a, place.directory]
    assert await place.files.read_many(paths, 2) == [b"22", None, b"1", None]
    assert await place.files.read_many(paths, 1) == [None, None, b"1", None]


async def test_contents(place: Place) -> None:
    """A directory's files are told with their states, as one by one; directories in it are not, absent is NotHere."""
    paths = [await place.write(name, name.encode() * 3) for name in ("b", "a")]
    await place.files.make_directory(place.directory / "d" / "e")
    stats = await place.files.stat(paths)
    assert await place.files.contents(place.directory) == {"b": stats[0], "a": stats[1]}
    assert await place.files.contents(place.directory / "d") == {}
    with pytest.raises(NotHere):
        await place.files.contents(place.directory / "no")


async def test_marks_of_directories(place: Place) -> None:
    """A directory's mark stays while its names do, and changes when one comes, is replaced or goes; None: absent."""
    await place.write("a", b"1")
    directories = [place.directory, place.directory / "no"]
    seen = [await place.files.marks(directories)]
    assert seen == [await place.files.marks(directories)]
    assert seen[0][1] is None
    for change in (place.write("b", b""), place.write("b", b"2"), place.files.unlink(place.directory / "b")):
        await trio.sleep(0.02)  # a tick of the kernel's clock
        await change
        seen.append(await place.files.marks(directories))
        assert seen[-1][0] != seen[-2][0]


async def test_touch(place: Place) -> None:
    """A touched file has the time that was said and is otherwise as it was; what is absent is passed by."""
    path = await place.write("a", b"1")
    (before,) = await place.files.stat([path])
    await place.files.touch({place.directory / "no": 1.0, path: 1_000_000.5})
    (after,) = await place.files.stat([path])
    assert before is not None
    assert after is not None
    assert (after.size, after.inode, after.mtime_ns) == (before.size, before.inode, 1_000_000_500_000_000)


# --- this host alone ---


async def test_host_file_that_shrinks(tmp_path: Path) -> None:
    """A file that becomes shorter while it is open is Unreachable, for reads and for hashes, not silently short."""
    path = tmp_path / "a"
    path.write_bytes(b"x" * 5000)
    file = await HostFiles().open(path)
    os.truncate(path, 100)
    with pytest.raises(Unreachable):
        await file.read_at(50, 100)
    with pytest.raises(Unreachable):
        await file.hash()
    file.close()


async def test_host_file_that_grows(tmp_path: Path) -> None:
    """A file that grows while it is open keeps the length that it had."""
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    file = await HostFiles().open(path)
    with path.open("ab") as more:
        more.write(b"678")
    assert (file.size, await file.read_at(0, 100), await file.hash()) == (5, b"12345", Digest.of(b"12345"))
    file.close()


async def test_host_special_files(tmp_path: Path) -> None:
    """A pipe or a directory in place of a file is NotHere at once and does not hold up the loop."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with trio.fail_after(5), pytest.raises(NotHere):
            await HostFiles().open(path)


async def test_host_descriptor(tmp_path: Path) -> None:
    """An open file shows its descriptor for sendfile; a closed one shows none and reads no other file's bytes."""
    (tmp_path / "a").write_bytes(b"aaa")
    file = await HostFiles().open(tmp_path / "a")
    number = file.fileno()
    assert number is not None
    assert os.pread(number, 3, 0) == b"aaa"
    file.close()
    assert file.fileno() is None
    with (tmp_path / "b").open("wb") as other:  # most likely has the same number
        other.write(b"bbb")
        other.flush()
        with pytest.raises(Unreachable):
            await file.read_at(0, 3)
        with pytest.raises(Unreachable):
            await file.hash()
        with pytest.raises(Unreachable):
            file.stat()


def test_host_descriptor_closes_after_its_last_user(tmp_path: Path) -> None:
    """Closing while a thread reads closes the descriptor when that thread has finished, and not before."""
    number = os.open(tmp_path, os.O_RDONLY)
    descriptor = Descriptor(number)
    with descriptor.used():
        with descriptor.used():
            descriptor.close()
        os.fstat(number)
    with pytest.raises(OSError):
        os.fstat(number)


async def test_host_hash_can_be_cancelled(tmp_path: Path) -> None:
    """A hash that waits for its turn can be cancelled, and the next one succeeds."""
    limiters = Limiters(hashing=1)
    (tmp_path / "a").write_bytes(b"abc")
    file = await HostFiles(limiters).open(tmp_path / "a")
    async with limiters.hashing:
        with trio.move_on_after(0.02) as scope:
            await file.hash()
    assert scope.cancelled_caught
    assert await file.hash() == Digest.of(b"abc")
    file.close()


async def test_host_read_only_directory_names(tmp_path: Path) -> None:
    """What the kernel refuses to a writer is NotWritable with the path and the kernel's words."""
    with pytest.raises(NotWritable, match="/proc/"):
        await HostFiles().create(Path("/proc/p2pmirror-can-not-be"))


async def test_host_lock_excludes_other_instances(tmp_path: Path) -> None:
    """A lock holds against another instance, as against another process."""
    async with HostFiles().locked(tmp_path / "lock"):
        with trio.move_on_after(0.05) as scope:
            async with HostFiles().locked(tmp_path / "lock"):
                raise AssertionError
    assert scope.cancelled_caught


# --- the twin alone: faults ---


async def memory_place(**faults: Any) -> tuple[MemoryFiles, Path]:
    files = MemoryFiles(**faults)
    await files.make_directory(Path("/s"))
    return files, Path("/s")


async def test_memory_full_disk() -> None:
    """A full disk raises StoreFull; room comes back when the file is discarded or unlinked."""
    files, directory = await memory_place(bytes_free=10)
    async with await files.create(directory / "t") as writer:
        await writer.append(b"12345678")
        with pytest.raises(StoreFull):
            await writer.append(b"901")
        with pytest.raises(StoreFull):
            await writer.preallocate(11)
        assert await files.free_bytes(directory) == 2
        await writer.commit(directory / "a")
    await files.unlink(directory / "a")
    assert await files.free_bytes(directory) == 10


async def test_memory_read_only_and_unreadable() -> None:
    """On a read-only disk nothing changes; what is unreadable is Unreachable; both end when the test says so."""
    files, directory = await memory_place()
    files.put(directory / "a", b"1")
    files.read_only = True
    files.unreadable.add(directory / "a")
    with pytest.raises(NotWritable):
        await files.create(directory / "t")
    with pytest.raises(NotWritable):
        await files.unlink(directory / "a")
    with pytest.raises(Unreachable):
        await files.open(directory / "a")
    files.unreadable.clear()
    assert await files.read_whole(directory / "a", 1) == b"1"


@pytest.mark.parametrize("seed", range(30))
async def test_memory_crash_keeps_what_was_committed(seed: int) -> None:
    """Whatever a crash tears, committed names have their committed content, and others the old or the new one."""
    files, directory = await memory_place()
    place = Place(files, directory)
    await place.write("a", b"old")
    await place.write("b", b"kept")
    writer = await files.create(directory / "t")
    await writer.append(b"new content")
    await writer.fsync()
    await files.take_name(directory / "t", directory / "a")
    loose = await files.create(directory / "loose")
    await loose.append(b"never synced")
    files.crash(Random(seed))
    assert files.get(directory / "a") in {b"old", b"new content"}
    assert files.get(directory / "b") == b"kept"
    assert files.get(directory / "loose") != b"else"
    with pytest.raises(NotWritable):
        await writer.append(b"from before the crash")


async def test_memory_crash_really_loses() -> None:
    """Over many crashes, unsynced content is lost in some, torn in some and kept in some."""
    outcomes = set()
    for seed in range(60):
        files, directory = await memory_place()
        writer = await files.create(directory / "t")
        await writer.append(b"abcdef")
        files.crash(Random(seed))
        outcomes.add(files.get(directory / "t"))
    assert {None, b"", b"abcdef", bytes(6)} < outcomes


async def test_memory_power_off() -> None:
    """After the given number of operations nothing works any more, until the crash is over."""
    files, directory = await memory_place()
    files.power_off_after(2)
    await files.names(directory)
    await files.names(directory)
    for _ in range(2):
        with pytest.raises(PowerOff):
            await files.names(directory)
    files.crash(Random(1))
    assert await files.names(directory) == []

"""Files, cancelled anywhere: a name has its old content or its new one, and no descriptor, lock or rest is left."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio

from p2pmirror.errors import NotHere
from p2pmirror.oci import Digest
from p2pmirror.store.files import Files
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.layered import LayeredStore
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.store.ocilayout import LayoutWriter, OciLayoutStore
from tests.cancellation import cancel_at_every_checkpoint
from tests.store.images import make_image
from tests.store.test_ocilayout import write

OLD, NEW = b"old" * 1000, b"new" * 100_000


def open_descriptors() -> set[str]:
    """Return the files that this process has open."""
    return {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists()}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Make a directory in memory where there is one: what is put on the disk some hundred times takes no time there."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture(params=["host", "memory"])
def files(request: pytest.FixtureRequest) -> Files:
    return HostFiles() if request.param == "host" else MemoryFiles()


async def test_replacing_a_file(files: Files, tmp_path: Path) -> None:
    """Made, filled, read, hashed, synced and named: wherever that ends, the name has all of the old or of the new."""
    directory = tmp_path / "store"
    await files.make_directory(directory)

    async def replace() -> None:
        async with await files.create(directory / ".incoming-1") as writer:
            await writer.preallocate(len(NEW))
            await writer.write_at(0, NEW[:100])
            await writer.write_at(100, NEW[100:])
            with closing(await writer.reader()) as reader:
                assert await reader.read_at(0, 3) == b"new"
                assert await reader.hash() == Digest.of(NEW)
                await reader.feed(hasher := Digest.of(b"").hasher(), 0, 100)
            await writer.feed(hasher, 100, len(NEW) - 100)
            assert Digest.of(NEW).matches(hasher)
            assert await writer.hash() == Digest.of(NEW)
            await writer.fsync()
            await writer.commit(directory / "name")

    async def check() -> None:
        assert set(await files.names(directory)) <= {"name"}
        try:
            assert await files.read_whole(directory / "name", len(NEW)) in {OLD, NEW}
        except NotHere:
            assert not renewed, "a name that was there is there"
        renewed.append(True)
        async with await files.create(directory / ".incoming-2") as writer:
            await writer.append(OLD)
            await writer.commit(directory / "name")

    renewed: list[bool] = []
    before = open_descriptors()
    assert await cancel_at_every_checkpoint(replace, check) >= 8
    assert open_descriptors() == before


async def test_everything_else_that_is_asked_of_files(files: Files, tmp_path: Path) -> None:
    """Looking, opening, renaming, touching, locking and removing, cancelled anywhere, leave nothing open or locked."""
    directory = tmp_path / "a" / "store"
    names = ["one", "two"]

    async def use() -> None:
        await files.make_directory(directory)
        async with files.locked(directory / "lock"):
            async with await files.create(directory / "one") as writer:
                await writer.append(OLD)
                await writer.commit(directory / "two")
            await files.rename(directory / "two", directory / "one")
        with closing(await files.open(directory / "one")) as file:
            assert await file.read_at(0, len(OLD)) == OLD
            assert await file.hash() == Digest.of(OLD)
        paths = [directory / name for name in names]
        assert await files.read_many(paths, len(OLD)) == [OLD, None]
        assert [state is None for state in await files.stat(paths)] == [False, True]
        await files.touch({directory / "one": 1000.0})
        assert await files.names(directory) == ["lock", "one"]
        assert (await files.contents(directory))["one"].size == len(OLD)
        assert await files.marks([directory]) != [None]
        assert await files.free_bytes(directory) > 0
        writer = await files.take_over(directory / "one")
        try:
            await writer.write_at(0, OLD)
        finally:
            await writer.leave()
        assert await files.remove_abandoned(directory, ".incoming") == []
        await files.unlink(directory / "one")

    async def check() -> None:
        await files.make_directory(directory)
        if "one" in await files.names(directory):
            await (await files.take_over(directory / "one")).leave()  # nobody holds it
        with trio.fail_after(5):
            async with files.locked(directory / "lock"):
                left = await files.names(directory)
        assert set(left) <= {"lock", *names}
        for name in names:
            if name in left and name == "one":
                assert await files.read_whole(directory / name, len(OLD)) == OLD
            await files.unlink(directory / name)

    before = open_descriptors()
    assert await cancel_at_every_checkpoint(use, check) >= 12
    assert open_descriptors() == before


async def test_opening_what_another_part_holds(files: Files, tmp_path: Path) -> None:
    """Asking part after part of a layered store, cancelled anywhere, leaves no file open and each part usable."""
    image = make_image(layer_bytes=(10,), with_index=False)
    await LayoutWriter(tmp_path / "first", files).prepare()
    await write(LayoutWriter(tmp_path / "second", files), image)
    stores: list[LayeredStore] = []

    async def open_one() -> None:
        stores.append(LayeredStore([OciLayoutStore(tmp_path / name, files) for name in ("first", "second")]))
        with await stores[-1].open(image.root.digest) as blob:
            await blob.file.read_at(0, 10)

    async def check() -> None:
        with await stores[-1].open(image.root.digest) as blob:
            assert await blob.file.read_at(0, blob.file.size) == image.content[image.root.digest][0]

    before = open_descriptors()
    assert await cancel_at_every_checkpoint(open_one, check) >= 3
    assert open_descriptors() == before

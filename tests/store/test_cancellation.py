"""Whatever waits for a disk can be cancelled anywhere, and leaves the store as it was."""

from pathlib import Path

import pytest

from p2pmirror.oci import Digest
from p2pmirror.store.files import Files
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.store.ocilayout import LayoutWriter, OciLayoutStore
from p2pmirror.store.ocilayout.index import blob_path, read_roots
from tests.cancellation import cancel_at_every_checkpoint
from tests.store.images import make_image
from tests.store.test_ocilayout import write


@pytest.fixture(params=["host", "memory"])
def files(request: pytest.FixtureRequest) -> Files:
    return HostFiles() if request.param == "host" else MemoryFiles()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_writing_a_layout(files: Files, tmp_path: Path) -> None:
    """Writing an image, cancelled anywhere, leaves whole blobs, a readable index, no rest and no lock."""
    image = make_image(layer_bytes=(10,), with_index=False)
    directory = tmp_path / "layout"
    await LayoutWriter(directory, files).prepare()

    async def check() -> None:
        assert not [name for name in await files.names(directory) if name.startswith(".incoming")]
        read_roots(await files.read_whole(directory / "index.json", 10_000))
        for digest in image.content:
            if (await files.stat([blob_path(directory, digest)]))[0] is not None:
                assert Digest.of(await files.read_whole(blob_path(directory, digest), 10_000)) == digest
        async with files.locked(directory / "index.json.lock"):
            pass

    open_before = open_descriptors()
    cancelled = await cancel_at_every_checkpoint(lambda: write(LayoutWriter(directory, files), image), check)
    assert cancelled > 10
    assert open_descriptors() == open_before


async def test_opening_an_unverified_blob(files: Files, tmp_path: Path) -> None:
    """Opening and hashing a blob, cancelled anywhere, leaves a store that opens it the next time."""
    image = make_image(layer_bytes=(10,), with_index=False)
    await write(LayoutWriter(tmp_path, files), image)
    stores = []

    async def open_one() -> None:
        stores.append(OciLayoutStore(tmp_path, files))
        with await stores[-1].open(image.root.digest) as blob:
            await blob.file.read_at(0, 10)

    async def check() -> None:
        with await stores[-1].open(image.root.digest) as blob:
            assert await blob.file.read_at(0, blob.file.size) == image.content[image.root.digest][0]

    assert await cancel_at_every_checkpoint(open_one, check) >= 2

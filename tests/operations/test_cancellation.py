"""Commands on a cache, cancelled anywhere, as by an interrupt: whole blobs, no rest, and a second try works."""

from pathlib import Path

from p2pmirror.oci import Digest
from p2pmirror.operations.adding import add
from p2pmirror.operations.holdings import holdings, remove, verify
from p2pmirror.store.cache import CacheOptions, CacheStore
from p2pmirror.store.memoryfiles import MemoryFiles
from tests.cancellation import cancel_at_every_checkpoint
from tests.operations.archives import layout, tar
from tests.store.images import make_image
from tests.store_cache.setting import DIRECTORY, content, keep_image, listed

IMAGE = make_image(layer_bytes=(300, 700), with_index=False)


async def whole(store: CacheStore, files: MemoryFiles) -> None:
    assert not [path for path in files.entries if path.name.startswith(".incoming")]
    assert store._room.reserved_bytes == 0
    for digest in listed(store):
        assert Digest.of(await content(store, digest)) == digest


async def test_adding_an_archive(tmp_path: Path) -> None:
    """What was added before the interrupt is whole, the tag comes last, and the same command works afterwards."""
    path = tar(tmp_path / "a.tar", layout(IMAGE))
    files = MemoryFiles()
    store = CacheStore(DIRECTORY, files, CacheOptions(free_bytes_min=0))
    await store.look()

    async def add_it() -> None:
        await add(store, path, name=None, pin=True, reading=lambda _: None, writing=lambda _: None)

    async def check() -> None:
        await whole(store, files)
        if store.inventory.tag(IMAGE.tags[0]) is not None:
            assert listed(store) == set(IMAGE.content)
        for pin in store.pins:
            await store.unpin(pin)
        await store.remove(listed(store))
        await store.forget_tag(IMAGE.tags[0])

    assert await cancel_at_every_checkpoint(add_it, check) > 10


async def test_looking_through_removing_and_verifying() -> None:
    """Interrupted anywhere, what is listed is whole, and what was to go goes the next time."""
    files = MemoryFiles()
    store = CacheStore(DIRECTORY, files, CacheOptions(free_bytes_min=0))
    await keep_image(store, IMAGE)
    await store.look()

    async def use() -> None:
        assert (await holdings(store, 0.0))["blobs"]
        assert (await verify(store, lambda _: None, remove=True))[1] == []
        await remove(store, [IMAGE.tags[0], *IMAGE.content])

    async def check() -> None:
        await whole(store, files)
        await keep_image(store, IMAGE)
        assert listed(store) == set(IMAGE.content)

    assert await cancel_at_every_checkpoint(use, check) > 5

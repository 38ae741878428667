"""A cache, cancelled anywhere: no rest, no room held, no lock, and what is listed is whole."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pmirror.oci import Digest
from p2pmirror.store.cache import CacheStore
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.memoryfiles import MemoryFiles
from tests.cancellation import cancel_at_every_checkpoint
from tests.store.images import make_image
from tests.store_cache.setting import DIRECTORY, content, keep, keep_image, listed, looked, store_on, tag_info

IMAGE = make_image(layer_bytes=(10, 20), with_index=False)
DATA = bytes(range(256)) * 10


async def sound(store: CacheStore) -> None:
    """Assert that nothing is half done: nobody writes, nothing is reserved or open, every listed blob is right."""
    place = store._directory
    if await place._files.marks([place.places.root]) != [None]:  # else nothing has been written yet
        names = await place._files.names(place.places.root)
        assert not [name for name in names if name.startswith(".incoming")]
    assert store._room.reserved_bytes == 0
    assert not any(entry.is_open for entry in store.entries)
    for digest in listed(store):
        assert Digest.of(await content(store, digest)) == digest
    await store.look()
    assert store.held_bytes == sum(info.size for info in store.inventory.blobs())


@pytest.fixture(params=["host", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> CacheStore:
    if request.param == "host":
        return await looked(HostFiles(), directory=tmp_path / "cache")
    return await looked(MemoryFiles())


async def test_receiving_and_reading_meanwhile(store: CacheStore) -> None:
    """A blob that arrives and is read while it does, cancelled anywhere, is whole or absent afterwards."""
    digest = Digest.of(DATA)

    async def receive() -> None:
        async with await store.receive(digest, len(DATA), None, "registry.example/app") as incoming:
            await incoming.write(DATA[:1000])
            with closing(await incoming.reader()) as reader:
                assert await reader.read_at(0, 1000) == DATA[:1000]
            await incoming.write(DATA[1000:])
            assert await incoming.is_right()
            await incoming.keep()
        with await store.open(digest) as blob:
            await blob.file.read_at(0, 10)

    async def check() -> None:
        await sound(store)
        await store.remove([digest])

    assert await cancel_at_every_checkpoint(receive, check) > 5


async def test_receiving_out_of_order(store: CacheStore) -> None:
    """Parts that were put, caught up with and read back, cancelled anywhere, count once: whole, or absent."""
    digest = Digest.of(DATA)

    async def receive() -> None:
        async with await store.receive(digest, len(DATA), None, "registry.example/app") as incoming:
            await incoming.put(1000, DATA[1000:2000])
            with trio.move_on_after(0) as hasty:
                await incoming.put(2000, DATA[2000:])
            if hasty.cancelled_caught:
                await incoming.put(2000, DATA[2000:])
            await incoming.write(DATA[:1000])
            with trio.move_on_after(0) as hasty:
                await incoming.catch_up(2000)
            assert incoming.written == (1000 if hasty.cancelled_caught else 2000)
            await incoming.catch_up(len(DATA))
            hasher = digest.hasher()
            await incoming.feed(hasher, 0, len(DATA))
            assert digest.matches(hasher)
            assert await incoming.is_right()
            await incoming.keep()

    async def check() -> None:
        await sound(store)
        await store.remove([digest])

    assert await cancel_at_every_checkpoint(receive, check) > 5


async def test_tags_and_pins(store: CacheStore) -> None:
    """Remembering, pinning, letting go and forgetting, cancelled anywhere, leave records that are read as they are."""
    await keep_image(store, IMAGE)
    (name,) = IMAGE.tags

    async def use() -> None:
        await store.remember_tag(tag_info(name, IMAGE))
        await store.pin(str(name))
        assert [entry.digest for entry in await store.reach(tag_info(name, IMAGE))]
        await store.unpin(str(name))
        await store.forget_tag(name)

    async def check() -> None:
        await sound(store)
        assert listed(store) == set(IMAGE.content)
        assert store.pins <= {str(name)}
        await store.unpin(str(name))
        assert not store.pins

    assert await cancel_at_every_checkpoint(use, check) > 5


async def test_removing(store: CacheStore) -> None:
    """Removing blobs or a whole image, and verifying, cancelled anywhere, leave whole blobs only."""
    (name,) = IMAGE.tags
    await store.look()

    async def use() -> None:
        await store.verify(IMAGE.layers[0])
        await store.remove([IMAGE.layers[0]])
        await store.remove_image(name)

    async def check() -> None:
        await sound(store)
        await keep_image(store, IMAGE)
        assert listed(store) == set(IMAGE.content)

    await keep_image(store, IMAGE)
    assert await cancel_at_every_checkpoint(use, check) > 3


async def test_the_first_look(autojump_clock: Any) -> None:
    """Taking over a directory, strange files included, cancelled anywhere, is made up for by the next look."""
    files = MemoryFiles()
    first = await looked(files)
    await keep_image(first, IMAGE)
    stores: list[CacheStore] = []

    async def look() -> None:
        stores.append(store_on(files))
        await stores[-1].look()
        await stores[-1].adopt()

    async def check() -> None:
        await stores[-1].look()
        await stores[-1].adopt()
        assert listed(stores[-1]) == set(IMAGE.content)
        await sound(stores[-1])
        record = DIRECTORY / "facts" / "sha256" / IMAGE.layers[0].hex
        await files.unlink(record)  # so that the next one has to hash it

    assert await cancel_at_every_checkpoint(look, check) > 5


async def test_making_room() -> None:
    """Evicting for a newcomer, cancelled anywhere, holds no room and keeps no more than is allowed."""
    store = await looked(MemoryFiles(), bytes_max=10_000)
    number = iter(range(10_000))

    async def fill() -> None:
        for _ in range(3):
            await keep(store, next(number).to_bytes(4, "big") * 1000)

    async def check() -> None:
        await sound(store)
        assert store.held_bytes <= 10_000

    assert await cancel_at_every_checkpoint(fill, check) > 5


async def test_trying_whether_it_can_be_written(store: CacheStore) -> None:
    """A try that is cancelled anywhere leaves no file behind."""

    async def check() -> None:
        await sound(store)

    assert await cancel_at_every_checkpoint(store.probe, check) > 0

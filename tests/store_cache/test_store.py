"""The cache keeps the laws of stores, on real files and in memory, and those of what can be written to."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock as Clock

from p2pmirror.errors import NotHere, StoreFull
from p2pmirror.oci import Digest, TagName, mediatype
from p2pmirror.store.cache import CacheHooks, CacheMetrics, CacheOptions, CacheStore
from p2pmirror.store.files import Files
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.memoryfiles import MemoryFiles
from tests.store.conformance import StoreConformance
from tests.store.images import Image, make_image
from tests.store_cache.setting import (
    DIRECTORY,
    NAME,
    content,
    keep,
    keep_image,
    listed,
    looked,
    rests,
    store_on,
    tag_info,
)

LAYER = bytes(range(256)) * 300


class CacheWorld:
    """A running cache; images come into it as by pulls, and go as by `cache remove`."""

    settle_s = 3.0

    def __init__(self, directory: Path, files: Files) -> None:
        self.store = store_on(files, directory, poll_s=0.02, walk_s_min=0.0)

    async def put(self, image: Image) -> None:
        await keep_image(self.store, image)

    async def remove(self, image: Image) -> None:
        for tag in image.tags:
            await self.store.remove_image(tag)


class TestOnHostFiles(StoreConformance):
    """See the suite."""

    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[CacheWorld]:
        async with trio.open_nursery() as nursery:
            world = CacheWorld(tmp_path / "cache", HostFiles())
            await nursery.start(world.store.run)
            yield world
            nursery.cancel_scope.cancel()


class TestOnMemoryFiles(StoreConformance):
    """See the suite."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[CacheWorld]:
        async with trio.open_nursery() as nursery:
            world = CacheWorld(DIRECTORY, MemoryFiles())
            await nursery.start(world.store.run)
            yield world
            nursery.cancel_scope.cancel()


@pytest.fixture(params=["host", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> CacheStore:
    if request.param == "host":
        return await looked(HostFiles(), directory=tmp_path / "cache")
    return await looked(MemoryFiles())


# --- receiving ---


async def test_what_is_received_can_be_read_before_it_is_whole(store: CacheStore) -> None:
    """A reader has the whole length at once, the bytes as they come, and all of them after the blob was kept."""
    digest = Digest.of(LAYER)
    async with await store.receive(digest, len(LAYER), mediatype.OCI_LAYER, NAME) as incoming:
        reader = await incoming.reader()
        assert (reader.size, incoming.size, incoming.written) == (len(LAYER), len(LAYER), 0)
        await incoming.write(LAYER[:1000])
        assert incoming.written == 1000
        assert await reader.read_at(10, 990) == LAYER[10:1000]
        assert digest not in listed(store)
        with pytest.raises(NotHere):
            await store.open(digest)
        await incoming.write(memoryview(LAYER)[1000:])
        await incoming.keep()
        await incoming.keep()
        late = await incoming.reader()
    assert digest in listed(store)
    for each in (reader, late):
        assert await each.read_at(0, len(LAYER)) == LAYER
        each.close()
    info = store.inventory.blob(digest)
    assert info is not None
    assert (info.size, info.media_type, info.names) == (len(LAYER), mediatype.OCI_LAYER, {NAME})


async def test_wrong_bytes_are_not_kept(store: CacheStore) -> None:
    """Too few, too many, or other bytes than announced: nothing is kept, nothing listed, and the room is free again."""
    digest = Digest.of(LAYER)
    async with await store.receive(digest, len(LAYER), None, NAME) as incoming:
        await incoming.write(LAYER[:-1])
        assert not await incoming.is_right()
        with pytest.raises(ValueError, match="is not what was received"):
            await incoming.keep()
        with pytest.raises(ValueError, match="more than"):
            await incoming.write(b"12")
        await incoming.write(b"x")
        assert not await incoming.is_right()
        with pytest.raises(ValueError, match="is not what was received"):
            await incoming.keep()
    assert not listed(store)
    with pytest.raises(NotHere):
        await store.open(digest)
    with pytest.raises(ValueError, match="is not what"):
        await store.keep_document(digest, mediatype.OCI_MANIFEST, b"{}", NAME)
    assert not listed(store)


@pytest.mark.parametrize("size", [0, 1])
async def test_tiny_blobs(store: CacheStore, size: int) -> None:
    """A blob of no byte or of one is a blob."""
    data = b"x" * size
    digest = await keep(store, data)
    assert await content(store, digest) == data


async def test_sha512(store: CacheStore) -> None:
    """A blob may be named by the other algorithm too."""
    digest = Digest.of(LAYER, "sha512")
    async with await store.receive(digest, len(LAYER), None, NAME) as incoming:
        await incoming.write(LAYER)
        await incoming.keep()
    assert await content(store, digest) == LAYER
    assert await store.verify(digest)


async def test_same_blob_twice_at_once(store: CacheStore) -> None:
    """Two who receive one blob for two images do not harm one another; it is held once and has both names."""
    digest = Digest.of(LAYER)
    first = await store.receive(digest, len(LAYER), None, NAME)
    second = await store.receive(digest, len(LAYER), mediatype.OCI_LAYER, "registry.example/other")
    async with first, second:
        for each in (first, second):
            await each.write(LAYER)
        await first.keep()
        await second.keep()
    info = store.inventory.blob(digest)
    assert info is not None
    assert (info.names, info.media_type) == ({NAME, "registry.example/other"}, mediatype.OCI_LAYER)
    assert store.held_bytes == len(LAYER)
    assert await content(store, digest) == LAYER


# --- what survives a restart ---


@pytest.mark.parametrize("kind", ["host", "memory"])
async def test_everything_survives_a_restart(kind: str, tmp_path: Path) -> None:
    """After a restart all is listed as before: sizes, types, names, tags, confirmed or not, and referrers."""
    files, directory = (HostFiles(), tmp_path) if kind == "host" else (MemoryFiles(), DIRECTORY)
    image = make_image()
    signature = make_image("registry.example/app:sig", seed=2, layer_bytes=(9,), with_index=False, subject=image.root)
    before = await looked(files, directory=directory)
    await keep_image(before, image)
    await keep_image(before, signature)
    local = TagName.parse("registry.example/app:local")
    await before.remember_tag(tag_info(local, image, confirmed=False))
    after = await looked(files, directory=directory)
    assert {info.digest: info for info in after.inventory.blobs()} == {
        info.digest: info for info in before.inventory.blobs()
    }
    for name in (*image.tags, *signature.tags, local):
        old, new = before.inventory.tag(name), after.inventory.tag(name)
        assert old is not None
        assert new is not None
        assert (new.digest, new.media_type, new.size, new.confirmed) == (
            old.digest,
            old.media_type,
            old.size,
            name != local,
        )
        assert new.since == pytest.approx(old.since, abs=1)
    assert after.inventory.referrers(image.root.digest) == before.inventory.referrers(image.root.digest)
    assert len(after.inventory.referrers(image.root.digest)) == 1
    assert after.held_bytes == before.held_bytes == sum(info.size for info in after.inventory.blobs())


async def test_names_reach_shared_layers_whatever_comes_first(store: CacheStore) -> None:
    """A layer that two images share has both names, though it was fetched for the first one alone."""
    first, second = make_image("registry.example/a:1"), make_image("registry.example/b:1")
    await keep_image(store, first)
    for digest, (data, media_type) in second.content.items():
        if mediatype.describes(media_type):
            await store.keep_document(digest, media_type, data, "registry.example/b")
    info = store.inventory.blob(first.layers[0])
    assert info is not None
    assert info.names == {"registry.example/a", "registry.example/b"}


async def test_types_come_from_manifests_that_came_before(store: CacheStore) -> None:
    """A blob that is received without a type has the one that a manifest gave it, which was kept before it."""
    image = make_image(with_index=False)
    await store.keep_document(image.root.digest, image.root.media_type, image.content[image.root.digest][0], NAME)
    for digest in image.layers:
        await keep(store, image.content[digest][0], media_type=None)
        info = store.inventory.blob(digest)
        assert info is not None
        assert info.media_type == image.content[digest][1]


async def test_tags_are_listed_while_what_they_name_is_held(store: CacheStore) -> None:
    """A tag of something that is not here is remembered, not listed; it is listed when that comes, until forgotten."""
    image = make_image(with_index=False)
    (tag,) = image.tags
    await store.remember_tag(tag_info(tag, image))
    assert store.inventory.tag(tag) is None
    remembered = store.remembered(tag)
    assert remembered is not None
    assert remembered.digest == image.root.digest
    await keep_image(store, image)
    assert store.inventory.tag(tag) is not None
    await store.remove([image.root.digest])
    assert store.inventory.tag(tag) is None
    await keep_image(store, image)
    await store.forget_tag(tag)
    assert store.inventory.tag(tag) is None
    assert store.remembered(tag) is None
    assert image.root.digest in listed(store)


async def test_a_confirmation_renews_a_tag(autojump_clock: Clock) -> None:
    """A tag that is confirmed again has the new time, here at once and after a restart to a minute; nobody is woken."""
    files = MemoryFiles()
    store = await looked(files)
    image = make_image()
    await keep_image(store, image)
    version = store.inventory.version
    for _ in range(3):
        await trio.sleep(50)
        await store.remember_tag(tag_info(image.tags[0], image))
        tag = store.inventory.tag(image.tags[0])
        assert tag is not None
        assert tag.since == trio.current_time()
    assert store.inventory.version == version
    again = (await looked(files)).inventory.tag(image.tags[0])
    assert again is not None


async def test_a_directory_that_cannot_be_written_is_said_before_anything_is_fetched(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is trouble from the start, logged once, no reason for not being ready, and over when it can be written."""
    files, registry = MemoryFiles(), CollectorRegistry()
    files.read_only = True
    store = CacheStore(DIRECTORY, files, CacheOptions(), CacheHooks(), CacheMetrics(registry))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await trio.sleep(400)
        assert store.trouble is not None
        assert store.waiting_for is None
        assert registry.get_sample_value("p2pmirror_cache_troubles") == 1
        assert [record.levelname for record in caplog.records if "cannot write" in record.getMessage()] == ["WARNING"]
        files.read_only = False
        await trio.sleep(70)
        assert store.trouble is None
        assert registry.get_sample_value("p2pmirror_cache_troubles") == 0
        nursery.cancel_scope.cancel()
    assert not rests(files)


async def test_full_is_said_and_lasts_no_longer_than_it_is_so() -> None:
    """A full or read-only disk raises StoreFull and is said in plain words; what is held is served meanwhile."""
    files = MemoryFiles()
    store = await looked(files, age_s_min=120.0)
    digest = await keep(store, LAYER)
    for fault in ("full", "read-only"):
        files.bytes_free, files.read_only = (10, False) if fault == "full" else (None, True)
        with pytest.raises(StoreFull):
            await keep(store, b"more" * 100)
        assert store.trouble is not None
        assert store.waiting_for is None
        assert await content(store, digest) == LAYER
        assert not rests(files)
        files.bytes_free, files.read_only = None, False
        await keep(store, fault.encode())
        await store.look()
        assert store.trouble is None

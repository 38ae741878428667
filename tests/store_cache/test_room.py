"""Room in the cache: reserved, made, kept free; who goes when, and who never does."""

from collections.abc import AsyncIterator

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock as Clock

from p2pmirror.errors import NotHere, StoreFull
from p2pmirror.oci import Digest
from p2pmirror.store.cache import CacheHooks, CacheMetrics, CacheStore
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.telemetry.metrics import lint
from tests.store.images import make_image
from tests.store_cache.setting import DIRECTORY, Day, content, keep, keep_image, listed, looked, options, rests

KIB = 1024


def kib(number: int, count: int = 10) -> bytes:
    return bytes([number]) * (count * KIB)


async def test_the_least_used_goes_first(autojump_clock: Clock) -> None:
    """When there is no more room the blob that was asked for longest ago goes, down to the low mark and no further."""
    store = await looked(MemoryFiles(), bytes_max=100 * KIB, hooks=CacheHooks(wall_s=Day()))
    digests = []
    for number in range(9):
        digests.append(await keep(store, kib(number)))
        await trio.sleep(1)
    await content(store, digests[0])
    await trio.sleep(1)
    new = await keep(store, kib(9))
    assert listed(store) == {digests[0], *digests[3:], new}
    with pytest.raises(NotHere):
        await store.open(digests[1])


async def test_two_at_once_never_have_the_same_room() -> None:
    """While one blob that fills the cache is arriving the next one is refused, until the first gives its room back."""
    store = await looked(MemoryFiles(), bytes_max=100 * KIB)
    big = kib(1, 60)
    async with await store.receive(Digest.of(big), len(big), None, ""):
        with pytest.raises(StoreFull, match="in use, pinned or came just now"):
            await store.receive(Digest.of(b"2"), len(big), None, "")
    other = kib(2, 60)
    async with await store.receive(Digest.of(other), len(other), None, "") as incoming:
        await incoming.write(other)
        await incoming.keep()
        async with await store.receive(Digest.of(b"3"), 30 * KIB, None, ""):
            pass
    assert listed(store) == {Digest.of(other)}


async def test_what_is_larger_than_the_cache_changes_nothing() -> None:
    """A blob that can never fit is refused at once, and nothing has gone for it."""
    store = await looked(MemoryFiles(), bytes_max=100 * KIB)
    digest = await keep(store, kib(1))
    with pytest.raises(StoreFull, match="more than the cache may have"):
        await store.receive(Digest.of(b"big"), 101 * KIB, None, "")
    assert listed(store) == {digest}


async def test_what_is_open_or_young_stays(autojump_clock: Clock) -> None:
    """A blob that somebody reads is not evicted, nor one that has just come; then nothing else goes in vain either."""
    store = await looked(MemoryFiles(), bytes_max=100 * KIB, age_s_min=60.0, hooks=CacheHooks(wall_s=Day()))
    old = await keep(store, kib(1, 40))
    await trio.sleep(61)
    young = await keep(store, kib(2, 40))
    with await store.open(old), await store.open(old):
        with pytest.raises(StoreFull):
            await keep(store, kib(3, 40))
        assert listed(store) == {old, young}
    await keep(store, kib(3, 40))
    assert old not in listed(store)
    assert young in listed(store)


async def test_the_disk_keeps_its_reserve() -> None:
    """When the disk runs low the cache makes room for its own; where that does not help it refuses."""
    files = MemoryFiles(bytes_free=200 * KIB)
    store = await looked(files, free_bytes_min=100 * KIB)
    old = await keep(store, kib(1, 60))
    files.bytes_free = 120 * KIB
    new = await keep(store, kib(2, 60))
    assert listed(store) == {new} != {old}
    files.bytes_free = 0
    with pytest.raises(StoreFull):
        await keep(store, kib(3, 90))
    assert not rests(files)


@pytest.mark.parametrize("by", ["digest", "tag", "name"])
async def test_no_layer_of_a_pinned_image_goes(by: str) -> None:
    """Whatever an image is pinned by, none of its content is evicted; unpinned, it may go."""
    files = MemoryFiles()
    store = await looked(files, bytes_max=400 * KIB)
    image = make_image(layer_bytes=(30 * KIB, 40 * KIB))
    pin = {"digest": str(image.root.digest), "tag": str(image.tags[0]), "name": "registry.example/app"}[by]
    await store.pin(pin)
    await keep_image(store, image)
    for each in (store, await looked(files, bytes_max=400 * KIB)):
        assert each.pins == {pin}
        for number in range(30):
            await keep(each, kib(number, 100), name="")
        assert set(image.content) <= listed(each)
    await store.look()
    await store.unpin(pin)
    for number in range(30):
        await keep(store, kib(number, 100), name="")
    assert not set(image.layers) & listed(store)


@pytest.fixture
async def nursery() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


async def test_the_unused_expire(autojump_clock: Clock) -> None:
    """What nobody asked for in its time goes by itself, by its name's own rule too; last uses survive a restart."""
    files, registry = MemoryFiles(), CollectorRegistry()
    hooks = CacheHooks(
        ttl_of=lambda names: 100.0 if "short.example/a" in names else 3600.0,
        is_reachable=lambda registry: registry != "far.example",
        wall_s=Day(),
    )
    async with trio.open_nursery() as nursery:
        store = CacheStore(DIRECTORY, files, options(), hooks, CacheMetrics(registry))
        await nursery.start(store.run)
        await keep(store, b"1", "short.example/a")
        long = await keep(store, b"2")
        used = await keep(store, b"3")
        far = await keep(store, b"4", "far.example/a")
        await trio.sleep(200)
        assert listed(store) == {long, used, far}
        await trio.sleep(2000)
        await content(store, used)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        again = CacheStore(DIRECTORY, files, options(), hooks)
        await nursery.start(again.run)
        await trio.sleep(1500)
        assert listed(again) == {used, far}
        nursery.cancel_scope.cancel()
    assert registry.get_sample_value("p2pmirror_cache_evictions_total", {"reason": "expired"}) == 1.0


@pytest.mark.parametrize("jump_s", [-40 * 86400.0, 40 * 86400.0])
async def test_a_clock_that_is_set_ages_nothing(jump_s: float, autojump_clock: Clock, nursery: trio.Nursery) -> None:
    """A clock of the day that is put forward or back while the agent runs lets nothing expire, then or at a restart."""
    files, day = MemoryFiles(), Day()
    store = CacheStore(DIRECTORY, files, options(), CacheHooks(wall_s=day))
    await nursery.start(store.run)
    image = make_image()
    await keep_image(store, image)
    await trio.sleep(200)
    day.set_forward(jump_s)
    await trio.sleep(200)
    assert listed(store) == set(image.content)
    tag = store.inventory.tag(image.tags[0])
    assert tag is not None
    assert trio.current_time() - tag.since == pytest.approx(400)
    again = CacheStore(DIRECTORY, files, options(), CacheHooks(wall_s=day))
    await nursery.start(again.run)
    await trio.sleep(200)
    assert listed(again) == set(image.content)


async def test_the_metrics_say_it() -> None:
    """Bytes, room and what left are counted, under names that the rule of names allows."""
    registry = CollectorRegistry()
    store = CacheStore(DIRECTORY, MemoryFiles(), options(bytes_max=100 * KIB), None, CacheMetrics(registry))
    await store.look()
    for number in range(12):
        await keep(store, kib(number))
    digest = Digest.of(b"right")
    async with await store.receive(digest, 5, None, "") as incoming:
        assert registry.get_sample_value("p2pmirror_cache_reserved_bytes") == 5
        await incoming.write(b"wrong")
        assert not await incoming.is_right()
    assert lint(registry) == []
    assert registry.get_sample_value("p2pmirror_cache_bytes") == store.held_bytes == len(listed(store)) * 10 * KIB
    assert registry.get_sample_value("p2pmirror_cache_max_bytes") == 100 * KIB
    assert registry.get_sample_value("p2pmirror_cache_blobs") == len(listed(store))
    assert registry.get_sample_value("p2pmirror_cache_reserved_bytes") == 0
    gone = registry.get_sample_value("p2pmirror_cache_evictions_total", {"reason": "room"})
    assert gone == 12 - len(listed(store))
    assert registry.get_sample_value("p2pmirror_cache_wrong_digests_total") == 1

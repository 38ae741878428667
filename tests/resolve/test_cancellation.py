"""Questions for tags, manifests and lists, cancelled anywhere: nothing of them is left, and the next one is right."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from p2pmirror.oci import Digest
from p2pmirror.resolve.backlog import AHEAD_BYTES, Backlog
from p2pmirror.resolve.want import Arriving, InHand, Listing, Trail, Want
from p2pmirror.store.cache import CacheOptions, CacheStore
from p2pmirror.store.memoryfiles import MemoryFiles
from tests.cancellation import cancel_at_every_checkpoint
from tests.resolve.fakes import KeptSink
from tests.resolve.registry import REGISTRY, REPOSITORY, World, manifest_bytes
from tests.store_cache.setting import DIRECTORY

DATA = manifest_bytes("one")
DIGEST = Digest.of(DATA)


async def tag(world: World) -> None:
    found = await world.find_tag("1")
    assert isinstance(found, InHand)
    assert found.data == DATA


async def document(world: World) -> None:
    found = await world.resolver.find(Want("manifest", REGISTRY, REPOSITORY, DIGEST), Trail())
    assert isinstance(found, InHand)
    assert found.data == DATA


async def tags(world: World) -> None:
    assert await world.tags() == ["1"]


async def referrers(world: World) -> None:
    assert list(await world.resolver.referrers(Listing(REGISTRY, REPOSITORY), DIGEST, Trail())) == []


@pytest.mark.parametrize("ask", [tag, document, tags, referrers])
async def test_asking_a_registry(ask: Callable[[World], Awaitable[None]], autojump_clock: Any) -> None:
    """Whoever leaves takes the question along when nobody else asks it; its answer is kept whole or not at all."""
    files = MemoryFiles()
    cache = CacheStore(DIRECTORY, files, CacheOptions(free_bytes_min=0))
    async with trio.open_nursery() as nursery, World(cache=cache) as world:
        await nursery.start(cache.run)
        world.push(DATA, "1")
        world.conduct.latency_s = 0.01
        tasks = trio.lowlevel.current_statistics().tasks_living

        async def check() -> None:
            await trio.sleep(5)
            assert trio.lowlevel.current_statistics().tasks_living <= tasks
            assert not any(entry.is_open for entry in cache.entries)
            assert not [path for path in files.entries if path.name.startswith(".incoming")]
            await cache.remove([DIGEST])
            await ask(world)
            await cache.remove([DIGEST])

        assert await cancel_at_every_checkpoint(lambda: ask(world), check) > 0
        nursery.cancel_scope.cancel()


async def test_passing_a_blob_on_that_nobody_keeps(autojump_clock: Any) -> None:
    """Without a cache each client has a question of its own: cancelled anywhere, none of it is left."""
    async with World() as world:
        digest = world.registries.put_blob(REGISTRY, REPOSITORY, bytes(300_000))
        tasks = trio.lowlevel.current_statistics().tasks_living

        async def pull() -> None:
            found = await world.find_blob(digest)
            assert isinstance(found, Arriving)
            sink = KeptSink()
            try:
                await found.pump(sink)
            finally:
                found.close()
            assert len(sink.data) == 300_000

        async def check() -> None:
            await trio.sleep(5)
            assert trio.lowlevel.current_statistics().tasks_living <= tasks
            assert world.resolver.transfers() == []
            assert world.resolver.transfers() == []

        assert await cancel_at_every_checkpoint(pull, check) > 3


async def test_parts_between_a_network_and_a_disk() -> None:
    """Whoever leaves while he waits takes no part along and adds none."""
    backlog, taken = Backlog(), list[bytes]()

    async def take() -> None:
        taken.append(await backlog.step())

    async def feed() -> None:
        await backlog.put(b"abc")

    assert await cancel_at_every_checkpoint(take, feed) == 1
    assert (taken, await backlog.step()) == ([b"abc"], b"abc")
    await backlog.put(bytes(AHEAD_BYTES))

    async def make_room() -> None:
        taken.append(await backlog.step())

    assert await cancel_at_every_checkpoint(lambda: backlog.put(b"d"), make_room) == 1
    backlog.end()
    assert ([len(part) for part in taken], await backlog.step()) == ([3, AHEAD_BYTES, 1], b"")

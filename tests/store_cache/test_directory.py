"""The directory of a cache belongs to nobody alone: wiped, damaged, shared, crashed, and never a wrong byte served."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock as Clock

from p2pmirror.errors import NotHere, StoreFull
from p2pmirror.oci import Digest
from p2pmirror.store.cache import CacheHooks, CacheStore
from p2pmirror.store.cache.records import Places
from p2pmirror.store.files import Files
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.memoryfiles import MemoryFiles, PowerOff
from tests.cancellation import cancel_at_every_checkpoint
from tests.store.images import make_image
from tests.store_cache.setting import (
    DIRECTORY,
    Day,
    content,
    keep,
    keep_image,
    listed,
    looked,
    options,
    rests,
    store_on,
    tag_info,
)

PLACES = Places(DIRECTORY)
DATA = [bytes([number]) * (1000 + number) for number in range(8)]


class Place:
    """A running cache, and the hand that removes what is in its directory."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.files: Files = HostFiles() if kind == "host" else MemoryFiles()
        self.directory = directory / "cache" if kind == "host" else DIRECTORY
        self.store = store_on(self.files, self.directory, poll_s=0.02, walk_s_min=0.0)

    def wipe(self, below: str = ".") -> None:
        path = self.directory / below
        if isinstance(self.files, MemoryFiles):
            self.files.remove(path)
        else:
            shutil.rmtree(path)

    async def gone(self, digest: Digest) -> None:
        with trio.fail_after(5):
            while self.store.inventory.blob(digest) is not None:
                await self.store.inventory.changed(self.store.inventory.version)


@pytest.fixture(params=["host", "memory"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with trio.open_nursery() as nursery:
        place = Place(request.param, tmp_path)
        await nursery.start(place.store.run)
        with trio.fail_after(5):
            while not place.store.inventory.walked:
                await place.store.inventory.changed(place.store.inventory.version)
        yield place
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("below", [".", "blobs", "blobs/sha256"])
async def test_wiped_while_it_runs(place: Place, below: str) -> None:
    """After a wipe what was open is read to its end, what is gone is delisted by itself, and new blobs are kept."""
    digest = await keep(place.store, DATA[0])
    blob = await place.store.open(digest)
    async with await place.store.receive(Digest.of(DATA[1]), len(DATA[1]), None, "") as incoming:
        await incoming.write(DATA[1][:500])
        reader = await incoming.reader()
        place.wipe(below)
        await place.gone(digest)
        with pytest.raises(NotHere):
            await place.store.open(digest)
        assert await blob.file.read_at(0, 5000) == DATA[0]
        blob.file.close()
        await incoming.write(DATA[1][500:])
        assert await reader.read_at(0, 5000) == DATA[1]
        try:
            await incoming.keep()
        except StoreFull:
            assert below == "."
        else:
            assert below != "."
            assert await content(place.store, Digest.of(DATA[1])) == DATA[1]
        reader.close()
    assert await content(place.store, await keep(place.store, DATA[2])) == DATA[2]


async def test_open_notices_at_once(place: Place) -> None:
    """A blob that somebody removed is NotHere and delisted at the first look at it, not at the next walk."""
    digest = await keep(place.store, DATA[0])
    place.wipe("blobs")
    with pytest.raises(NotHere):
        await place.store.open(digest)
    assert digest not in listed(place.store)


async def test_lost_records_lose_no_blob(place: Place) -> None:
    """A cache whose records are gone hashes its blobs again and serves them, with what their tags tell of them."""
    image = make_image()
    await keep_image(place.store, image)
    await place.store.look()
    before = {info.digest: info for info in place.store.inventory.blobs()}
    again = store_on(place.files, place.directory, poll_s=0.02, walk_s_min=0.0)
    place.wipe("facts")
    await again.look()
    if again.strange:
        assert await again.adopt() == 0
    assert {info.digest: info for info in again.inventory.blobs()} == before
    assert again.inventory.tag(image.tags[0]) is not None
    await place.store.look()
    assert listed(place.store) == set(before)


async def test_damaged_blobs_are_removed() -> None:
    """A blob that has lost bytes is never served: found at a walk or when it is opened, it is removed and counted."""
    files = MemoryFiles()
    store = await looked(files)
    first, second, third = [await keep(store, data) for data in DATA[:3]]
    files.put(PLACES.blob(first), DATA[0][:-1])
    with pytest.raises(NotHere, match="damaged"):
        await store.open(first)
    files.put(PLACES.blob(second), DATA[1] + b"1")
    await store.look()
    assert listed(store) == {third}
    assert files.get(PLACES.blob(first)) is None
    assert files.get(PLACES.blob(second)) is None
    files.put(PLACES.blob(third), b"x" * len(DATA[2]))
    assert not await store.verify(third)


async def test_strange_files_are_hashed_before_they_are_served() -> None:
    """A blob without a record is listed when its bytes are right, removed when they are wrong; other files stay."""
    files = MemoryFiles()
    right, wrong = Digest.of(DATA[0]), Digest.of(DATA[1])
    files.put(PLACES.blob(right), DATA[0])
    files.put(PLACES.blob(wrong), DATA[2])
    files.put(DIRECTORY / "blobs" / "sha256" / "README", b"mine")
    files.put(PLACES.facts(right), b'{"size": ')
    store = await looked(files)
    assert not listed(store)
    with pytest.raises(NotHere):
        await store.open(right)
    assert await store.adopt() == 1
    assert listed(store) == {right}
    assert files.get(PLACES.blob(wrong)) is None
    assert files.get(DIRECTORY / "blobs" / "sha256" / "README") == b"mine"
    assert listed(await looked(files)) == {right}


async def test_two_agents_share_a_directory(autojump_clock: Clock) -> None:
    """What one agent keeps, tags and evicts the other one knows in seconds; together they stay within the room."""
    files, hooks = MemoryFiles(), CacheHooks(wall_s=Day())
    one, two = (CacheStore(DIRECTORY, files, options(bytes_max=20_000), hooks) for _ in range(2))
    async with trio.open_nursery() as nursery:
        for each in (one, two):
            await nursery.start(each.run)
        image = make_image(layer_bytes=(3000, 4000))
        await keep_image(one, image)
        with await two.open(image.root.digest) as blob:
            assert blob.info.media_type == image.root.media_type
        await trio.sleep(12)
        assert listed(two) == set(image.content)
        assert two.inventory.tag(image.tags[0]) is not None
        await two.forget_tag(image.tags[0])
        for number in range(30):
            await keep((one, two)[number % 2], bytes([number]) * 2000)
            await trio.sleep(12)
            held = sum(len(each.now) for path, each in files.entries.items() if "blobs" in path.parts)
            assert held <= 20_000
        assert listed(one) == listed(two)
        assert one.inventory.tag(image.tags[0]) is None
        for digest in listed(one):
            await content(one, digest)
        nursery.cancel_scope.cancel()


async def test_room_that_another_agent_is_filling_is_taken() -> None:
    """What another agent is receiving counts as taken once this one has looked."""
    files = MemoryFiles()
    one, two = [await looked(files, bytes_max=10_000) for _ in range(2)]
    async with await one.receive(Digest.of(b"1"), 6000, None, ""):
        await two.look()
        with pytest.raises(StoreFull):
            await two.receive(Digest.of(b"2"), 6000, None, "")
        await two.look()
    await two.look()
    async with await two.receive(Digest.of(b"2"), 6000, None, ""):
        pass


async def test_what_dead_writers_left_goes(autojump_clock: Clock) -> None:
    """Files that a killed agent was writing are removed at the next start, and records without a blob after an hour."""
    files, day = MemoryFiles(), Day()
    store = store_on(files, hooks=CacheHooks(wall_s=day))
    await store.look()
    await keep(store, DATA[0])
    files.put(DIRECTORY / ".incoming-dead-0", b"x" * 1000)
    files.put(PLACES.facts(Digest.of(b"never")), b'{"size":5,"kept_s":%d}' % day())
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await trio.sleep(10)
        assert not rests(files)
        assert files.get(PLACES.facts(Digest.of(b"never"))) is not None
        await trio.sleep(4000)
        assert files.get(PLACES.facts(Digest.of(b"never"))) is None
        assert listed(store) == {Digest.of(DATA[0])}
        nursery.cancel_scope.cancel()


# --- cancellation and crashes ---


@pytest.mark.parametrize("kind", ["host", "memory"])
async def test_cancelled_anywhere(kind: str, tmp_path: Path) -> None:
    """Keeping an image, cancelled anywhere, leaves whole blobs, no rest, no reserved room, and a cache that goes on."""
    place = Place(kind, tmp_path)
    store = place.store
    await store.look()
    image = make_image(layer_bytes=(10, 20), with_index=False)

    async def check() -> None:
        names = await place.files.names(place.directory) if store.held_bytes else []
        assert not [name for name in names if name.startswith(".incoming")]
        assert store._room.reserved_bytes == 0
        await store.look()
        for digest in listed(store):
            assert Digest.of(await content(store, digest)) == digest
        await store.remove(listed(store))
        await store.forget_tag(image.tags[0])

    assert await cancel_at_every_checkpoint(lambda: keep_image(store, image), check) > 20
    await keep_image(store, image)
    assert listed(store) == set(image.content)


async def crash_somewhere(seed: int) -> None:
    """Keep, evict, tag and wipe until the power goes off; then see what a new start makes of what is left."""
    chance, files = Random(seed), MemoryFiles()
    image = make_image(layer_bytes=(100, 200), with_index=False)
    kept: dict[Digest, bytes] = {}
    store = await looked(files, bytes_max=9000)
    files.power_off_after(chance.randint(1, 150))
    try:
        await keep_image(store, image)
        for _ in range(12):
            data = chance.choice(DATA)
            kept[await keep(store, data)] = data
            if chance.random() < 0.2:
                await store.remove([chance.choice([*listed(store)])])
            if chance.random() < 0.2:
                await store.remember_tag(tag_info(image.tags[0], image))
    except (PowerOff, StoreFull):
        pass
    files.crash(chance)
    again = await looked(files, bytes_max=9000)
    await again._directory.prepare()
    await again._directory.remove_abandoned()
    assert not rests(files)
    for digest in listed(again):
        assert Digest.of(await content(again, digest)) == digest
    await again.adopt()
    for info in again.inventory.tags():
        assert await content(again, info.digest) == image.content[image.root.digest][0]
    assert again.held_bytes == sum(info.size for info in again.inventory.blobs())
    for data in DATA[:2]:
        assert await content(again, await keep(again, data)) == data


@pytest.mark.parametrize(
    "seed", [*range(30), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(30, 1000))]
)
async def test_crash_at_any_moment(seed: int) -> None:
    """Whatever a crash tears: what is listed afterwards is right without having been hashed, and the cache goes on."""
    await crash_somewhere(seed)
